"""Texts of others in tables that a spreadsheet may open."""

from __future__ import annotations

import json
from typing import Any, Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")  # noqa: RUF001


def csv_cell(text: str) -> str:
    """Return a cell with a quote before what a spreadsheet would compute (OWASP, CSV Injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def csv_value(value: Any) -> str | int:  # noqa: ANN401 - whatever a record holds
    """Return the cell of a record's value: no formula, and no control character as it is."""
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return csv_cell(value if value.isprintable() else _escaped(value))
    return csv_cell(json.dumps(value) if value else "")


def _escaped(text: str) -> str:
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )

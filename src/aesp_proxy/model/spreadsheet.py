"""Texts of others in tables that a spreadsheet may open."""

from __future__ import annotations

from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")  # noqa: RUF001


def csv_cell(text: str) -> str:
    """Return a cell with a quote before what a spreadsheet would compute (OWASP, CSV Injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text

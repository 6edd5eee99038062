"""Say whether the inner loop of the search for registered values was compiled, and hold it."""

from __future__ import annotations

from types import ModuleType
from typing import Final

EDITION: Final = 1
"""Of what its functions take: what was compiled of another is not used."""


def _compiled() -> ModuleType | None:
    try:
        from aesp_proxy.decide.secrets import _marks  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None  # there was no compiler, or no headers of Python
    return _marks if _marks.EDITION == EDITION else None


MARKS: Final = _compiled()
"""The module, None where ``gram_marks`` does its work."""

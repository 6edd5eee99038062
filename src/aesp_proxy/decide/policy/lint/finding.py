"""What a check has found: how bad, where, what else it is about, and a request that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FindingLevel(StrEnum):
    """How bad a finding is; the words are those of SARIF."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """A number to compare by; the worse the higher."""
        return list(FindingLevel).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """Another place that a finding is about; ``source`` is FILE:LINE."""

    source: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LintFinding:
    """One finding. ``check`` is an id of the table of checks, ``source`` FILE:LINE:COL.

    ``witness`` are facts as a case of a suite states them; None where there is nothing to show.
    """

    check: str
    level: FindingLevel
    message: str
    source: str
    related: tuple[Related, ...] = ()
    witness: Mapping[str, object] | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """File, line and column; a line or column that is not known is 1."""
        return split_place(self.source)


def split_place(source: str) -> tuple[str, int, int]:
    """Return file, line and column of FILE, FILE:LINE or FILE:LINE:COL; 1 for what is not told."""
    source = source.partition(" (")[0]
    numbers: list[int] = []
    while len(numbers) < len(("line", "column")):
        rest, colon, last = source.rpartition(":")
        if not colon or not (last.isascii() and last.isdigit()):
            break
        source = rest
        numbers.insert(0, max(int(last), 1))
    line, column = (*numbers, 1, 1)[:2]
    return source, line, column

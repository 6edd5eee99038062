"""A value and where it stands in a policy, so that a decision can name the line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sourced[T]:
    """``value`` with ``source``, which is ``FILE:LINE``, and the column of the value.

    ``style`` is how it is written: plain, single, double or block.
    """

    value: T
    source: str
    column: int = 1
    style: str = "plain"

    @property
    def where(self) -> str:
        """FILE:LINE:COL, for errors."""
        return f"{self.source}:{self.column}"

    def of[U](self, value: U) -> Sourced[U]:
        """Return another value that stands in the same place."""
        return Sourced(value, self.source, self.column, self.style)

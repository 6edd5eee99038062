"""Ask the stored records what the index does not hold: whole paths, and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aesp_proxy.aggregator.indexing import readable_rows
from aesp_proxy.record.canonical import POSITION

if TYPE_CHECKING:
    from aesp_proxy.aggregator.ports import BatchSource, EventQuery, EventRow

_PATH, _FINDINGS = POSITION["target_path"], POSITION["findings"]
_APPLIED = POSITION["applied_policies"]


class RecordMatch:
    """Whether the record of a row has the path and rule asked for; keeps one batch open."""

    def __init__(self, ledger: BatchSource, query: EventQuery) -> None:
        self._ledger = ledger
        self._is_prefix = query.path.endswith("*")
        self._path = query.path.removesuffix("*")
        self._rule = query.rule
        self._first: tuple[str, int, int] = ("", 0, 0)
        self._rows: list[list[Any]] = []

    def holds(self, row: EventRow) -> bool:
        """Whether the record matches; one that cannot be read does not, and is told."""
        values = self._values(row)
        if values is None:
            return False
        path = values[_PATH]
        fits = path.startswith(self._path) if self._is_prefix else path == self._path
        if (self._path or self._is_prefix) and not fits:
            return False
        if not self._rule:
            return True
        found = any(finding[0] == self._rule for finding in values[_FINDINGS])
        return found or self._rule in values[_APPLIED]

    def _values(self, row: EventRow) -> list[Any] | None:
        origin, epoch, first_seq = self._first
        within = 0 <= row.seq - first_seq < len(self._rows)
        if not ((origin, epoch) == (row.origin, row.epoch) and within):
            place = self._ledger.holding(row.origin, row.epoch, row.seq)
            if place is None:
                return None
            self._rows = readable_rows(self._ledger, place)
            self._first = (place.origin, place.epoch, place.first_seq)
        at = row.seq - self._first[2]
        return self._rows[at] if 0 <= at < len(self._rows) else None

"""What a worker's records add up to: the figures of ``aesp-proxy status --metrics``.

Counted where every record passes, so a figure and the record say the same. A name is a
word of a closed set (verdict, reason) or ``other``: no peer can make one. Costs two
dictionary additions a record, and a bisection where there is a duration.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from aesp_proxy.model.decision import Reason, Verdict
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.losses import losable_of

BOUNDS_US: Final = (
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 60_000_000,
)  # fmt: skip
APPEND_BOUNDS_US: Final = (5, 10, 25, 50, 100, 250, 500, 1_000, 10_000, 100_000)
_VERDICTS: Final = frozenset(word.value for word in Verdict)
_REASONS: Final = frozenset(word.value for word in Reason)
_OTHER: Final = "other"


class Durations:
    """Counts durations in microseconds by upper bound; the last bucket has none."""

    __slots__ = ("_bounds", "buckets", "total_us")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total_us = 0

    def add(self, duration_us: int) -> None:
        """Count one."""
        self.buckets[bisect_left(self._bounds, duration_us)] += 1
        self.total_us += duration_us


class Tally:
    """The figures of one worker since it started."""

    __slots__ = ("_appends", "_decisions", "_exchanges", "_lost", "_refusals", "_unrecorded")

    def __init__(self) -> None:
        self._decisions: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._unrecorded = 0
        self._lost: dict[str, int] = {}
        self._appends = Durations(APPEND_BOUNDS_US)
        self._exchanges = Durations(BOUNDS_US)

    def recorded(self, record: Record, *, append_us: int) -> None:
        """Count a record that was written, in so many microseconds."""
        self._appends.add(append_us)
        if record.kind is RecordKind.DECISION:
            _add(self._decisions, record.verdict, _VERDICTS)
        elif record.kind is RecordKind.OUTCOME:
            self._exchanges.add(record.duration_us)
        if record.outcome is Outcome.DENIED:
            _add(self._refusals, record.reason, _REASONS)

    def lost(self, record: Record) -> None:
        """Count a record that was counted in its place, by its class."""
        losable = losable_of(record)
        if losable is not None:
            self._lost[losable.value] = self._lost.get(losable.value, 0) + 1

    def unrecorded(self) -> None:
        """Count a record that could not be written."""
        self._unrecorded += 1

    def figures(self) -> dict[str, object]:
        """Return all as plain values, for the supervisor."""
        return {
            "decisions": dict(self._decisions),
            "refusals": dict(self._refusals),
            "unrecorded": self._unrecorded,
            "lost": dict(self._lost),
            "appends": [*self._appends.buckets, self._appends.total_us],
            "exchanges": [*self._exchanges.buckets, self._exchanges.total_us],
        }


def _add(counts: dict[str, int], word: str, known: frozenset[str]) -> None:
    name = word if word in known else _OTHER
    counts[name] = counts.get(name, 0) + 1

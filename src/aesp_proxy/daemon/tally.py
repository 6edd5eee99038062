"""What a worker's records add up to: the figures of ``aesp-proxy status --metrics``.

Counted where every record passes, so a figure and the record say the same. A name is a
word of a closed set (verdict, reason) or ``other``: no peer can make one. Costs two
dictionary additions a record, and a bisection where there is a duration.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from aesp_proxy.model.decision import Reason, Verdict
from aesp_proxy.model.event import FileOperation
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.losses import Losable, losable_of

BOUNDS_US: Final = (
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 60_000_000,
)  # fmt: skip
APPEND_BOUNDS_US: Final = (5, 10, 25, 50, 100, 250, 500, 1_000, 10_000, 100_000)
VERDICT_WORDS: Final = frozenset(word.value for word in Verdict)
REASON_WORDS: Final = frozenset(word.value for word in Reason)
OPERATION_WORDS: Final = frozenset(word.value for word in FileOperation)
LOSABLE_WORDS: Final = frozenset(word.value for word in Losable)
OTHER: Final = "other"


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

    __slots__ = (
        "_appends", "_decisions", "_exchanges", "_lost", "_refusals", "_unrecorded", "_untold",
    )  # fmt: skip

    def __init__(self) -> None:
        self._decisions: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._unrecorded = 0
        self._untold = 0
        self._lost: dict[str, int] = {}
        self._appends = Durations(APPEND_BOUNDS_US)
        self._exchanges = Durations(BOUNDS_US)

    def recorded(self, record: Record, *, append_us: int) -> None:
        """Count a record that was written, in so many microseconds."""
        self._appends.add(append_us)
        if record.kind is RecordKind.DECISION:
            _add(self._decisions, record.verdict, VERDICT_WORDS)
        elif record.kind is RecordKind.OUTCOME:
            self._exchanges.add(record.duration_us)
        if record.outcome is Outcome.DENIED:
            _add(self._refusals, record.reason, REASON_WORDS)

    def lost(self, record: Record) -> None:
        """Count a record that was counted in its place, by its class."""
        _add(self._lost, str(losable_of(record)), LOSABLE_WORDS)

    def unrecorded(self) -> None:
        """Count a record that could not be written."""
        self._unrecorded += 1

    def untold(self) -> int:
        """Count a piece of what may be a secret that another worker did not take; return all."""
        self._untold += 1
        return self._untold

    def figures(self) -> dict[str, object]:
        """Return all as plain values, for the supervisor."""
        return {
            "decisions": dict(self._decisions),
            "refusals": dict(self._refusals),
            "unrecorded": self._unrecorded,
            "untold": self._untold,
            "lost": dict(self._lost),
            "appends": [*self._appends.buckets, self._appends.total_us],
            "exchanges": [*self._exchanges.buckets, self._exchanges.total_us],
        }


class FileTally:
    """The figures of one process that decides on files, since it started."""

    __slots__ = ("_decisions", "_lost", "_refusals", "_unrecorded")

    def __init__(self) -> None:
        self._decisions: dict[str, dict[str, int]] = {}
        self._refusals: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._unrecorded = 0

    def decided(self, record: Record, *, is_kept: bool) -> None:
        """Count a decision that was recorded or, without ``is_kept``, counted in its place."""
        if not is_kept:
            _add(self._lost, str(losable_of(record)), LOSABLE_WORDS)
            return
        operation = record.action if record.action in OPERATION_WORDS else OTHER
        _add(self._decisions.setdefault(operation, {}), record.verdict, VERDICT_WORDS)
        if record.outcome is Outcome.DENIED:
            _add(self._refusals, record.reason, REASON_WORDS)

    def unrecorded(self) -> None:
        """Count a decision that could not be recorded."""
        self._unrecorded += 1

    def figures(self) -> dict[str, object]:
        """Return all as plain values, for the supervisor."""
        return {
            "decisions": {operation: dict(found) for operation, found in self._decisions.items()},
            "refusals": dict(self._refusals),
            "unrecorded": self._unrecorded,
            "lost": dict(self._lost),
        }


def _add(counts: dict[str, int], word: str, known: frozenset[str]) -> None:
    name = word if word in known else OTHER
    counts[name] = counts.get(name, 0) + 1

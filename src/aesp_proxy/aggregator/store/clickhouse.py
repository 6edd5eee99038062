"""Events for queries in ClickHouse: the ``EventIndex`` for more than one machine's SQLite.

One class for both ways to ClickHouse (``ClickHouseRunner``): embedded (``chdb``) and a server.

Rules: how far the index is stands in the rows themselves, and the statement that adds rows
adds them only where that is what the writer believes. So of an insert that was not done,
done and not told, or told as failed while it goes on, none leads to a gap or a double:

| what fails | what is there | what the next ``add`` does |
|---|---|---|
| before the insert is done | nothing of the group | adds it |
| after it, before the answer is read | the whole group: one block is one part | leaves it out |
| while the server still works on it | it is refused: one insert at a time | is told "later" |
| a group was in, the mark of empty batches not | the rows | looks at the empty batches again |
| another writes, or begins anew, meanwhile | what that one added | is told "later" |
| power is cut | parts are synced before the answer | adds what is missing |
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from aesp_proxy.aggregator.ports import EventCount, EventRow
from aesp_proxy.aggregator.store import clickhouse_sql as sql
from aesp_proxy.aggregator.store.clickhouse_block import Block
from aesp_proxy.errors import ConfigError, RecordError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aesp_proxy.aggregator.ports import BatchPlace, EventQuery
    from aesp_proxy.aggregator.store.clickhouse_sql import Statement
    from aesp_proxy.aggregator.store.index_search import Keep

GROUP_ROWS_MAX: Final = 200_000
GROUP_BYTES_MAX: Final = 64 * 1024 * 1024
HOURS_MAX: Final = 10_000
# So few are looked into without asking which of them have rows.
FEW_HOURS: Final = 3
GROWTH: Final = 8
QUERY_S_MAX: Final = 60.0


class ClickHouseRunner(Protocol):
    """A way to a ClickHouse. What fails is an UnavailableError, RecordError or ConfigError."""

    def ask(self, statement: Statement, *, seconds_max: float) -> list[list[Any]]:
        """Return the rows of an answer; UnavailableError when it takes longer."""

    def tell(self, statement: Statement) -> None:
        """Change something; what changes is done one at a time."""

    def insert(self, statement: Statement, block: bytes) -> None:
        """Insert one block, as :meth:`tell`; ``%s`` stands where its rows are read."""

    def close(self) -> None:
        """Let go of it."""


class ClickHouseIndex:
    """Both sides of the index; one process at a time writes (the caller holds the lock)."""

    def __init__(self, runner: ClickHouseRunner, *, query_s_max: float = QUERY_S_MAX) -> None:
        self._runner = runner
        self._query_s_max = query_s_max

    def within(self, query_s_max: float) -> ClickHouseIndex:
        """Return the same, for questions that may take less."""
        return ClickHouseIndex(self._runner, query_s_max=min(query_s_max, self._query_s_max))

    def create(self) -> None:
        """Make the tables where they are not there; ConfigError where ClickHouse is too old."""
        for text in sql.SCHEMA:
            try:
                self._runner.tell(sql.Statement(text=text))
            except RecordError as error:
                raise ConfigError(
                    f"cannot have our tables: {error.message}",
                    where=error.where,
                    remedy="needs ClickHouse 26.2 or later",
                ) from error

    def drop(self) -> None:
        """Throw the events away: they are derived."""
        for text in sql.DROP:
            self._runner.tell(sql.Statement(text=text))

    def close(self) -> None:
        """Let go of ClickHouse."""
        self._runner.close()

    def position(self) -> int:
        """Return the position up to which batches are indexed."""
        return int(self._ask(sql.Statement(text=sql.POSITION), self._end_s())[0][0])

    def add(self, batches: Iterable[tuple[BatchPlace, Sequence[Sequence[Any]]]]) -> int:
        """Add batches in order of position; return rows added.

        Each row holds the values of ``record.canonical.FIELDS``. Batches at or before the
        position reached are left out, so a repeat does no harm. A group of batches is
        there as a whole or not at all; an error leaves those before it.
        """
        reached = self.position()
        new = [(place, rows) for place, rows in batches if place.position > reached]
        added = 0
        for block in _blocks(new):
            its = sql.Statement(text=sql.INSERT, values={"reached": str(reached)})
            self._runner.insert(its, block.encode())
            reached = self._reached(block.last)
            added += block.rows
        if new and not new[-1][1]:
            last = new[-1][0].position
            values = {"reached": str(reached), "position": str(last)}
            self._runner.tell(sql.Statement(text=sql.REACH, values=values))
            self._reached(last)
        return added

    def _reached(self, expected: int) -> int:
        if self.position() != expected:
            raise UnavailableError("another process writes to the index, too")
        return expected

    def find(self, query: EventQuery, keep: Keep | None = None) -> list[EventRow]:
        """Return matching events, newest first. Paths and rules are columns: ``keep`` is not asked.

        The hours that may hold a match are known beforehand, so a page is looked for in
        as few of them as it needs, from the newest back.
        """
        del keep
        end_s = self._end_s()
        found: list[EventRow] = []
        for low, high in self._windows(query, end_s):
            statement = sql.page(query, low, high, limit=query.limit - len(found))
            found += [_row(values) for values in self._ask(statement, end_s)]
            if len(found) >= query.limit:
                break
        return found

    def count(self, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
        """Return how many matching events there are by ``by``, most first."""
        if query.until_ns == 0:
            return []
        rows = self._ask(sql.counts(query, by), self._end_s())
        return [
            EventCount(
                count=int(row[0]),
                values=tuple(
                    str(value * sql.SPAN_NS[name]) if name in sql.SPAN_NS else str(value)
                    for name, value in zip(by, row[1:], strict=True)
                ),
            )
            for row in rows
        ]

    def _windows(self, query: EventQuery, end_s: float) -> Iterator[tuple[int, int]]:
        """Yield spans of hours from the newest back: few at first, eightfold each time."""
        oldest, newest = (bound // sql.HOUR_NS for bound in sql.bounds_of(query))
        if 0 <= newest < oldest + FEW_HOURS:
            yield oldest, newest
            return
        wanted = 1
        while newest >= 0:
            hours = self._ask(sql.hours_with_rows(query, newest, limit=HOURS_MAX), end_s)
            at = 0
            while at < len(hours):
                end = at + wanted
                if sql.is_counted(query):
                    end = max(end, at + _enough(hours[at:], query.limit))
                span = hours[at:end]
                yield span[-1][0], span[0][0]
                at, wanted = end, wanted * GROWTH
            if len(hours) < HOURS_MAX:
                return
            newest = hours[-1][0] - 1

    def _end_s(self) -> float:
        return time.monotonic() + self._query_s_max

    def _ask(self, statement: Statement, end_s: float) -> list[list[Any]]:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise UnavailableError(
                "the question took too long", remedy="narrow it in time or agent"
            )
        return self._runner.ask(statement, seconds_max=left_s)


def _enough(hours: Sequence[Sequence[int]], limit: int) -> int:
    """Return how many of the first hours hold ``limit`` rows."""
    total = 0
    for at, (_, count) in enumerate(hours, start=1):
        total += count
        if total >= limit:
            return at
    return len(hours)


def _blocks(batches: Sequence[tuple[BatchPlace, Sequence[Sequence[Any]]]]) -> Iterator[Block]:
    """Yield the batches in groups that are one part each: bounded, and of one month."""
    block, month = Block(), ""
    for place, rows in batches:
        if not rows:
            continue
        its = f"{datetime.fromtimestamp(place.received_ns / 1e9, UTC):%Y-%m}"
        full = block.rows + len(rows) > GROUP_ROWS_MAX or block.bytes > GROUP_BYTES_MAX
        if block.rows and (full or its != month):
            yield block
            block = Block()
        block.add(place, rows)
        month = its
    if block.rows:
        yield block


def _row(values: Sequence[Any]) -> EventRow:
    return EventRow(**dict(zip(sql.SHOWN, values, strict=True)))

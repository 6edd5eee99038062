"""Search the SQLite index: postings choose the batches, newest first, rows are scanned.

Rules: every value reaches SQLite as a parameter, never as text of a statement;
the order is (time, origin, epoch, seq), all descending, so that a cursor names
one place for ever; the walk ends as soon as no older batch can hold a row that
belongs on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from aesp_proxy.aggregator.ports import EventCursor, EventQuery, EventRow
from aesp_proxy.aggregator.store.path_filter import may_hold

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

ROW_BITS: Final = 20
HOUR_NS: Final = 3_600_000_000_000
# What is counted by hour.
ROLLED: Final = ("kind", "verdict", "reason", "guard", "action", "outcome", "tenant")
# What a row has by its shape.
SHAPED: Final = ("status", *ROLLED)
Keep = Callable[[EventRow], bool]
# The rarest first: the first that is asked for drives the walk.
_FILTERS: Final = ("session", "agent", "host", "tenant", "reason", "verdict", "kind")
_SHOWN: Final = (
    "kind",
    "agent",
    "host",
    "verdict",
    "reason",
    "guard",
    "action",
    "outcome",
    "session",
    "tenant",
)
_ROWS_SQL: Final = (
    "SELECT offset_ns, id, status, kind, agent, host, verdict, reason, guard, action, outcome,"
    " session, tenant FROM events e CROSS JOIN shapes s ON s.shape = e.shape"
    " WHERE id BETWEEN ? AND ? AND (offset_ns, id) < (?, ?) AND offset_ns >= ?"
)
_ORDER_SQL: Final = " ORDER BY offset_ns DESC, id DESC LIMIT ?"


class _Texts(dict[int, str]):
    """The dictionary by number, as far as one search needs it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, number: int) -> str:
        row = self._connection.execute("SELECT text FROM terms WHERE id = ?", (number,)).fetchone()
        self[number] = text = str(row[0])
        return text


class _Batch(NamedTuple):
    position: int
    origin: str
    epoch: int
    first_seq: int
    rows: int
    first_ns: int
    last_ns: int


def search(
    connection: sqlite3.Connection, query: EventQuery, keep: Keep | None = None
) -> list[EventRow]:
    """Return the events of one page, newest first, at most ``query.limit``.

    ``keep`` says of a row whether it is wanted, where the index alone cannot.
    """
    terms = filter_terms(connection, query)
    if terms is None:
        return []
    found: list[EventRow] = []
    texts = _Texts(connection)
    marks = rule_terms(connection, query)
    narrowed = _narrowed(connection, query, terms)
    if marks is None or narrowed is None:
        return []
    query = narrowed
    for batch in _batches(connection, query, [*(number for _, number in terms), *marks]):
        if len(found) >= query.limit and batch.last_ns < found[-1].time_ns:
            break
        if not _has_path(connection, batch, query):
            continue
        rows = _wanted(_rows(connection, batch, query, terms, texts, keep), query, keep)
        found = nlargest(query.limit, [*found, *rows], key=event_place)
    return found


def _narrowed(
    connection: sqlite3.Connection, query: EventQuery, terms: list[tuple[str, int]]
) -> EventQuery | None:
    """Ask the counts by hour when two common values meet: only then; None when they never do.

    Both occur in most batches, so that postings rule out none of these.
    """
    counted = [(name, number) for name, number in terms if name in ROLLED]
    if len(counted) < 2:
        return query
    since_ns, before_ns = event_bounds(query)
    sql = ["SELECT min(hour), max(hour) FROM hours WHERE hour BETWEEN ? AND ?"]
    sql += [f"AND {name} = ?" for name, _ in counted]  # names of the filters, never input
    hours = (since_ns // HOUR_NS, before_ns // HOUR_NS)
    values = [*hours, *(number for _, number in counted)]
    first, last = connection.execute(" ".join(sql), values).fetchone()
    if first is None:
        return None
    before_ns = min(before_ns, (last + 1) * HOUR_NS - 1)
    until_ns = query.until_ns if before_ns >= _FOREVER_NS else before_ns + 1
    return replace(query, since_ns=max(since_ns, first * HOUR_NS), until_ns=until_ns)


def _wanted(rows: Iterator[EventRow], query: EventQuery, keep: Keep | None) -> Iterator[EventRow]:
    if keep is None:
        return rows
    return islice((row for row in rows if keep(row)), query.limit)


def rule_terms(connection: sqlite3.Connection, query: EventQuery) -> list[int] | None:
    """Return the postings of batches that may hold the rule asked for; None for none."""
    if not query.rule:
        return []
    row = connection.execute(
        "SELECT id FROM terms WHERE field = 'rule' AND text = ?", (query.rule,)
    ).fetchone()
    return None if row is None else [row[0]]


def _has_path(connection: sqlite3.Connection, batch: _Batch, query: EventQuery) -> bool:
    """Whether a batch may hold the path asked for; a beginning of one is looked for everywhere."""
    if not query.path or query.path.endswith("*"):
        return True
    row = connection.execute(
        "SELECT bits FROM paths WHERE position = ?", (batch.position,)
    ).fetchone()
    return row is not None and may_hold(row[0], query.path)


def event_place(row: EventRow | EventCursor) -> tuple[int, str, int, int]:
    """Return what events are ordered by."""
    return (row.time_ns, row.origin, row.epoch, row.seq)


def filter_terms(connection: sqlite3.Connection, query: EventQuery) -> list[tuple[str, int]] | None:
    """Return the filters as (column, number); None when a value was never seen."""
    terms: list[tuple[str, int]] = []
    for name in _FILTERS:
        text = getattr(query, name)
        if text:
            row = connection.execute(
                "SELECT id FROM terms WHERE field = ? AND text = ?", (name, text)
            ).fetchone()
            if row is None:
                return None
            terms.append((name, row[0]))
    return terms


def _batches(
    connection: sqlite3.Connection, query: EventQuery, terms: list[int]
) -> Iterator[_Batch]:
    """Yield the batches that may hold a match, from the newest last event back."""
    since_ns, before_ns = event_bounds(query)
    span_ns_max = connection.execute("SELECT span_ns_max FROM progress").fetchone()[0]
    first = terms[0] if terms else None
    sql = ["SELECT b.position, b.origin, b.epoch, b.first_seq, b.count, b.first_ns, b.last_ns"]
    values: list[object] = []
    if first is None:
        sql.append("FROM batches b WHERE b.count > 0 AND b.last_ns BETWEEN ? AND ?")
    else:
        sql.append("FROM postings p CROSS JOIN batches b ON b.position = p.position")
        sql.append("WHERE p.term = ? AND p.last_ns BETWEEN ? AND ?")
        values.append(first)
    # No batch spans more than span_ns_max, so one that ends later begins too late.
    values += [since_ns, min(before_ns + span_ns_max, _FOREVER_NS), before_ns]
    sql.append("AND b.first_ns <= ?")
    if query.origin:
        sql.append("AND b.origin = ?")
        values.append(query.origin)
    for term in terms[1:]:
        sql.append("AND EXISTS (SELECT 1 FROM postings o WHERE o.term = ?")
        sql.append("AND o.last_ns = b.last_ns AND o.position = b.position)")
        values.append(term)
    newest = "b" if first is None else "p"
    sql.append(f"ORDER BY {newest}.last_ns DESC, {newest}.position DESC")
    for row in connection.execute(" ".join(sql), values):
        yield _Batch(*row)


_FOREVER_NS: Final = (1 << 63) - 1


def event_bounds(query: EventQuery) -> tuple[int, int]:
    """Return the oldest and newest time that may match, both inclusive."""
    since_ns = query.since_ns or 0
    before_ns = _FOREVER_NS if query.until_ns is None else query.until_ns - 1
    if query.cursor is not None:
        before_ns = min(before_ns, query.cursor.time_ns)
    return since_ns, before_ns


def _rows(
    connection: sqlite3.Connection,
    batch: _Batch,
    query: EventQuery,
    terms: list[tuple[str, int]],
    texts: _Texts,
    keep: Keep | None,
) -> Iterator[EventRow]:
    """Yield the matching rows of one batch, newest first."""
    since_ns, _ = event_bounds(query)
    base = batch.position << ROW_BITS
    values: list[object] = [base, base + batch.rows - 1]
    values += _before(batch, query, base)
    values.append(since_ns - batch.first_ns)
    sql = _ROWS_SQL
    for name, number in terms:
        sql += f" AND {name} = ?"  # a name of _FILTERS, never input
        values.append(number)
    # Who is asked of each row decides how many are needed: -1 is no limit to SQLite.
    values.append(query.limit if keep is None else -1)
    for row in connection.execute(sql + _ORDER_SQL, values):
        offset_ns, row_id, status, *numbers = row
        yield EventRow(
            time_ns=batch.first_ns + offset_ns,
            origin=batch.origin,
            epoch=batch.epoch,
            seq=batch.first_seq + row_id - base,
            status=status,
            **{name: texts[number] for name, number in zip(_SHOWN, numbers, strict=True)},
        )


def _before(batch: _Batch, query: EventQuery, base: int) -> tuple[int, int]:
    """Return the (offset, id) that a row of this batch must stand before."""
    bound = (_FOREVER_NS, _FOREVER_NS)
    if query.until_ns is not None:
        bound = (query.until_ns - batch.first_ns, 0)
    if query.cursor is None:
        return bound
    cursor = query.cursor
    here, there = (batch.origin, batch.epoch), (cursor.origin, cursor.epoch)
    offset_ns = cursor.time_ns - batch.first_ns
    if here < there:
        at_cursor = (offset_ns + 1, 0)
    elif here > there:
        at_cursor = (offset_ns, 0)
    else:
        at_cursor = (offset_ns, max(base + cursor.seq - batch.first_seq, 0))
    return min(bound, at_cursor)

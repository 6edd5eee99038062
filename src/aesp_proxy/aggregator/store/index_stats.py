"""Count events by what they have in common: top denials, by guard and hour, and the like.

Rules: names of columns come from tables of this module and values are parameters, so no text
of a question becomes SQL. What only asks for columns of the counts by hour (``ROLLED``) is
answered by those, and rows are scanned in the hours that the time asked for cuts; for
everything else batches that cannot hold a match are skipped by time, origin and postings.
The reader's deadline bounds it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from aesp_proxy.aggregator.ports import EventCount
from aesp_proxy.aggregator.store.index_search import (
    HOUR_NS,
    ROLLED,
    ROW_BITS,
    SHAPED,
    event_bounds,
    filter_terms,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from aesp_proxy.aggregator.ports import EventQuery

GROUPS: Final[dict[str, str]] = {
    **{name: f"s.{name}" for name in ROLLED},
    **{name: f"e.{name}" for name in ("agent", "host", "session")},
    "origin": "b.origin",
    "hour": f"(b.first_ns + e.offset_ns) / {HOUR_NS}",
    "day": f"(b.first_ns + e.offset_ns) / {HOUR_NS * 24}",
}
_ROLLED_GROUPS: Final = {**{name: name for name in ROLLED}, "hour": "hour", "day": "hour / 24"}
_SPANS: Final = {"hour": HOUR_NS, "day": HOUR_NS * 24}
_NO_LIMIT: Final = -1
_Row = tuple[int, ...]


def count_events(
    connection: sqlite3.Connection, query: EventQuery, by: tuple[str, ...]
) -> list[EventCount]:
    """Return how many events each combination of ``by`` has, most first, ``query.limit`` at most.

    A time (``hour``, ``day``) is told as UTC nanoseconds of its beginning, as text.
    """
    terms = filter_terms(connection, query)
    if terms is None:
        return []
    since_ns, before_ns = event_bounds(query)
    asked = {*by, *(name for name, _ in terms)}
    if query.origin or not asked <= _ROLLED_GROUPS.keys():
        rows = list(_scan(connection, query, by, terms, (since_ns, before_ns), query.limit))
    else:
        rows = _by_hours(connection, query, by, terms)
    return [
        EventCount(
            count=row[0],
            values=tuple(
                _text(connection, name, value) for name, value in zip(by, row[1:], strict=True)
            ),
        )
        for row in rows
    ]


def _by_hours(
    connection: sqlite3.Connection,
    query: EventQuery,
    by: tuple[str, ...],
    terms: list[tuple[str, int]],
) -> list[_Row]:
    """Count whole hours by their counts, and scan the rows of the two that may be cut."""
    since_ns, before_ns = event_bounds(query)
    first, last = -(-since_ns // HOUR_NS), (before_ns + 1) // HOUR_NS - 1
    total: Counter[_Row] = Counter()
    cut = [(since_ns, before_ns)]
    if first <= last:
        cut = [(since_ns, first * HOUR_NS - 1), ((last + 1) * HOUR_NS, before_ns)]
        for count, *values in _whole(connection, by, terms, (first, last)):
            total[tuple(values)] += count
    for low_ns, high_ns in cut:
        if low_ns <= high_ns:
            bounds = (low_ns, high_ns)
            for count, *values in _scan(connection, query, by, terms, bounds, _NO_LIMIT):
                total[tuple(values)] += count
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return [(count, *values) for values, count in ordered[: query.limit] if count]


def _whole(
    connection: sqlite3.Connection,
    by: tuple[str, ...],
    terms: list[tuple[str, int]],
    hours: tuple[int, int],
) -> Iterator[_Row]:
    columns = [_ROLLED_GROUPS[name] for name in by]
    sql = ["SELECT coalesce(sum(count), 0)", *(f", {column}" for column in columns)]
    sql.append("FROM hours WHERE hour BETWEEN ? AND ?")
    sql += [f"AND {name} = ?" for name, _ in terms]  # names of the filters, never input
    if by:
        sql.append("GROUP BY " + ", ".join(columns))
    yield from connection.execute(" ".join(sql), [*hours, *(number for _, number in terms)])


def _scan(
    connection: sqlite3.Connection,
    query: EventQuery,
    by: tuple[str, ...],
    terms: list[tuple[str, int]],
    bounds: tuple[int, int],
    limit: int,
) -> Iterator[_Row]:
    """Yield (count, values) of the matching rows, most first."""
    since_ns, before_ns = bounds
    columns = [GROUPS[name] for name in by]
    sql = ["SELECT count(*)", *(f", {column}" for column in columns)]
    sql.append("FROM batches b CROSS JOIN events e")
    if not {*by, *(name for name, _ in terms)}.isdisjoint(SHAPED):
        sql.append("CROSS JOIN shapes s ON s.shape = e.shape")
    sql.append("WHERE b.count > 0 AND b.last_ns >= ? AND b.first_ns <= ?")
    values: list[object] = [since_ns, before_ns]
    if query.origin:
        sql.append("AND b.origin = ?")
        values.append(query.origin)
    for _, number in terms:
        sql.append("AND EXISTS (SELECT 1 FROM postings p WHERE p.term = ?")
        sql.append("AND p.last_ns = b.last_ns AND p.position = b.position)")
        values.append(number)
    low = f"(b.position << {ROW_BITS})"
    sql.append(f"AND e.id BETWEEN {low} AND {low} + b.count - 1")
    sql.append("AND b.first_ns + e.offset_ns BETWEEN ? AND ?")
    values += [since_ns, before_ns]
    for name, number in terms:
        # "+": else SQLite makes an index of the column for this question, and walks all of
        # its entries in each batch. The name is one of the filters, never input.
        sql.append(f"AND +{GROUPS[name]} = ?")
        values.append(number)
    if by:
        sql.append("GROUP BY " + ", ".join(columns))
    order = ", ".join(["1 DESC", *(str(index + 2) for index in range(len(by)))])
    sql.append(f"ORDER BY {order} LIMIT ?")
    yield from connection.execute(" ".join(sql), [*values, limit])


def _text(connection: sqlite3.Connection, name: str, value: int | str) -> str:
    if name in _SPANS:
        return str(int(value) * _SPANS[name])
    if name == "origin":
        return str(value)
    row = connection.execute("SELECT text FROM terms WHERE id = ?", (value,)).fetchone()
    return str(row[0])

"""Count events by what they have in common: top denials, by guard and hour, and the like.

Rules: names of columns come from :data:`GROUPS` and values are parameters, so no text of
a question becomes SQL; batches that cannot hold a match are skipped by time, origin and
postings; the reader's deadline bounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aesp_proxy.aggregator.ports import EventCount
from aesp_proxy.aggregator.store.index_search import ROW_BITS, event_bounds, filter_terms

if TYPE_CHECKING:
    import sqlite3

    from aesp_proxy.aggregator.ports import EventQuery

_HOUR_NS: Final = 3_600_000_000_000
_TEXTS: Final = (
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
GROUPS: Final[dict[str, str]] = {
    **{name: f"e.{name}" for name in _TEXTS},
    "origin": "b.origin",
    "hour": f"(b.first_ns + e.offset_ns) / {_HOUR_NS}",
    "day": f"(b.first_ns + e.offset_ns) / {_HOUR_NS * 24}",
}
_SPANS: Final = {"hour": _HOUR_NS, "day": _HOUR_NS * 24}


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
    columns = [GROUPS[name] for name in by]
    sql = ["SELECT count(*)", *(f", {column}" for column in columns)]
    sql.append("FROM batches b CROSS JOIN events e")
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
        sql.append(f"AND e.{name} = ?")  # a name of the filters, never input
        values.append(number)
    if by:
        sql.append("GROUP BY " + ", ".join(columns))
    order = ", ".join(["1 DESC", *(str(index + 2) for index in range(len(by)))])
    sql.append(f"ORDER BY {order} LIMIT ?")
    rows = connection.execute(" ".join(sql), [*values, query.limit])
    return [
        EventCount(
            count=row[0],
            values=tuple(
                _text(connection, name, value) for name, value in zip(by, row[1:], strict=True)
            ),
        )
        for row in rows
    ]


def _text(connection: sqlite3.Connection, name: str, value: int | str) -> str:
    if name in _SPANS:
        return str(int(value) * _SPANS[name])
    if name == "origin":
        return str(value)
    row = connection.execute("SELECT text FROM terms WHERE id = ?", (value,)).fetchone()
    return str(row[0])

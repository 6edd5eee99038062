"""What is said to ClickHouse: the layout of the index, and its questions.

Rules: a value reaches ClickHouse as a parameter ``{name:Type}``, never as text of a
statement, so no recorded value can be read as one; names of columns come from tables in
this module. Source: https://clickhouse.com/docs/interfaces/http (parameters),
https://clickhouse.com/docs/engines/table-engines/mergetree-family/textindexes (26.2 or later).

The layout: rows by hour, agent and time, so that the hours asked for stand together and an
agent's within them. Distinct paths are too many for a dictionary and have an index of their
words. What is counted most (verdict, reason, guard by hour) is a *projection*: a part of
the table holds its own counts, so they cannot differ from its rows after a crash, as those
of a materialised view could, which is a table of its own. Partitions are months of
arrival by the aggregator's clock: no host's clock makes one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aesp_proxy.aggregator.ports import EventQuery

HOUR_NS: Final = 3_600_000_000_000
LATEST_NS: Final = (1 << 63) - 1

# A new layout is a new table, built from the batches; the number is part of the names.
EVENTS: Final = "aesp_events_1"
REACHED: Final = "aesp_reached_1"

_COUNTED: Final = ("kind", "verdict", "reason", "guard", "action", "outcome", "tenant")
_ROLLED: Final = ", ".join(_COUNTED)
# What of a row is asked for, in the order of ``EventRow``.
SHOWN: Final = (
    "time_ns", "origin", "epoch", "seq", "kind", "agent", "host", "verdict", "reason", "guard",
    "action", "outcome", "session", "tenant", "status",
)  # fmt: skip
# The columns as a block brings them; ``hour`` is computed.
COLUMNS: Final[dict[str, str]] = {
    "position": "UInt64",
    "received": "Date",
    "origin": "String",
    "epoch": "UInt64",
    "seq": "UInt64",
    "time_ns": "UInt64",
    "status": "UInt64",
    "kind": "String",
    "agent": "String",
    "host": "String",
    "verdict": "String",
    "reason": "String",
    "guard": "String",
    "action": "String",
    "outcome": "String",
    "session": "String",
    "tenant": "String",
    "path": "String",
    "rules": "Array(String)",
}
STRUCTURE: Final = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())

SCHEMA: Final = (
    f"""CREATE TABLE IF NOT EXISTS {EVENTS} (
    position UInt64 CODEC(Delta, ZSTD(1)),
    received Date CODEC(ZSTD(1)),
    origin LowCardinality(String) CODEC(ZSTD(1)),
    epoch UInt64 CODEC(Delta, ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    time_ns UInt64 CODEC(Delta, ZSTD(1)),
    hour UInt32 MATERIALIZED intDiv(time_ns, {HOUR_NS}) CODEC(Delta, ZSTD(1)),
    status UInt64 CODEC(T64, ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    agent LowCardinality(String) CODEC(ZSTD(1)),
    host LowCardinality(String) CODEC(ZSTD(1)),
    verdict LowCardinality(String) CODEC(ZSTD(1)),
    reason LowCardinality(String) CODEC(ZSTD(1)),
    guard LowCardinality(String) CODEC(ZSTD(1)),
    action LowCardinality(String) CODEC(ZSTD(1)),
    outcome LowCardinality(String) CODEC(ZSTD(1)),
    session String CODEC(ZSTD(1)),
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    rules Array(LowCardinality(String)) CODEC(ZSTD(1)),
    INDEX path_words path TYPE text(tokenizer = 'splitByNonAlpha'),
    INDEX rules_held rules TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX session_held session TYPE bloom_filter(0.01) GRANULARITY 1,
    PROJECTION by_hour (
        SELECT hour, {_ROLLED}, count(), max(position) GROUP BY hour, {_ROLLED})
) ENGINE = MergeTree PARTITION BY toYYYYMM(received) ORDER BY (hour, agent, time_ns)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1""",
    # Batches without rows (heartbeats) are reached too.
    f"""CREATE TABLE IF NOT EXISTS {REACHED} (
    position SimpleAggregateFunction(max, UInt64)
) ENGINE = AggregatingMergeTree ORDER BY tuple()""",
)
DROP: Final = (f"DROP TABLE IF EXISTS {EVENTS} SYNC", f"DROP TABLE IF EXISTS {REACHED} SYNC")

_REACHED: Final = (
    f"(SELECT greatest((SELECT max(position) FROM {EVENTS}),"
    f" (SELECT max(position) FROM {REACHED})))"
)
POSITION: Final = f"SELECT {_REACHED}"
# Both only where the index stands where the writer believes it to: a writer that is late
# makes neither a double nor, after another has begun it anew, a gap.
INSERT: Final = (
    f"INSERT INTO {EVENTS} ({', '.join(COLUMNS)}) SELECT * FROM %s"
    f" WHERE {{reached:UInt64}} = {_REACHED}"
)
REACH: Final = (
    f"INSERT INTO {REACHED} SELECT {{position:UInt64}} WHERE {{reached:UInt64}} = {_REACHED}"
)

_EQUAL: Final = ("agent", "host", "session", "origin")
_HOURS: Final = "hour BETWEEN {low:UInt32} AND {high:UInt32}"
_SPANS: Final = {"hour": "hour", "day": "intDiv(hour, 24)"}
SPAN_NS: Final = {"hour": HOUR_NS, "day": HOUR_NS * 24}
GROUPS: Final[dict[str, str]] = {name: name for name in (*_COUNTED, *_EQUAL)} | _SPANS


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement with the values of its parameters, as plain text."""

    text: str
    values: dict[str, str] = field(default_factory=dict)


def bounds_of(query: EventQuery) -> tuple[int, int]:
    """Return the oldest and newest time that may match, both inclusive."""
    since_ns = query.since_ns or 0
    before_ns = LATEST_NS if query.until_ns is None else query.until_ns - 1
    if query.cursor is not None:
        before_ns = min(before_ns, query.cursor.time_ns)
    return since_ns, before_ns


def is_counted(query: EventQuery) -> bool:
    """Whether the projection's counts say how many rows of a whole hour match."""
    return not (query.path or query.rule or any(getattr(query, name) for name in _EQUAL))


def hours_with_rows(query: EventQuery, newest: int, *, limit: int) -> Statement:
    """Ask which hours up to ``newest`` may hold a match, newest first, with how many rows."""
    values = {"low": str(bounds_of(query)[0] // HOUR_NS), "high": str(newest)}
    where = [_HOURS, *_equal(query, _COUNTED, values)]
    return Statement(
        text=f"SELECT hour, count() FROM {EVENTS} WHERE {' AND '.join(where)}"
        f" GROUP BY hour ORDER BY hour DESC LIMIT {limit:d}",
        values=values,
    )


def page(query: EventQuery, low: int, high: int, *, limit: int) -> Statement:
    """Ask for the newest matching rows of the hours ``low`` to ``high``."""
    values = {"low": str(low), "high": str(high)}
    where = [_HOURS, *_between(query, values), *_filters(query, values)]
    cursor = query.cursor
    if cursor is not None:
        values |= {"at": str(cursor.time_ns), "epoch": str(cursor.epoch), "seq": str(cursor.seq)}
        values["of"] = cursor.origin
        where.append(
            "(time_ns, toString(origin), epoch, seq)"
            " < ({at:UInt64}, {of:String}, {epoch:UInt64}, {seq:UInt64})"
        )
    return Statement(
        text=f"SELECT {', '.join(SHOWN)} FROM {EVENTS} WHERE {' AND '.join(where)}"
        f" ORDER BY time_ns DESC, origin DESC, epoch DESC, seq DESC LIMIT {limit:d}",
        values=values,
    )


def counts(query: EventQuery, by: tuple[str, ...]) -> Statement:
    """Ask how many matching rows each combination of ``by`` has, most first.

    Hours that lie wholly in the time asked for are counted by the projection; at most
    two are cut by it, and read.
    """
    since_ns, before_ns = bounds_of(query)
    first, last = -(-since_ns // HOUR_NS), (before_ns + 1) // HOUR_NS - 1
    values = {"low": str(first), "high": str(last)}
    filters = _filters(query, values)
    asked = [[_HOURS, *filters]] if first <= last else []
    cut = {
        hour for hour in (since_ns // HOUR_NS, before_ns // HOUR_NS) if not first <= hour <= last
    }
    if cut:
        values |= {"cut_low": str(min(cut)), "cut_high": str(max(cut))}
        hours = "hour IN ({cut_low:UInt32}, {cut_high:UInt32})"
        asked.append([hours, *_between(query, values), *filters])
    keys = [f"g{at}" for at in range(len(by))]
    named = "".join(f", {GROUPS[name]} AS {key}" for name, key in zip(by, keys, strict=True))
    grouped = f" GROUP BY {', '.join(keys)}" if by else ""
    parts = " UNION ALL ".join(
        f"SELECT count() AS c{named} FROM {EVENTS} WHERE {' AND '.join(where)}{grouped}"
        for where in asked
    )
    return Statement(
        text=f"SELECT {', '.join(['sum(c) AS n', *keys])} FROM ({parts}){grouped}"
        f" HAVING n > 0 ORDER BY {', '.join(['n DESC', *keys])} LIMIT {query.limit:d}",
        values=values,
    )


def _between(query: EventQuery, values: dict[str, str]) -> list[str]:
    """Bound the time; only called for hours that the bounds cut, or may cut."""
    since_ns, before_ns = bounds_of(query)
    values |= {"since": str(since_ns), "before": str(before_ns)}
    return ["time_ns BETWEEN {since:UInt64} AND {before:UInt64}"]


def _filters(query: EventQuery, values: dict[str, str]) -> list[str]:
    found = _equal(query, (*_EQUAL, *_COUNTED), values)
    if query.path:
        values["path"] = query.path.removesuffix("*")
        is_prefix = query.path.endswith("*")
        found.append("startsWith(path, {path:String})" if is_prefix else "path = {path:String}")
    if query.rule:
        values["rule"] = query.rule
        found.append("has(rules, {rule:String})")
    return found


def _equal(query: EventQuery, names: tuple[str, ...], values: dict[str, str]) -> list[str]:
    """Return the conditions of the columns ``names`` that are asked for."""
    found = []
    for name in names:
        text = getattr(query, name, "")
        if text:
            values[f"v_{name}"] = text
            found.append(f"{name} = {{v_{name}:String}}")
    return found

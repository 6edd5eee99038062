"""What every ``EventIndex`` must do, told by a plain filter in Python over the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from aesp_proxy.aggregator.ports import BatchPlace, EventCount, EventQuery, EventRow
from aesp_proxy.aggregator.query import COUNTED_BY, next_cursor, parse_cursor
from aesp_proxy.record.canonical import FIELDS, POSITION

HOUR_NS = 3_600_000_000_000
MONTH_NS = 31 * 24 * HOUR_NS
HOSTILE = (
    "x' OR 1=1; DROP TABLE aesp_events_1; --",
    '"; --',
    "\\",
    "\\'",
    "\\N",
    "{v_agent:String}",
    "{x:String}",
    "%s",
    "a\0b",
    "a\tb\nc\r\b\f",
    "🙂\u202e\x1b[31m",
    "=HYPERLINK(1)",
    "/*",
    "*",
    "NULL",
)
_FIELD_OF = {
    "kind": "kind",
    "agent": "agent_id",
    "host": "target_host",
    "verdict": "verdict",
    "reason": "reason",
    "guard": "guard",
    "action": "action",
    "outcome": "outcome",
    "session": "session_id",
    "tenant": "tenant_id",
    "path": "target_path",
}
Batch = tuple[BatchPlace, list[list[Any]]]


def values_of(
    *, time_ns: int, status: int = 0, rules: Sequence[str] = (), **texts: str
) -> list[Any]:
    """Make a row in ``FIELDS`` order; the first rule has found something, the others applied."""
    blank = {"uint": 0, "text": ""}
    values: list[Any] = [blank.get(field.kind, []) for field in FIELDS]
    values[POSITION["time_ns"]] = time_ns
    values[POSITION["status"]] = status
    for name, text in texts.items():
        values[POSITION[_FIELD_OF[name]]] = text
    if rules:
        values[POSITION["findings"]] = [[rules[0], 3, "body", 0, "m", "f"]]
        values[POSITION["applied_policies"]] = list(rules[1:])
    return values


def place_of(position: int, origin: str, first_seq: int, count: int, **changes: Any) -> BatchPlace:
    """Make the place of a batch."""
    place = BatchPlace(
        position=position,
        origin=origin,
        batch_no=position,
        epoch=1,
        first_seq=first_seq,
        count=count,
        header_hash=b"",
        received_ns=MONTH_NS,
    )
    return replace(place, **changes)


class Plain:
    """The batches, and the answers that a loop over them gives."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.rows: list[tuple[EventRow, str, set[str]]] = []
        for place, rows in batches:
            for at, values in enumerate(rows):
                texts = {name: values[POSITION[field]] for name, field in _FIELD_OF.items()}
                path = texts.pop("path")
                rules = {finding[0] for finding in values[POSITION["findings"]]}
                rules |= set(values[POSITION["applied_policies"]])
                row = EventRow(
                    time_ns=values[POSITION["time_ns"]],
                    origin=place.origin,
                    epoch=place.epoch,
                    seq=place.first_seq + at,
                    status=values[POSITION["status"]],
                    **texts,
                )
                self.rows.append((row, path, rules))
        self._of = {(r.origin, r.epoch, r.seq): (path, rules) for r, path, rules in self.rows}

    def keep(self, query: EventQuery) -> Callable[[EventRow], bool] | None:
        """Stand for the ledger, which says of paths and rules what the index does not hold."""
        if not (query.path or query.rule):
            return None
        return lambda row: _holds(*self._of[row.origin, row.epoch, row.seq], query)

    def matching(self, query: EventQuery) -> list[EventRow]:
        """Return all that match, newest first."""
        names = ("origin", "agent", "host", "verdict", "reason", "session", "tenant", "kind")
        found = [
            row
            for row, path, rules in self.rows
            if (query.since_ns is None or query.since_ns <= row.time_ns)
            and (query.until_ns is None or row.time_ns < query.until_ns)
            and all(getattr(query, name) in {"", getattr(row, name)} for name in names)
            and _holds(path, rules, query)
        ]
        return sorted(found, key=_place, reverse=True)

    def counted(self, query: EventQuery, by: tuple[str, ...]) -> Counter[tuple[str, ...]]:
        """Count by ``by``."""
        return Counter(tuple(_counted(row, name) for name in by) for row in self.matching(query))


def pages(index: Any, query: EventQuery, keep: Any = None) -> list[EventRow]:
    """Follow the cursors to the end."""
    found: list[EventRow] = []
    while True:
        rows = index.find(query, keep)
        assert len(rows) <= query.limit
        found += rows
        cursor = next_cursor(query, rows)
        if cursor is None:
            return found
        query = replace(query, cursor=parse_cursor(cursor))


def check_find(index: Any, plain: Plain, query: EventQuery) -> None:
    """The pages of a question, put together, are what the plain filter finds."""
    assert pages(index, query, plain.keep(query)) == plain.matching(query)


def check_count(index: Any, plain: Plain, query: EventQuery, by: tuple[str, ...]) -> None:
    """A count is the plain one, most first; of equal counts any may come first."""
    expected = plain.counted(query, by)
    found: list[EventCount] = index.count(replace(query, limit=1000), by)
    if by or expected:
        assert Counter({count.values: count.count for count in found}) == expected
    numbers = [count.count for count in found]
    assert numbers == sorted(numbers, reverse=True)
    top = index.count(replace(query, limit=2), by)
    assert [count.count for count in top] == numbers[:2]


def _holds(path: str, rules: set[str], query: EventQuery) -> bool:
    if query.path.endswith("*"):
        fits = path.startswith(query.path[:-1])
    else:
        fits = query.path in {"", path}
    return fits and (not query.rule or query.rule in rules)


def _place(row: EventRow) -> tuple[int, str, int, int]:
    return (row.time_ns, row.origin, row.epoch, row.seq)


def _counted(row: EventRow, name: str) -> str:
    span_ns = {"hour": HOUR_NS, "day": 24 * HOUR_NS}.get(name)
    return str(getattr(row, name)) if span_ns is None else str(row.time_ns // span_ns * span_ns)


TEXTS = st.sampled_from(("", "a", "b", *HOSTILE))
PATHS = st.sampled_from(("", "/", "/a", "/a/b", "/a/b/c?d", "/A/B", "*", "/%", "/a\0"))
# Near the hours' ends, on both sides of them, and where clocks are wrong.
TIMES = st.one_of(
    st.integers(0, 3).flatmap(
        lambda hour: st.integers(-2, 2).map(lambda d: abs(hour * HOUR_NS + d))
    ),
    st.integers(0, 30 * HOUR_NS),
    st.just((1 << 63) - 1),
)
RULES = st.lists(st.sampled_from(("r1", "r2", *HOSTILE[:4])), max_size=3)
ROWS = st.fixed_dictionaries(
    {
        "time_ns": TIMES,
        "status": st.sampled_from((0, 200, (1 << 63) - 1)),
        "rules": RULES,
        "agent": TEXTS,
        "host": TEXTS,
        "verdict": st.sampled_from(("", "allow", "deny")),
        "reason": TEXTS,
        "guard": TEXTS,
        "session": TEXTS,
        "tenant": TEXTS,
        "kind": st.sampled_from(("decision", "outcome")),
        "path": PATHS,
    }
)


@st.composite
def batches_drawn(draw: st.DrawFn) -> list[Batch]:
    """Draw batches of two hosts, some of them empty."""
    made: list[Batch] = []
    next_seq = {"h-a": 1, "h-b": 1}
    for position in range(1, draw(st.integers(0, 6)) + 1):
        origin = draw(st.sampled_from(("h-a", "h-b")))
        rows = [values_of(**row) for row in draw(st.lists(ROWS, max_size=6))]
        received_ns = draw(st.sampled_from((0, MONTH_NS, MONTH_NS * 2)))
        place = place_of(position, origin, next_seq[origin], len(rows), received_ns=received_ns)
        made.append((place, rows))
        next_seq[origin] += len(rows)
    return made


def queries_drawn() -> st.SearchStrategy[EventQuery]:
    """Draw questions; most ask for one or two things, as people do."""
    asked = {
        "origin": st.sampled_from(("h-a", "h-b", "h-none")),
        "agent": TEXTS,
        "host": TEXTS,
        "verdict": st.sampled_from(("allow", "deny")),
        "reason": TEXTS,
        "session": TEXTS,
        "tenant": TEXTS,
        "kind": st.sampled_from(("decision", "outcome")),
        "path": st.one_of(PATHS, PATHS.map(lambda path: path + "*")),
        "rule": st.sampled_from(("r1", "r2", *HOSTILE[:4])),
        "since_ns": TIMES,
        "until_ns": TIMES,
    }
    few = st.lists(st.sampled_from(sorted(asked)), max_size=3, unique=True)
    drawn = few.flatmap(lambda names: st.fixed_dictionaries({name: asked[name] for name in names}))
    return st.builds(
        lambda given, limit: EventQuery(limit=limit, **given), drawn, st.integers(1, 4)
    )


BYS = st.lists(st.sampled_from(COUNTED_BY), max_size=3, unique=True).map(tuple)

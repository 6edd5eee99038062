"""The embedded index finds and counts what a plain filter does, whatever is recorded or asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from index_contract import (
    BYS,
    HOSTILE,
    HOUR_NS,
    Batch,
    Plain,
    batches_drawn,
    check_count,
    check_find,
    place_of,
    queries_drawn,
    values_of,
)

from aesp_proxy.aggregator.ports import EventQuery
from aesp_proxy.aggregator.store.index import SqliteIndex, SqliteIndexReader


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=batches_drawn(), query=queries_drawn(), by=BYS)
def test_the_index_agrees_with_a_plain_filter(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Batch], query: EventQuery, by: Any
) -> None:
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    index = SqliteIndex(path)
    index.add(batches)
    index.close()
    plain = Plain(batches)
    reader = SqliteIndexReader(path)
    try:
        check_find(reader, plain, query)
        if not (query.path or query.rule):
            check_count(reader, plain, query, by)
    finally:
        reader.close()


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_value_is_found_as_itself_and_does_nothing_else(
    tmp_path: Path, hostile: str
) -> None:
    names = ("agent", "host", "session", "tenant", "reason", "guard", "path")
    texts = dict.fromkeys(names, hostile)
    rows = [values_of(time_ns=1, rules=(hostile,), **texts), values_of(time_ns=2, agent="other")]
    batches = [(place_of(1, "h-a", 1, 2), rows)]
    index = SqliteIndex(tmp_path / "index.sqlite")
    index.add(batches)
    index.close()
    plain, reader = Plain(batches), SqliteIndexReader(tmp_path / "index.sqlite")
    try:
        for name in ("agent", "host", "session", "tenant", "reason", "path", "rule"):
            check_find(reader, plain, EventQuery(**{name: hostile}))
        check_count(reader, plain, EventQuery(), ("agent", "guard"))
    finally:
        reader.close()


def told(reader: SqliteIndexReader, ask: Any) -> list[str]:
    """Return the statements that a question makes."""
    statements: list[str] = []
    reader._connection.set_trace_callback(statements.append)
    ask()
    reader._connection.set_trace_callback(None)
    return statements


@pytest.fixture
def days(tmp_path: Path) -> Any:
    """Two days of events at every half hour; what is denied is never allowed for its reason."""
    rows = [
        values_of(
            time_ns=at * HOUR_NS // 2,
            verdict="deny" if at % 3 else "allow",
            reason="blocked" if at % 3 else "allowed",
            agent=f"a{at % 5}",
        )
        for at in range(96)
    ]
    index = SqliteIndex(tmp_path / "index.sqlite")
    index.add([(place_of(at + 1, "h-a", at * 8, 8), rows[at * 8 : at * 8 + 8]) for at in range(12)])
    index.close()
    reader = SqliteIndexReader(tmp_path / "index.sqlite")
    yield reader
    reader.close()


def test_counts_over_whole_hours_scan_no_row(days: Any) -> None:
    query = EventQuery(verdict="deny", until_ns=47 * HOUR_NS)
    assert "events" not in str(told(days, lambda: days.count(query, ("hour", "reason"))))
    assert [count.count for count in days.count(query, ("reason",))] == [62]
    assert "events" in str(told(days, lambda: days.count(query, ("agent",))))


def test_two_common_values_that_never_meet_scan_no_row(days: Any) -> None:
    never = EventQuery(verdict="allow", reason="blocked")
    assert days.find(never) == []
    assert "events" not in str(told(days, lambda: days.find(never)))
    assert len(days.find(EventQuery(verdict="deny", reason="blocked"))) == 64


def test_a_scan_reads_the_rows_of_each_batch_once(days: Any) -> None:
    statements = told(days, lambda: days.count(EventQuery(verdict="deny"), ("host",)))
    [scan] = [text for text in statements if "FROM batches" in text]
    steps = [row[3] for row in days._connection.execute("EXPLAIN QUERY PLAN " + scan)]
    assert any(step.startswith("SEARCH e USING INTEGER PRIMARY KEY") for step in steps), steps

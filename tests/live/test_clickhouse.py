"""ClickHouse answers as the embedded index does: in this process, over a socket, over HTTP.

The engine is ClickHouse itself (``chdb``); the HTTP server before it is emulated.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from clickhouse_emulator import PASSWORD, USER, Emulator, emulated, server_tls
from hypothesis import HealthCheck, given, settings
from index_contract import (
    BYS,
    HOSTILE,
    MONTH_NS,
    Batch,
    Plain,
    batches_drawn,
    check_count,
    check_find,
    pages,
    place_of,
    queries_drawn,
    values_of,
)

from aesp_proxy.aggregator.index_socket import IndexService, SocketIndexReader
from aesp_proxy.aggregator.ports import EventQuery
from aesp_proxy.aggregator.store import clickhouse
from aesp_proxy.aggregator.store.clickhouse import ClickHouseIndex
from aesp_proxy.aggregator.store.clickhouse_embedded import EmbeddedClickHouse
from aesp_proxy.aggregator.store.clickhouse_http import ClickHouseServer, ServerSettings
from aesp_proxy.aggregator.store.clickhouse_sql import EVENTS, Statement
from aesp_proxy.errors import ConfigError, RecordError, UnavailableError

pytest.importorskip("chdb", reason="ClickHouse (chdb) is not installed: .ci/live.sh installs it")

WAYS = ("embedded", "socket", "http", "https")


@dataclass
class Lab:
    """One directory of ClickHouse, and every way to it. chdb opens one directory a process."""

    runner: EmbeddedClickHouse
    emulator: Emulator
    written: dict[str, Any]
    asked: dict[str, Any]

    def emptied(self, way: str) -> tuple[Any, Any]:
        """Return writer and reader of a way to an index with nothing in it."""
        self.emulator.faults.clear()
        writer = self.written[way]
        writer.drop()
        writer.create()
        return writer, self.asked[way]

    def rows(self, sql: str) -> list[list[Any]]:
        return self.runner.ask(Statement(text=sql), seconds_max=30)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from chdb.session import Session

    # Longer than the name of a socket may be.
    folder = tmp_path_factory.mktemp("clickhouse") / ("d" * 100)
    folder.mkdir()
    roots, context = server_tls(folder)

    def session() -> Any:
        return Session(str(folder / "data"))

    def server(emulator: Emulator, **changes: Any) -> ClickHouseIndex:
        its = ServerSettings(url=emulator.url, user=USER, password=PASSWORD, **changes)
        made = ClickHouseIndex(ClickHouseServer(its))
        stack.callback(made.close)
        return made

    with ExitStack() as stack:
        runner = EmbeddedClickHouse(folder / "data")
        stack.callback(runner.close)
        embedded = ClickHouseIndex(runner)
        service = IndexService(embedded, folder / "index.sock")
        stack.callback(service.close)
        plain = stack.enter_context(emulated(session))
        tls = stack.enter_context(emulated(session, context))
        http, https = server(plain), server(tls, ca_file=roots)
        reader = SocketIndexReader(folder / "index.sock", query_s_max=30)
        yield Lab(
            runner,
            plain,
            {"embedded": embedded, "socket": embedded, "http": http, "https": https},
            {"embedded": embedded, "socket": reader, "http": http, "https": https},
        )


@pytest.mark.parametrize("way", WAYS)
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(batches=batches_drawn(), query=queries_drawn(), by=BYS)
def test_it_agrees_with_a_plain_filter(
    lab: Lab, way: str, batches: list[Batch], query: EventQuery, by: Any
) -> None:
    writer, reader = lab.emptied(way)
    writer.add(batches)
    assert reader.position() == len(batches)
    plain = Plain(batches)
    check_find(reader, plain, query)
    check_count(reader, plain, query, by)


@pytest.mark.parametrize("way", ["socket", "http"])
def test_hostile_values_are_found_as_themselves_and_do_nothing_else(lab: Lab, way: str) -> None:
    writer, reader = lab.emptied(way)
    names = ("agent", "host", "session", "tenant", "reason", "guard", "path")
    rows = [
        values_of(time_ns=at, rules=(text,), **dict.fromkeys(names, text))
        for at, text in enumerate(HOSTILE, start=1)
    ]
    batches = [(place_of(1, "h-a", 1, len(rows)), rows)]
    writer.add(batches)
    plain = Plain(batches)
    for text in HOSTILE:
        for name in ("agent", "path", "rule"):
            check_find(reader, plain, EventQuery(**{name: text}))
    check_count(reader, plain, EventQuery(), ("agent", "guard"))


def some(first: int, count: int, *, rows: int = 3, **changes: Any) -> list[Batch]:
    """Make batches of a few rows each."""
    return [
        (
            place_of(position, "h-a", position * rows, rows, **changes),
            [values_of(time_ns=position * 10 + at, agent=f"a{at}") for at in range(rows)],
        )
        for position in range(first, first + count)
    ]


def total(reader: Any) -> int:
    """Count all, by the projection and by the rows, which must agree."""
    counted = sum(count.count for count in reader.count(EventQuery(limit=1000), ("verdict",)))
    assert len(pages(reader, EventQuery(limit=1000))) == counted
    return counted


@pytest.mark.parametrize("way", ["embedded", "http"])
def test_a_batch_that_comes_twice_changes_nothing(lab: Lab, way: str) -> None:
    writer, reader = lab.emptied(way)
    assert writer.add(some(1, 4)) == 12
    assert writer.add(some(3, 4)) == 6
    assert writer.add(some(1, 6)) == 0
    assert (total(reader), reader.position()) == (18, 6)


@pytest.mark.parametrize(
    ("fault", "there"), [("before", 0), ("after", 6), ("busy", 0)], ids=["before", "after", "busy"]
)
def test_an_insert_without_an_answer_leads_to_no_gap_and_no_double(
    lab: Lab, fault: str, there: int
) -> None:
    writer, reader = lab.emptied("http")
    lab.emulator.faults.append(fault)
    with pytest.raises(UnavailableError):
        writer.add(some(1, 2))
    assert total(reader) == there
    writer.add(some(1, 3))
    assert (total(reader), reader.position()) == (9, 3)


@pytest.fixture
def late(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClickHouseIndex]:
    """A writer that read the position when nothing was there yet."""
    writer = ClickHouseIndex(lab.runner)
    told = [0]
    really = writer.position
    monkeypatch.setattr(writer, "position", lambda: told.pop() if told else really())
    return writer


def test_two_that_read_the_same_position_add_a_batch_once(lab: Lab, late: ClickHouseIndex) -> None:
    writer, reader = lab.emptied("http")
    writer.add(some(1, 3))
    with pytest.raises(UnavailableError, match="another process"):
        late.add(some(1, 4))
    assert (total(reader), reader.position()) == (9, 3)
    assert late.add(some(1, 4)) == 3
    assert (total(reader), reader.position()) == (12, 4)


@pytest.mark.parametrize("rows", [0, 3])
def test_one_that_is_late_leaves_no_gap_when_another_has_begun_anew(lab: Lab, rows: int) -> None:
    writer, reader = lab.emptied("embedded")
    writer.add(some(1, 3))
    reached = writer.position
    writer.position = iter([3, 0]).__next__
    lab.written["http"].drop()
    lab.written["http"].create()
    try:
        with pytest.raises(UnavailableError, match="another process"):
            writer.add([(place_of(4, "h-a", 40, rows), some(4, 1)[0][1][:rows])])
    finally:
        writer.position = reached
    assert (total(reader), reader.position()) == (0, 0)


def test_a_group_is_one_part_however_many_batches_and_rows(lab: Lab) -> None:
    writer, reader = lab.emptied("embedded")
    writer.add(some(1, 32, rows=2000))
    parts = f"SELECT rows FROM system.parts WHERE active AND table = '{EVENTS}'"
    assert lab.rows(parts) == [[64_000]]
    assert reader.position() == 32


def test_groups_end_where_a_month_does_and_where_they_are_large(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse, "GROUP_ROWS_MAX", 7)
    writer, reader = lab.emptied("embedded")
    batches = [*some(1, 3), *some(4, 1, received_ns=MONTH_NS * 2), *some(5, 1)]
    assert writer.add(batches) == 15
    parts = (
        f"SELECT rows FROM system.parts WHERE table = '{EVENTS}' ORDER BY min_block_number, rows"
    )
    assert sum(rows for (rows,) in lab.rows(parts)) >= 15
    assert (total(reader), reader.position()) == (15, 5)


def test_rows_of_another_form_are_refused_and_leave_nothing(lab: Lab) -> None:
    writer, reader = lab.emptied("embedded")
    batches = some(1, 2)
    batches[1][1][2] = values_of(time_ns=1, status="not a number")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="another form"):
        writer.add(batches)
    assert (total(reader), reader.position()) == (0, 0)


def test_clocks_of_all_years_make_no_partition(lab: Lab) -> None:
    writer, reader = lab.emptied("embedded")
    times = [year * 365 * 86_400 * 10**9 for year in range(290)]
    batches = [(place_of(1, "h-a", 1, 290), [values_of(time_ns=time_ns) for time_ns in times])]
    writer.add(batches)
    check_find(reader, Plain(batches), EventQuery(limit=100))


def test_counts_by_hour_are_read_from_the_projection(lab: Lab) -> None:
    writer, _ = lab.emptied("embedded")
    writer.add(some(1, 3))
    from aesp_proxy.aggregator.store import clickhouse_sql as sql

    for statement in (
        sql.counts(EventQuery(verdict="deny"), ("hour", "guard")),
        sql.counts(EventQuery(), ("day", "reason")),
        sql.hours_with_rows(EventQuery(tenant="t"), 10, limit=10),
        Statement(text=f"SELECT max(position) FROM {EVENTS}"),
    ):
        explained = lab.runner.ask(
            replace(statement, text="EXPLAIN " + statement.text), seconds_max=10
        )
        assert "by_hour" in str(explained), statement.text


def test_a_question_that_takes_too_long_is_ended(lab: Lab) -> None:
    slow = Statement(text="SELECT sum(cityHash64(number)) FROM system.numbers")
    for runner in (lab.runner, lab.written["http"]._runner):
        with pytest.raises(UnavailableError, match="too long"):
            runner.ask(slow, seconds_max=0.2)


def test_what_the_server_says_is_not_repeated(lab: Lab) -> None:
    statement = Statement(text="SELECT {x:UInt64}", values={"x": "s3cret"})
    for runner in (lab.runner, lab.written["http"]._runner):
        with pytest.raises(RecordError, match=r"code 457") as caught:
            runner.ask(statement, seconds_max=5)
        assert "s3cret" not in str(caught.value)


def test_a_wrong_password_and_unknown_roots_are_the_operators(lab: Lab) -> None:
    wrong = ServerSettings(url=lab.emulator.url, user=USER, password="other")
    stranger = replace(lab.written["https"]._runner._settings, ca_file=None)
    for its, kind, said in (
        (wrong, ConfigError, "refuses user or password"),
        (stranger, UnavailableError, "no answer"),
    ):
        index = ClickHouseIndex(ClickHouseServer(its))
        try:
            with pytest.raises(kind, match=said):
                index.position()
        finally:
            index.close()


def test_values_travel_beside_the_statement(lab: Lab) -> None:
    writer, reader = lab.emptied("http")
    writer.add([(place_of(1, "h-a", 1, 1), [values_of(time_ns=1, agent="needle")])])
    lab.emulator.seen.clear()
    assert len(reader.find(EventQuery(agent="needle"))) == 1
    texts = [seen.pop("statement") for seen in lab.emulator.seen]
    assert any("needle" in str(seen) for seen in lab.emulator.seen)
    assert "needle" not in str(texts)


@pytest.mark.parametrize(
    "question",
    [
        ["find", [None] * 2 + [""] * 10 + ["5; SELECT 1", None], (), 5.0],
        ["drop", [], (), 5.0],
        ["count", [None] * 2 + [""] * 10 + [5, None], ("kind FROM numbers(1) --",), 5.0],
        ["find", [], (), 5.0],
        "nonsense",
    ],
    ids=["limit", "word", "by", "short", "form"],
)
def test_only_questions_are_answered_over_the_socket(lab: Lab, question: Any) -> None:
    writer, reader = lab.emptied("socket")
    writer.add(some(1, 2))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        folder = os.open(reader._path.parent, os.O_PATH)
        connection.connect(f"/proc/self/fd/{folder}/{reader._path.name}")
        os.close(folder)
        connection.sendall(ormsgpack.packb(question))
        connection.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert ormsgpack.unpackb(data)[:1] == ["UnavailableError"]
    assert total(reader) == 6


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from index_contract import place_of, values_of
from aesp_proxy.aggregator.store.clickhouse import ClickHouseIndex
from aesp_proxy.aggregator.store.clickhouse_embedded import EmbeddedClickHouse
index = ClickHouseIndex(EmbeddedClickHouse(Path(sys.argv[1])))
index.create()
reached = index.position()
rows = index.count(__import__("aesp_proxy.aggregator.ports").aggregator.ports.EventQuery(), ())
print(reached, rows[0].count if rows else 0, flush=True)
while True:
    reached += 1
    rows = [values_of(time_ns=reached, agent=f"a{at % 9}") for at in range(500)]
    index.add([(place_of(reached, "h-a", reached * 500, 500), rows)])
    print(reached, flush=True)
"""


def test_killed_at_any_moment_it_has_whole_batches_once_each(tmp_path: Path) -> None:
    plugins = str(Path(__file__).parent.parent / "plugins")
    told = 0
    for round_no in range(3):
        command = [sys.executable, "-c", WRITE, str(tmp_path / "data"), plugins]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                reached, rows = map(int, process.stdout.readline().split())
                assert rows == reached * 500
                assert reached in {told, told + 1}
                for _ in range(2 + round_no * 2):
                    told = int(process.stdout.readline())
            finally:
                process.send_signal(signal.SIGKILL)

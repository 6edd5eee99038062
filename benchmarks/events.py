"""Events for queries at scale: our two indexes, beside rows in SQLite and PostgreSQL, and DuckDB.

``uv run python -m benchmarks.events --json``; ``--rows 10000000`` for ten million (minutes),
``--full`` for a hundred million in ClickHouse and DuckDB as well (these are made by ClickHouse
itself: 100 million rows of Python objects take an hour). One day of 1,000 agents on 20 hosts;
batches of 1,130 events. Times are CPU of this process with all its threads; ``wall`` beside.
Every variant must give the same number of events for each question.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aesp_proxy.aggregator.ports import BatchPlace, EventQuery
from aesp_proxy.aggregator.process import collect_seldom
from aesp_proxy.aggregator.store.index import SqliteIndex, SqliteIndexReader
from aesp_proxy.record.batch import decode_batch, open_body
from aesp_proxy.record.canonical import POSITION, decode_row
from aesp_proxy.record.header import decode_header
from benchmarks.aggregator import ROWS, START_NS, cpu_ns, sample, scratch
from benchmarks.harness import Budget, Figures, Result, show

HOSTS, AGENTS = 20, 50  # agents a host
HOUR_NS = 3_600_000_000_000
START = START_NS // (24 * HOUR_NS) * 24 * HOUR_NS
NOON = START + 12 * HOUR_NS
DAY = (START, START + 24 * HOUR_NS)
AGENT, HOST, TENANT = "agent-7-33", "api2.example.com", "t-3"
PATH = "/v1/items/777"
ASKED = 5
MERGE_S_MAX = 300.0
IMMUDB = (
    "immudb, as its README publishes: 1.2 to 1.8 million entries/s (embedded, batches of 1,000)"
)
TESSERA = "Tessera, as its README publishes: 3,000 writes/s on Spanner, about 10,000 on local NVMe"
REKOR = "rekor: its repository publishes no rate"
POSTGRES = (
    "PostgreSQL 15, five B-trees and trigrams, measured before on two cores of 2.1 GHz at 10"
    " million rows: agent and hour 1 ms, host and day 2, denials 1,760, guard x hour 4,620,"
    " tenant's day 260; 547 bytes an event, 62,000 rows/s/core"
)
PUBLISHED = (IMMUDB, TESSERA, REKOR, POSTGRES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question: to our index, and as SQL to the others; ``by`` makes it a count."""

    query: EventQuery
    where: str
    by: tuple[str, ...] = ()


def _query(**given: Any) -> EventQuery:  # noqa: ANN401 - as EventQuery has them
    return EventQuery(limit=100, **given)


QUESTIONS = {
    "agent_and_hour": Question(
        query=_query(agent=AGENT, since_ns=NOON, until_ns=NOON + HOUR_NS),
        where=f"agent = '{AGENT}' AND time_ns >= {NOON} AND time_ns < {NOON + HOUR_NS}",
    ),
    "host_and_day": Question(
        query=_query(host=HOST, since_ns=DAY[0], until_ns=DAY[1]),
        where=f"host = '{HOST}' AND time_ns >= {DAY[0]} AND time_ns < {DAY[1]}",
    ),
    "newest": Question(query=_query(), where="1 = 1"),
    "path": Question(query=_query(path=PATH), where=f"path = '{PATH}'"),
    "never_meet": Question(
        query=_query(verdict="allow", reason="host_not_allowed"),
        where="verdict = 'allow' AND reason = 'host_not_allowed'",
    ),
    "denials_top": Question(
        query=_query(verdict="deny"), where="verdict = 'deny'", by=("reason", "guard")
    ),
    "denials_by_host": Question(
        query=_query(verdict="deny"), where="verdict = 'deny'", by=("host",)
    ),
    "guard_by_hour": Question(query=EventQuery(limit=1000), where="1 = 1", by=("guard", "hour")),
    "tenant_day": Question(
        query=_query(tenant=TENANT, since_ns=DAY[0], until_ns=DAY[1]),
        where=f"tenant = '{TENANT}' AND time_ns >= {DAY[0]} AND time_ns < {DAY[1]}",
        by=("verdict",),
    ),
}
COLUMNS = ("time_ns", "origin", "epoch", "seq", "kind", "agent", "host", "verdict", "reason",
           "guard", "action", "outcome", "session", "tenant", "status", "path")  # fmt: skip
_FIELDS = {
    "time_ns": "time_ns", "kind": "kind", "agent": "agent_id", "host": "target_host",
    "verdict": "verdict", "reason": "reason", "guard": "guard", "action": "action",
    "outcome": "outcome", "session": "session_id", "tenant": "tenant_id", "status": "status",
    "path": "target_path",
}  # fmt: skip
Batches = list[tuple[BatchPlace, list[list[Any]]]]


def batches(rows: int) -> Iterator[Batches]:
    """Give one day of events, 32 batches at a time; the same rows with other values."""
    data = decode_batch(sample()[0])
    header = decode_header(data.header_bytes)
    opened = open_body(header, data.body, inflated_bytes_max=1 << 26, rows_max=1 << 20)
    decoded = [decode_row(row) for row in opened]
    time_at, agent_at, path_at = (POSITION[n] for n in ("time_ns", "agent_id", "target_path"))
    session_at, tenant_at = POSITION["session_id"], POSITION["tenant_id"]
    count = max(rows // ROWS, 1)
    step_ns = 24 * HOUR_NS // count
    group: Batches = []
    for position in range(1, count + 1):
        host = position % HOSTS
        began = START + (position - 1) * step_ns
        # Another order each time: what repeats would compress as no traffic does.
        values = [list(decoded[at * (2 * position + 1) % ROWS]) for at in range(ROWS)]
        for at, row in enumerate(values):
            row[time_at] = began + at * (step_ns // ROWS)
            row[agent_at] = f"agent-{host}-{(position // HOSTS * 7 + at) % AGENTS}"
            row[path_at] = f"/v1/items/{(position * ROWS + at) * 7919 % 1_000_003}"
            row[session_at] = f"s-{host}"
            row[tenant_at] = f"t-{host % 10}"
        place = BatchPlace(
            position=position, origin=f"h-{host}", batch_no=position, epoch=1,
            first_seq=position * ROWS, count=ROWS, header_hash=b"", received_ns=began,
        )  # fmt: skip
        group.append((place, values))
        if len(group) == 32:
            yield group
            group = []
    if group:
        yield group


def plain(group: Batches) -> Iterator[tuple[Any, ...]]:
    """Give the columns of a group's rows, as tables have them."""
    places = [POSITION[_FIELDS[name]] for name in COLUMNS if name in _FIELDS]
    for place, rows in group:
        for at, row in enumerate(rows):
            time_ns, *rest = (row[position] for position in places)
            yield (time_ns, place.origin, 1, place.first_seq + at, *rest)


@dataclass
class Variant:
    """Something that holds the events. ``spent_ns`` is CPU of adding, without making them."""

    name: str
    root: Path
    spent_ns: int = 0
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        """Open it."""

    def cpu_ns(self) -> int:
        """Return the CPU that was spent so far."""
        return time.process_time_ns()

    def add(self, group: Batches) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Write what is left, and be ready for questions."""

    def ask(self, question: Question) -> int:
        raise NotImplementedError

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())


class OurSqlite(Variant):
    def __post_init__(self) -> None:
        self.index = SqliteIndex(self.root / "index.sqlite")

    def add(self, group: Batches) -> None:
        self.index.add(group)

    def finish(self) -> None:
        self.index.close()
        self.reader = SqliteIndexReader(self.root / "index.sqlite")
        self.stack.callback(self.reader.close)

    def ask(self, question: Question) -> int:
        if question.by:
            return len(self.reader.count(question.query, question.by))
        return len(self.reader.find(question.query))


class OurClickHouse(Variant):
    def __post_init__(self) -> None:
        from aesp_proxy.aggregator.store.clickhouse import ClickHouseIndex
        from aesp_proxy.aggregator.store.clickhouse_embedded import EmbeddedClickHouse

        self.runner = EmbeddedClickHouse(self.root / "clickhouse")
        self.index = ClickHouseIndex(self.runner)
        self.index.create()
        self.stack.callback(self.index.close)

    def add(self, group: Batches) -> None:
        self.index.add(group)

    def fill(self, rows: int) -> None:
        """Let ClickHouse make the rows of :func:`batches` itself."""
        from aesp_proxy.aggregator.store.clickhouse_sql import COLUMNS as THEIRS
        from aesp_proxy.aggregator.store.clickhouse_sql import EVENTS, Statement

        count = rows // ROWS
        step_ns = 24 * HOUR_NS // count
        made = {
            "position": "p", "received": "toDate(0)", "origin": "concat('h-', toString(p % 20))",
            "epoch": "1", "seq": f"p * {ROWS} + i",
            "time_ns": f"{START} + (p - 1) * {step_ns} + i * {step_ns // ROWS}",
            "status": "if(d, 403, 200)", "kind": "'decision'",
            "agent": f"concat('agent-', toString(p % 20), '-',"
            f" toString((intDiv(p, 20) * 7 + i) % {AGENTS}))",
            "host": "concat('api', toString(least(60, toUInt64(-log((cityHash64(p, i) % 999983 + 1)"
            " / 1e6) * 5))), '.example.com')",
            "verdict": "if(d, 'deny', 'allow')", "reason": "if(d, 'host_not_allowed', 'allowed')",
            "guard": "'egress_allowlist'",
            "action": "['http.get', 'http.post', 'http.put'][1 + cityHash64(p, i, 1) % 3]",
            "outcome": "if(d, 'DENIED', 'SUCCESS')", "session": "concat('s-', toString(p % 20))",
            "tenant": "concat('t-', toString(p % 20 % 10))",
            "path": f"concat('/v1/items/', toString((p * {ROWS} + i) * 7919 % 1000003))",
            "rules": "[]",
        }  # fmt: skip
        for first in range(1, count + 1, 884):
            last = min(first + 884, count + 1)
            numbers = f"numbers({first * ROWS}, {(last - first) * ROWS})"
            self.runner.tell(
                Statement(
                    text=f"INSERT INTO {EVENTS} ({', '.join(THEIRS)}) SELECT"
                    f" {', '.join(made[name] for name in THEIRS)} FROM (SELECT intDiv(number,"
                    f" {ROWS}) AS p, number % {ROWS} AS i, cityHash64(p, i, 2) % 20 = 0 AS d FROM"
                    f" {numbers})"
                )
            )

    def finish(self) -> None:
        """Let it merge first: an index that is asked has been written for long."""
        from aesp_proxy.aggregator.store.clickhouse_sql import Statement

        merges = Statement(text="SELECT count() FROM system.merges")
        end_s = time.monotonic() + MERGE_S_MAX
        while self.runner.ask(merges, seconds_max=10)[0][0] and time.monotonic() < end_s:
            time.sleep(1)

    def ask(self, question: Question) -> int:
        if question.by:
            return len(self.index.count(question.query, question.by))
        return len(self.index.find(question.query))


class SqliteRows(Variant):
    """A row an event, with an index for each of five columns."""

    def __post_init__(self) -> None:
        self.connection = sqlite3.connect(self.root / "rows.sqlite", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.execute("PRAGMA cache_size=-65536")
        self.connection.execute(f"CREATE TABLE events ({', '.join(COLUMNS)})")
        for name in ("agent", "host", "tenant", "path"):
            self.connection.execute(f"CREATE INDEX by_{name} ON events ({name}, time_ns)")
        self.connection.execute("CREATE INDEX by_time ON events (time_ns)")
        self.stack.callback(self.connection.close)

    def add(self, group: Batches) -> None:
        self.connection.execute("BEGIN")
        marks = ", ".join("?" * len(COLUMNS))
        self.connection.executemany(f"INSERT INTO events VALUES ({marks})", plain(group))
        self.connection.execute("COMMIT")

    def finish(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def ask(self, question: Question) -> int:
        return len(self.connection.execute(_sql(question, "events")).fetchall())


class PostgresRows(Variant):
    """A row an event in Debian's PostgreSQL, with the same five indexes; its own CPU counts."""

    def __post_init__(self) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests/plugins"))
        import psycopg
        from postgresql_lab import BIN, running_cluster

        if BIN is None:
            raise ModuleNotFoundError(name="PostgreSQL's server")
        cluster = self.stack.enter_context(running_cluster())
        url = cluster.url("postgres")
        self.connection = self.stack.enter_context(psycopg.connect(url, autocommit=True))
        self.pid = self.connection.info.backend_pid
        numbers = {"time_ns", "epoch", "seq", "status"}
        columns = (f"{name} {'bigint' if name in numbers else 'text'}" for name in COLUMNS)
        self.connection.execute(f"CREATE TABLE events ({', '.join(columns)})")
        for name in ("agent", "host", "tenant", "path"):
            self.connection.execute(f"CREATE INDEX by_{name} ON events ({name}, time_ns)")
        self.connection.execute("CREATE INDEX by_time ON events (time_ns)")

    def cpu_ns(self) -> int:
        return time.process_time_ns() + cpu_ns(self.pid)

    def add(self, group: Batches) -> None:
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f"COPY events ({', '.join(COLUMNS)}) FROM STDIN") as copy,
        ):
            for row in plain(group):
                copy.write_row(row)

    def finish(self) -> None:
        self.connection.execute("VACUUM ANALYZE events")
        self.connection.execute("SET max_parallel_workers_per_gather = 0")

    def ask(self, question: Question) -> int:
        return len(self.connection.execute(_sql(question, "events")).fetchall())

    def size_bytes(self) -> int:
        found = self.connection.execute("SELECT pg_total_relation_size('events')").fetchone()
        return int(found[0])


class DuckParquet(Variant):
    """Parquet sorted as our ClickHouse is, with DuckDB to ask it."""

    def __post_init__(self) -> None:
        import duckdb

        self.duck = duckdb.connect()
        self.stack.callback(self.duck.close)
        self.waiting: list[tuple[Any, ...]] = []
        self.files = 0

    def add(self, group: Batches) -> None:
        self.waiting += plain(group)
        if len(self.waiting) >= 500_000:
            self._write()

    def finish(self) -> None:
        if self.waiting:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(dict(zip(COLUMNS, zip(*self.waiting, strict=True), strict=True)))
        hours = pa.array([row[0] // HOUR_NS for row in self.waiting])
        table = table.append_column("hour", hours)
        table = table.sort_by([("hour", "ascending"), ("agent", "ascending")])
        self.files += 1
        pq.write_table(
            table, self.root / f"{self.files}.parquet", compression="zstd", compression_level=3
        )
        self.waiting.clear()

    def ask(self, question: Question) -> int:
        return len(self.duck.execute(_sql(question, f"'{self.root}/*.parquet'")).fetchall())


def _sql(question: Question, table: str) -> str:
    if question.by:
        columns = ", ".join({"hour": f"time_ns // {HOUR_NS}"}.get(n, n) for n in question.by)
        if table == "events":
            columns = columns.replace("//", "/")
        return (
            f"SELECT count(*), {columns} FROM {table} WHERE {question.where}"
            f" GROUP BY {columns} ORDER BY 1 DESC LIMIT {question.query.limit}"
        )
    return (
        f"SELECT * FROM {table} WHERE {question.where}"
        " ORDER BY time_ns DESC, origin DESC, epoch DESC, seq DESC LIMIT 100"
    )


VARIANTS: dict[str, type[Variant]] = {
    "ours_sqlite": OurSqlite,
    "ours_clickhouse": OurClickHouse,
    "sqlite_rows": SqliteRows,
    "postgresql_rows": PostgresRows,
    "duckdb_parquet": DuckParquet,
}


def measured(work: Callable[[], int], spent_ns: Callable[[], int]) -> tuple[int, float, float]:
    """Return what it found, and the medians of CPU and wall in ms."""
    found, cpu, wall = 0, [], []
    for _ in range(ASKED):
        before_ns, wall_ns = spent_ns(), time.monotonic_ns()
        found = work()
        cpu.append((spent_ns() - before_ns) / 1e6)
        wall.append((time.monotonic_ns() - wall_ns) / 1e6)
    return found, sorted(cpu)[ASKED // 2], sorted(wall)[ASKED // 2]


def figures_of(variant: Variant, rows: int, found: dict[str, int]) -> Figures:
    """Ask everything; a number that differs from another variant's is an error."""
    figures: Figures = {"bytes_per_event": variant.size_bytes() / rows}
    if variant.spent_ns:
        figures["rows_per_s_core"] = rows / variant.spent_ns * 1e9
    for name, question in QUESTIONS.items():
        if name == "path" and variant.name == "ours_sqlite":
            continue  # the records say which rows hold it: measured with the ledger, not here
        count, cpu_ms, wall_ms = measured(lambda asked=question: variant.ask(asked), variant.cpu_ns)
        if found.setdefault(name, count) != count:
            raise ValueError(f"{variant.name} finds {count} for {name}, another {found[name]}")
        figures[f"{name}_ms"] = cpu_ms
        figures[f"{name}_wall_ms"] = wall_ms
        sys.stderr.write(f"{variant.name} {name}: {count} found, {cpu_ms:.1f} ms\n")
    return figures


def one(name: str, rows: int, found: dict[str, int]) -> Figures:
    """Fill one variant and ask it."""
    with scratch() as root:
        variant = VARIANTS[name](name=name, root=root)
        with variant.stack:
            for group in batches(rows):
                began_ns = variant.cpu_ns()
                variant.add(group)
                variant.spent_ns += variant.cpu_ns() - began_ns
            began_ns = variant.cpu_ns()
            variant.finish()
            variant.spent_ns += variant.cpu_ns() - began_ns
            return figures_of(variant, rows // ROWS * ROWS, found)


def hundred_million(rows: int) -> Figures:
    """Ask ClickHouse with a hundred million, which it made itself."""
    with scratch() as root:
        variant = OurClickHouse(name="ours_clickhouse_full", root=root)
        with variant.stack:
            began_ns = time.process_time_ns()
            variant.fill(rows)
            variant.finish()
            sys.stderr.write(f"filled, {(time.process_time_ns() - began_ns) / 1e9:.0f} s of CPU\n")
            return figures_of(variant, rows // ROWS * ROWS, {})


def measure(given: argparse.Namespace) -> Result:
    """Fill and ask all that was asked for."""
    collect_seldom()
    result = Result(
        name="events", run={"rows": given.rows, "load_1m": round(os.getloadavg()[0], 1)}
    )
    found: dict[str, int] = {}
    notes = list(PUBLISHED)
    for name in given.variants or VARIANTS:
        try:
            result.figures[name] = one(name, given.rows, found)
        except ModuleNotFoundError as missing:
            notes.append(f"{name}: {missing.name} is not installed")
    full = given.full_rows if given.full else 0
    if full:
        result.figures["ours_clickhouse_full"] = hundred_million(full)
        notes.append(f"ours_clickhouse_full: {full:,} events, made by ClickHouse itself")
    result.notes = [
        *notes,
        "an event by its id is not asked of the index: the ledger knows the batch by its key",
        "path in ours_sqlite is read from the stored records, which are not here",
    ]
    result.budgets = [*_budgets(result.figures, given.rows, full)]
    return result


def _budgets(figures: dict[str, Figures], rows: int, full: int) -> Iterator[Budget]:
    for name in ("ours_sqlite", "ours_clickhouse"):
        if name in figures:
            its = figures[name]
            yield Budget(
                name=f"{name}: index, rows/s/core", value=its["rows_per_s_core"], limit=150_000,
                at_least=True,
            )  # fmt: skip
            yield Budget(
                name=f"{name}: bytes/event at {rows:,}", value=its["bytes_per_event"], limit=45
            )
            yield Budget(
                name=f"{name}: agent and hour, {rows:,} events (ms)",
                value=its["agent_and_hour_ms"],
                limit=100,
            )
            yield Budget(
                name=f"{name}: guard by hour, {rows:,} events (ms)",
                value=its["guard_by_hour_ms"],
                limit=100,
            )
    if full:
        its = figures["ours_clickhouse_full"]
        yield Budget(
            name=f"ours_clickhouse: agent and hour, {full:,} events (ms)",
            value=its["agent_and_hour_ms"],
            limit=100,
        )
        yield Budget(
            name=f"ours_clickhouse: bytes/event at {full:,}", value=its["bytes_per_event"], limit=45
        )


def main(arguments: Sequence[str]) -> int:
    """Measure and show; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="100,000 events")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--full", action="store_true", help="a hundred million in ClickHouse, too")
    parser.add_argument("--full-rows", type=int, default=100_000_000)
    parser.add_argument("--variants", nargs="*", choices=sorted(VARIANTS))
    given = parser.parse_args(arguments)
    if given.quick:
        given.rows = 100_000
    return show(measure(given), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

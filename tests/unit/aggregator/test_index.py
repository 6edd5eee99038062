"""The index finds what is in the ledger, in one order, whatever way it was built."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.indexing import catch_up, full_records, readable_rows
from aesp_proxy.aggregator.ingest import Accept, IngestLimits, judge
from aesp_proxy.aggregator.local import find_events, rebuild_index
from aesp_proxy.aggregator.ports import (
    BatchPlace,
    EventCursor,
    EventQuery,
    EventRow,
    Origin,
    batch_key,
)
from aesp_proxy.aggregator.query import next_cursor, parse_cursor
from aesp_proxy.aggregator.store.index import SqliteIndex, SqliteIndexReader
from aesp_proxy.aggregator.store.index_search import event_place
from aesp_proxy.aggregator.store.ledger import SqliteLedger
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.aggregator.stores import open_index
from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.record.canonical import FIELDS, POSITION
from aesp_proxy.record.keyring import pinned

START_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000


class Standing:
    """Enough of a control store to have batches judged without one."""

    def __init__(self, chain: Any, ledger: SqliteLedger) -> None:
        self.chain, self.ledger = chain, ledger

    def origin(self, name: str) -> Origin:
        return Origin(
            name=name, enrolled_ns=1, public_key=self.chain.public_key, tenants=frozenset({"acme"})
        )

    def key_owner(self, key_id: str) -> None:
        return None

    def keyring(self, origin: Origin) -> Any:
        return pinned(origin.public_key)

    def head(self, name: str) -> Any:
        return self.ledger.head(name)

    def stored_hash(self, name: str, batch_no: int) -> None:
        return None


class Store:
    """A ledger with an index beside it."""

    def __init__(self, root: Path) -> None:
        self.data = DataDir(root)
        self.objects = DirectoryObjects(root)
        self.ledger = SqliteLedger(self.data.ledger, self.objects)
        self.index = SqliteIndex(self.data.index)

    def put(self, chain: Any, identity: Any, count: int = 10, **changes: Any) -> None:
        judged = judge(
            chain.take(count, **changes),
            identity=identity,
            standing=Standing(chain, self.ledger),
            limits=IngestLimits(),
            now_ns=START_NS,
        )
        assert isinstance(judged, Accept), judged
        self.ledger.append([judged.batch])

    def close(self) -> None:
        self.index.close()
        self.ledger.close()
        self.objects.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def filled(store: Store, new_chain: Any, enrol: Any) -> Store:
    for name in ("h-one", "h-two"):
        chain = new_chain(origin=name)
        identity = enrol(chain)
        for number in range(5):
            store.put(chain, identity, 10, tenant_id="acme" if number % 2 else "")
    catch_up(store.ledger, store.index)
    return store


def pages(index: Any, query: EventQuery) -> list[EventRow]:
    """Follow the cursors to the end."""
    from dataclasses import replace

    found: list[EventRow] = []
    while True:
        rows = index.find(query)
        found += rows
        cursor = next_cursor(query, rows)
        if cursor is None:
            return found
        query = replace(query, cursor=parse_cursor(cursor))


def test_every_record_of_the_ledger_is_found_once_newest_first(filled: Store) -> None:
    found = pages(filled.index, EventQuery(limit=7))
    assert len(found) == 100
    assert [event_place(row) for row in found] == sorted(map(event_place, found), reverse=True)
    assert {(row.origin, row.epoch, row.seq) for row in found} == {
        (origin, 1, seq) for origin in ("h-one", "h-two") for seq in range(1, 51)
    }


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (EventQuery(agent="agent-1"), lambda row: row.agent == "agent-1"),
        (EventQuery(host="api2.example.test"), lambda row: row.host == "api2.example.test"),
        (EventQuery(verdict="deny"), lambda row: row.verdict == "deny"),
        (EventQuery(reason="host_blocked"), lambda row: row.reason == "host_blocked"),
        (EventQuery(session="s-0"), lambda row: row.session == "s-0"),
        (EventQuery(tenant="acme"), lambda row: row.tenant == "acme"),
        (EventQuery(kind="decision"), lambda row: row.kind == "decision"),
        (EventQuery(origin="h-two"), lambda row: row.origin == "h-two"),
        (
            EventQuery(agent="agent-0", verdict="deny", origin="h-one"),
            lambda row: (row.agent, row.verdict, row.origin) == ("agent-0", "deny", "h-one"),
        ),
        (
            EventQuery(since_ns=START_NS + 10 * SECOND_NS, until_ns=START_NS + 20 * SECOND_NS),
            lambda row: 10 * SECOND_NS <= row.time_ns - START_NS < 20 * SECOND_NS,
        ),
        (EventQuery(agent="nobody"), lambda row: False),
        (EventQuery(until_ns=START_NS), lambda row: False),
        (EventQuery(since_ns=START_NS * 2), lambda row: False),
    ],
)
def test_a_filter_finds_exactly_what_it_says(filled: Store, query: Any, holds: Any) -> None:
    everything = pages(filled.index, EventQuery(limit=1000))
    assert pages(filled.index, query) == [row for row in everything if holds(row)]


def test_a_rebuilt_index_answers_as_the_first_did(filled: Store) -> None:
    first = pages(filled.index, EventQuery())
    filled.index.close()
    assert rebuild_index(filled.data) == 100
    filled.index = SqliteIndex(filled.data.index)
    assert pages(filled.index, EventQuery()) == first


def test_indexing_again_adds_nothing(filled: Store) -> None:
    assert catch_up(filled.ledger, filled.index) == 0
    place = filled.ledger.after(0, limit=1)[0]
    assert filled.index.add([(place, readable_rows(filled.ledger, place))]) == 0
    assert len(pages(filled.index, EventQuery(limit=1000))) == 100


def test_a_failure_in_the_middle_leaves_no_part_of_a_batch(
    filled: Store, chain: Any, enrol: Any
) -> None:
    before = filled.index.position()
    chain.origin = "h-three"
    filled.put(chain, enrol(chain), 4, agent_id="new-agent")
    place = filled.ledger.after(before, limit=1)[0]
    rows = readable_rows(filled.ledger, place)
    rows[3][POSITION["status"]] = "not a number"
    with pytest.raises(Exception, match="cannot store TEXT"):
        filled.index.add([(place, rows)])
    assert filled.index.position() == before
    assert filled.index.find(EventQuery(agent="new-agent")) == []
    assert catch_up(filled.ledger, filled.index) == 4
    assert len(filled.index.find(EventQuery(agent="new-agent"))) == 4


def test_a_batch_changed_on_disk_is_passed_over_and_the_rest_is_found(
    store: Store, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    for _ in range(3):
        store.put(chain, identity)
    path = store.data.root / batch_key(chain.origin, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert catch_up(store.ledger, store.index) == 20
    path.write_bytes(whole)
    store.index.close()
    assert rebuild_index(store.data) == 30
    store.index = SqliteIndex(store.data.index)


def test_a_store_that_cannot_be_asked_now_passes_no_batch_over(
    store: Store, chain: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = enrol(chain)
    for _ in range(3):
        store.put(chain, identity)

    def down(key: str) -> bytes:
        raise UnavailableError("is down")

    with monkeypatch.context() as while_down:
        while_down.setattr(store.objects, "get", down)
        with pytest.raises(UnavailableError):
            catch_up(store.ledger, store.index)
        assert store.index.position() == 0
    assert catch_up(store.ledger, store.index) == 30
    rows = store.index.find(EventQuery(limit=1))
    with monkeypatch.context() as while_down:
        while_down.setattr(store.objects, "get", down)
        with pytest.raises(UnavailableError):
            list(full_records(store.ledger, rows))


def test_the_whole_record_is_read_from_the_ledger(filled: Store) -> None:
    rows = filled.index.find(EventQuery(limit=25))
    records = list(full_records(filled.ledger, rows))
    assert [record.time_ns for record in records] == [row.time_ns for row in rows]
    assert {record.message for record in records} == {"said"}


def test_a_damaged_index_is_put_aside_and_built_again(filled: Store) -> None:
    filled.index.close()
    for suffix in ("-wal", "-shm"):
        (filled.data.root / f"index.sqlite{suffix}").unlink(missing_ok=True)
    filled.data.index.write_bytes(b"not a database at all" * 500)
    filled.index = open_index(filled.data)
    assert catch_up(filled.ledger, filled.index) == 100
    assert filled.data.index.with_suffix(".damaged").exists()


def test_a_local_question_brings_the_index_up_first(filled: Store, chain: Any, enrol: Any) -> None:
    chain.origin = "h-three"
    filled.put(chain, enrol(chain), 4)
    events, _, behind = find_events(filled.data, EventQuery(origin="h-three"), full=True)
    assert (len(events), behind) == (4, 0)
    assert events[0]["record"]["message"] == "said"


def test_a_rebuild_is_refused_while_another_process_indexes(filled: Store) -> None:
    import fcntl

    descriptor = os.open(filled.data.index_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError):
            rebuild_index(filled.data)
    finally:
        os.close(descriptor)


def test_a_query_that_takes_too_long_is_ended(filled: Store, new_chain: Any, enrol: Any) -> None:
    chain = new_chain(origin="h-long")
    filled.put(chain, enrol(chain), 20_000)
    catch_up(filled.ledger, filled.index)
    reader = SqliteIndexReader(filled.data.index, expired=lambda: True)
    try:
        with pytest.raises(UnavailableError, match="too long"):
            reader.find(EventQuery(agent="agent-0", limit=1000))
    finally:
        reader.close()


def test_text_from_a_record_is_never_part_of_a_statement(
    store: Store, chain: Any, enrol: Any
) -> None:
    hostile = "x' OR 1=1; DROP TABLE events; --"
    store.put(chain, enrol(chain), 2, agent_id=hostile)
    catch_up(store.ledger, store.index)
    assert len(store.index.find(EventQuery(agent=hostile))) == 2
    assert store.index.find(EventQuery(agent="x")) == []


def test_a_reader_of_another_layout_says_so(filled: Store) -> None:
    filled.index.close()
    with sqlite3.connect(filled.data.index) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigError, match="layout 99"):
        SqliteIndexReader(filled.data.index)
    filled.index = open_index(filled.data)


def place_of(position: int, origin: str, first_seq: int, count: int) -> BatchPlace:
    return BatchPlace(
        position=position,
        origin=origin,
        batch_no=position,
        epoch=1,
        first_seq=first_seq,
        count=count,
        header_hash=b"",
        received_ns=0,
    )


TEXTS = st.sampled_from(["", "a", "b", "\u202e\x1b[31m", "🙂"])
TIMES = st.integers(0, 30) | st.just((1 << 63) - 1)
BATCH = st.lists(st.tuples(TIMES, TEXTS, TEXTS, TEXTS), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batches=st.lists(st.tuples(st.sampled_from(["h-a", "h-b"]), BATCH), max_size=6),
    agent=TEXTS,
    verdict=TEXTS,
    bounds=st.tuples(st.none() | TIMES, st.none() | TIMES),
    limit=st.integers(1, 4),
)
def test_search_agrees_with_a_plain_scan(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[Any],
    agent: str,
    verdict: str,
    bounds: tuple[int | None, int | None],
    limit: int,
) -> None:
    index = SqliteIndex(tmp_path_factory.mktemp("index") / "index.sqlite")
    try:
        plain: list[EventRow] = []
        next_seq = {"h-a": 1, "h-b": 1}
        for position, (origin, rows) in enumerate(batches, start=1):
            values = []
            for time_ns, row_agent, row_verdict, row_host in rows:
                fields: list[Any] = [0 if field.kind == "uint" else "" for field in FIELDS]
                fields[POSITION["time_ns"]] = time_ns
                fields[POSITION["agent_id"]] = row_agent
                fields[POSITION["verdict"]] = row_verdict
                fields[POSITION["target_host"]] = row_host
                values.append(fields)
            place = place_of(position, origin, next_seq[origin], len(values))
            index.add([(place, values)])
            for at, (time_ns, row_agent, row_verdict, row_host) in enumerate(rows):
                plain.append(
                    EventRow(
                        time_ns=time_ns,
                        origin=origin,
                        epoch=1,
                        seq=next_seq[origin] + at,
                        kind="",
                        agent=row_agent,
                        host=row_host,
                        verdict=row_verdict,
                        reason="",
                        guard="",
                        action="",
                        outcome="",
                        session="",
                        tenant="",
                        status=0,
                    )
                )
            next_seq[origin] += len(values)
        since_ns, until_ns = bounds
        expected = sorted(
            (
                row
                for row in plain
                if (since_ns is None or since_ns <= row.time_ns)
                and (until_ns is None or row.time_ns < until_ns)
                and (not agent or row.agent == agent)
                and (not verdict or row.verdict == verdict)
            ),
            key=event_place,
            reverse=True,
        )
        query = EventQuery(
            since_ns=since_ns, until_ns=until_ns, agent=agent, verdict=verdict, limit=limit
        )
        assert pages(index, query) == expected
    finally:
        index.close()


def test_a_made_up_cursor_only_asks_for_less(filled: Store) -> None:
    cursor = EventCursor(time_ns=START_NS + 5 * SECOND_NS, origin="zzz", epoch=9, seq=9)
    found = filled.index.find(EventQuery(cursor=cursor, limit=1000))
    assert {row.time_ns for row in found} == {START_NS + n * SECOND_NS for n in range(1, 6)}

"""The engine: whatever a sink or a disk does, every event arrives or is a dead letter."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from inspect import getsource, isfunction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from siem_lab import SealingHost

from aesp_proxy.aggregator.export.backoff import MOST_S, delay_s
from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.exporter import IDLE_S, REFUSED_RUN_MAX, Chance, Exporter
from aesp_proxy.aggregator.export.reading import first_position_since
from aesp_proxy.aggregator.export.settings import SinkSettings
from aesp_proxy.aggregator.export.sinks.port import (
    Delivery,
    LaterError,
    Outgoing,
    UnacceptableError,
)
from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.leases import TurnLostError
from aesp_proxy.aggregator.ports import BatchPlace
from aesp_proxy.aggregator.store.exports import BACKFILL, LIVE, Cursor, Exports, SqliteExports
from aesp_proxy.aggregator.stores import open_exports
from aesp_proxy.errors import RecordError, UnavailableError
from aesp_proxy.record.batch import encode_batch
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.merkle import leaf_hash, verify_inclusion

SETTINGS = SinkSettings(name="soc", type="webhook", events_max=4)


class Stored:
    """A ledger in memory: batches of one host, by position."""

    def __init__(self, plain: Any) -> None:
        self.host = SealingHost(plain)
        self.batches: dict[int, tuple[BatchPlace, bytes]] = {}

    def add(self, count: int, **changes: Any) -> None:
        first_seq = self.host.next_seq
        batch, header = self.host.seal(count, **changes)
        position = len(self.batches) + 1
        place = BatchPlace(
            position=position,
            origin="h-one",
            batch_no=header.batch_no,
            epoch=1,
            first_seq=first_seq,
            count=count,
            header_hash=header_hash(batch.header_bytes),
            received_ns=position * 1000,
        )
        self.batches[position] = (place, encode_batch(batch))

    def after(self, position: int, *, limit: int) -> list[BatchPlace]:
        return [self.batches[p][0] for p in sorted(self.batches) if p > position][:limit]

    def read(self, place: BatchPlace) -> bytes:
        return self.batches[place.position][1]

    def last_position(self) -> int:
        return max(self.batches, default=0)

    @property
    def ids(self) -> list[str]:
        return self.host.ids


@dataclass
class Scripted:
    """A sink that does what ``script`` says, then takes everything."""

    script: list[Any] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)
    largest: int = 1000
    last: list[Outgoing] = field(default_factory=list)

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        self.asked.append([event.id for event in events])
        self.last = list(events)
        if self.script:
            act = self.script.pop(0)
            if isinstance(act, Exception):
                raise act
            if isinstance(act, Delivery):
                self.taken += [
                    event.id
                    for index, event in enumerate(events)
                    if index not in act.refused and index not in act.later
                ]
                return act
        if len(events) > self.largest:
            raise UnacceptableError("status 413")
        if self.poison & {event.id for event in events}:
            raise UnacceptableError("status 400: no")
        self.taken += [event.id for event in events]
        return Delivery()

    def close(self) -> None:
        pass


@dataclass
class Lab:
    stored: Stored
    sink: Scripted
    store: Exports
    data: DataDir
    now_ns: int = 10**18

    def exporter(self, settings: SinkSettings = SETTINGS) -> Exporter:
        def shape(event: ExportEvent) -> Outgoing:
            return Outgoing(event=event, body={"id": event.id})

        return Exporter(
            settings,
            sink=self.sink,
            source=self.stored,  # type: ignore[arg-type]
            store=self.store,
            shape=shape,
            chance=Chance(now_ns=lambda: self.now_ns, random=lambda: 0.0),
        )

    def drain(self, exporter: Exporter, steps: int = 200) -> None:
        for _ in range(steps):
            if exporter.step() == IDLE_S:
                return
        raise AssertionError("it does not come to an end")


@pytest.fixture
def stores_text() -> str:
    """What ``stores.yaml`` says; others say that the same tests hold for other stores."""
    return ""


@pytest.fixture
def lab(tmp_path: Path, new_event: Callable[..., ExportEvent], stores_text: str):
    data = DataDir(tmp_path)
    if stores_text:
        data.store_settings.write_text(stores_text)
    store = open_exports(data)
    yield Lab(Stored(new_event().record), Scripted(), store, data)
    store.close()


def test_every_event_is_delivered_once_in_order_over_batches_of_every_size(lab: Lab):
    for count in (1, 0, 9, 3, 0, 0, 5):
        lab.stored.add(count)
    lab.drain(lab.exporter())
    assert lab.sink.taken == lab.stored.ids
    assert max(map(len, lab.sink.asked)) == 4
    assert lab.store.cursor("soc") == Cursor(position=7)
    assert lab.store.health("soc").delivered == 18


def test_a_new_exporter_goes_on_where_the_last_one_was(lab: Lab):
    lab.stored.add(10)
    assert lab.exporter().step() == 0.0
    assert lab.store.cursor("soc") == Cursor(position=0, row=4)
    lab.drain(lab.exporter())
    assert lab.sink.taken == lab.stored.ids


def test_a_crash_after_the_delivery_repeats_and_skips_nothing(lab: Lab, monkeypatch):
    lab.stored.add(6)
    exporter = lab.exporter()
    with monkeypatch.context() as patch:
        patch.setattr(
            lab.store, "advance", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            exporter.step()
    lab.drain(lab.exporter())
    assert lab.sink.taken == [*lab.stored.ids[:4], *lab.stored.ids]


def test_a_sink_that_is_down_is_tried_for_ever_and_longer_each_time(lab: Lab):
    lab.stored.add(2)
    lab.sink.script = [LaterError("refused")] * 50
    exporter = lab.exporter()
    waits = [exporter.step() for _ in range(50)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(waits) == waits[-1] == MOST_S / 2
    health = lab.store.health("soc")
    assert (health.failing, health.last_error) == (50, "refused")
    assert health.next_try_ns == lab.now_ns + int(waits[-1] * 1e9)
    lab.drain(exporter)
    assert lab.sink.taken == lab.stored.ids
    assert lab.store.health("soc").failing == 0


def test_a_restart_does_not_forget_how_long_a_sink_is_down(lab: Lab):
    lab.stored.add(1)
    lab.sink.script = [LaterError("no")] * 9
    for _ in range(8):
        lab.exporter().step()
    assert lab.exporter().step() == 128.0


def test_what_the_sink_asks_for_is_waited_for(lab: Lab):
    lab.stored.add(1)
    lab.sink.script = [LaterError("busy", after_s=77.0)]
    assert lab.exporter().step() == 77.0


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1e9))
def test_a_wait_is_within_bounds(failures: int, chance: float, asked_s: float):
    assert 0.5 <= delay_s(failures, chance=chance, asked_s=asked_s) <= 3600.0
    assert delay_s(failures, chance=chance) <= MOST_S


def test_an_event_refused_for_itself_becomes_a_dead_letter_and_the_rest_arrives(lab: Lab):
    lab.stored.add(4)
    lab.sink.script = [Delivery(refused={1: "status 400: mapping"})]
    lab.drain(lab.exporter())
    assert lab.sink.taken == ["h-one/1/1", "h-one/1/3", "h-one/1/4"]
    [letter] = lab.store.dead_letters("soc", limit=9)
    assert (letter.event, letter.reason) == ("h-one/1/2", "status 400: mapping")


def test_only_what_came_late_is_sent_again(lab: Lab):
    lab.stored.add(4)
    lab.sink.script = [Delivery(later={2: "status 429"}, refused={0: "no"}, after_s=3)]
    exporter = lab.exporter()
    assert exporter.step() == 3
    lab.drain(exporter)
    assert lab.sink.asked == [lab.stored.ids, ["h-one/1/3"]]
    assert [letter.event for letter in lab.store.dead_letters("soc", limit=9)] == ["h-one/1/1"]


def test_one_poisonous_event_is_found_by_halving(lab: Lab):
    lab.stored.add(16)
    lab.sink.poison = {"h-one/1/11"}
    lab.drain(lab.exporter(replace(SETTINGS, events_max=16)))
    assert sorted(lab.sink.taken) == sorted(set(lab.stored.ids) - lab.sink.poison)
    assert [letter.event for letter in lab.store.dead_letters("soc", limit=9)] == ["h-one/1/11"]


def test_a_request_that_is_too_large_is_sent_in_parts(lab: Lab):
    lab.stored.add(16)
    lab.sink.largest = 3
    lab.drain(lab.exporter(replace(SETTINGS, events_max=16)))
    assert lab.sink.taken == lab.stored.ids
    assert lab.store.dead_count("soc") == 0


def test_a_sink_that_refuses_everything_is_wrong_itself_and_nothing_is_given_up(lab: Lab):
    lab.stored.add(40)
    lab.sink.poison = set(lab.stored.ids)
    exporter = lab.exporter(replace(SETTINGS, events_max=40))
    assert exporter.step() > 0
    assert lab.store.cursor("soc") == Cursor()
    assert lab.store.dead_count("soc") == 0
    assert "refuses everything" in lab.store.health("soc").last_error
    assert len(lab.sink.asked) < 2 * REFUSED_RUN_MAX + 40
    lab.sink.poison = set()
    lab.drain(exporter)
    assert lab.sink.taken == lab.stored.ids


def test_a_full_disk_stops_the_cursor_and_repeats_nothing(lab: Lab):
    lab.stored.add(3)
    exporter = lab.exporter()
    exporter.step()
    lab.stored.add(2)
    real = lab.store.advance

    def full(*args: Any, **more: Any) -> None:
        raise RecordError("database refused: database or disk is full")

    lab.store.advance = full  # type: ignore[method-assign]
    assert 0 < exporter.step() != IDLE_S
    assert exporter.step() > 0
    lab.store.advance = real  # type: ignore[method-assign]
    lab.drain(exporter)
    assert lab.sink.taken == lab.stored.ids


def test_a_batch_that_cannot_be_read_is_a_dead_letter_and_the_rest_arrives(lab: Lab):
    for count in (2, 3, 2):
        lab.stored.add(count)
    place, data = lab.stored.batches[2]
    lab.stored.batches[2] = (place, data[:-1])
    lab.drain(lab.exporter())
    assert lab.sink.taken == [*lab.stored.ids[:2], *lab.stored.ids[5:]]
    [letter] = lab.store.dead_letters("soc", limit=9)
    assert (letter.row, letter.event) == (-1, "h-one batch 2")
    # Restored from a backup: the letter brings all of it.
    lab.stored.batches[2] = (place, data)
    assert lab.store.queue_dead("soc") == 1
    lab.drain(lab.exporter())
    assert lab.sink.taken[-3:] == lab.stored.ids[2:5]
    assert lab.store.dead_count("soc") == 0


def test_a_replayed_letter_that_is_refused_again_stays_and_waits_for_a_person(lab: Lab):
    lab.stored.add(3)
    lab.sink.script = [Delivery(refused={0: "a", 1: "b"})]
    exporter = lab.exporter()
    lab.drain(exporter)
    assert lab.store.queue_dead("soc", [1]) == 1
    lab.sink.script = [Delivery(refused={0: "again"})]
    lab.drain(exporter)
    letters = lab.store.dead_letters("soc", limit=9)
    assert sorted((each.event, each.reason, each.queued) for each in letters) == [
        ("h-one/1/1", "again", False),
        ("h-one/1/2", "b", False),
    ]
    lab.store.queue_dead("soc")
    lab.drain(exporter)
    assert lab.store.dead_count("soc") == 0
    assert sorted(lab.sink.taken) == lab.stored.ids


def test_a_letter_whose_batch_is_gone_says_so(lab: Lab):
    lab.stored.add(1)
    lab.sink.script = [Delivery(refused={0: "a"})]
    lab.drain(lab.exporter())
    lab.store.queue_dead("soc")
    lab.stored.batches.clear()
    lab.drain(lab.exporter())
    [letter] = lab.store.dead_letters("soc", limit=9)
    assert letter.reason == "the batch is not stored any more"


def test_a_back_fill_repeats_a_range_and_new_records_do_not_wait_for_it(lab: Lab):
    for _ in range(4):
        lab.stored.add(4)
    exporter = lab.exporter()
    lab.drain(exporter)
    lab.sink.taken.clear()
    since = first_position_since(lab.stored, 2000)  # type: ignore[arg-type]
    assert since == 1
    lab.store.begin("soc", Cursor(position=since, until_position=3), BACKFILL)
    lab.stored.add(4)
    exporter.step()
    assert set(lab.sink.taken) >= set(lab.stored.ids[16:])
    lab.drain(exporter)
    assert sorted(lab.sink.taken) == sorted([*lab.stored.ids[4:12], *lab.stored.ids[16:]])
    assert lab.store.cursor("soc", BACKFILL) is None


@pytest.mark.parametrize(
    ("time_ns", "position"), [(0, 0), (1000, 0), (1001, 1), (5000, 4), (5001, 5)]
)
def test_a_time_is_found_among_positions(lab: Lab, time_ns: int, position: int):
    for _ in range(5):
        lab.stored.add(1)
    assert first_position_since(lab.stored, time_ns) == position  # type: ignore[arg-type]


def test_a_sink_that_starts_now_gets_what_comes_and_not_what_was(lab: Lab):
    lab.stored.add(3)
    now = replace(SETTINGS, start="now")
    lab.drain(lab.exporter(now))
    lab.stored.add(2)
    lab.drain(lab.exporter(now))
    assert lab.sink.taken == lab.stored.ids[3:]


def test_a_sink_gets_only_what_it_wants(lab: Lab):
    lab.stored.add(2, verdict="allow")
    lab.stored.add(2, verdict="deny", tenant_id="acme")
    lab.stored.add(2, verdict="deny", tenant_id="other")
    lab.drain(lab.exporter(replace(SETTINGS, verdicts=("deny",), tenants=("acme",))))
    assert lab.sink.taken == lab.stored.ids[2:4]
    assert lab.store.cursor("soc") == Cursor(position=3)


def test_an_event_carries_a_proof_that_holds_where_that_is_asked(lab: Lab):
    lab.stored.add(7)
    lab.drain(lab.exporter(replace(SETTINGS, proofs=True, events_max=7)))
    for index, outgoing in enumerate(lab.sink.last):
        sealing = outgoing.event.sealing
        assert sealing is not None
        header = decode_header(sealing.header)
        assert sealing.leaf_index == index
        assert verify_inclusion(
            leaf_hash(sealing.row), index, sealing.tree_size, sealing.path, header.root
        )


def test_the_cursor_survives_a_cut_off_process(lab: Lab):
    lab.stored.add(4)
    lab.exporter().step()
    other = open_exports(lab.data)
    assert other.cursor("soc", LIVE) == Cursor(position=1)
    other.close()


def test_a_holder_that_was_paused_in_a_delivery_moves_nothing_once_another_took_over(lab: Lab):
    """The lease was lost meanwhile: what the new holder wrote stands, and the old one ends."""
    lab.stored.add(6)
    lab.store.take_turn("export:soc")
    paused, wakes = threading.Event(), threading.Event()

    class Pausing(Scripted):
        def deliver(self, events: Sequence[Outgoing]) -> Delivery:
            paused.set()
            assert wakes.wait(30)
            return super().deliver(events)

    first = replace(lab, sink=Pausing()).exporter()
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(first.step)
        assert paused.wait(30)
        with closing(open_exports(lab.data)) as store:
            store.take_turn("export:soc")
            lab.drain(replace(lab, store=store).exporter())
            stands = store.cursor("soc"), store.health("soc")
            wakes.set()
            with pytest.raises(TurnLostError, match="taken over"):
                step.result()
            assert (store.cursor("soc"), store.health("soc")) == stands
            assert stands[0] == Cursor(position=1)
    assert lab.sink.taken == lab.stored.ids


WRITES: dict[str, Callable[[Exports], Any]] = {
    "begin": lambda store: store.begin("soc", Cursor(position=9)),
    "advance": lambda store: store.advance(
        "soc", LIVE, Cursor(position=9), delivered=1, refused=[], now_ns=1
    ),
    "settle": lambda store: store.settle("soc", [1], [], now_ns=1),
    "note_failure": lambda store: store.note_failure("soc", "x", now_ns=1, next_try_ns=2),
    "note_stopped": lambda store: store.note_stopped("soc", stopped_ns=1),
    "queue_dead": lambda store: store.queue_dead("soc"),
    "drop_dead": lambda store: store.drop_dead("soc"),
}


@pytest.mark.parametrize("name", WRITES)
def test_every_write_of_a_turn_that_is_over_is_refused(lab: Lab, name: str):
    lab.store.take_turn("export:soc")
    WRITES[name](lab.store)
    with closing(open_exports(lab.data)) as store:
        store.take_turn("export:other")
        WRITES[name](lab.store)
        store.take_turn("export:soc")
        stands = store.cursor("soc"), store.health("soc")
        with pytest.raises(TurnLostError, match="export:soc"):
            WRITES[name](lab.store)
        assert (store.cursor("soc"), store.health("soc")) == stands
        WRITES[name](store)
    assert {
        name
        for name, value in vars(Exports).items()
        if isfunction(value) and "self._transaction()" in getsource(value)
    } == set(WRITES)


def test_the_embedded_cursor_is_on_disk_when_it_has_moved(tmp_path: Path):
    store = SqliteExports(tmp_path / "exports.sqlite")
    assert store._database.rows("PRAGMA synchronous")[0][0] == 2  # FULL
    store.close()


ACTS = st.lists(
    st.one_of(
        st.just(LaterError("down")),
        st.just(UnacceptableError("400")),
        st.builds(
            Delivery,
            refused=st.dictionaries(st.integers(0, 3), st.just("no"), max_size=2),
            later=st.dictionaries(st.integers(4, 7), st.just("429"), max_size=2),
        ),
        st.none(),
    ),
    max_size=12,
)


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    counts=st.lists(st.integers(0, 9), max_size=5), acts=ACTS, restarts=st.sets(st.integers(0, 30))
)
def test_whatever_the_sink_does_each_event_arrives_or_is_a_dead_letter(
    tmp_path_factory: Any, new_event: Any, counts: list[int], acts: list[Any], restarts: set[int]
):
    data = DataDir(tmp_path_factory.mktemp("x"))
    lab = Lab(Stored(new_event().record), Scripted(script=list(acts)), open_exports(data), data)
    for count in counts:
        lab.stored.add(count)
    eight = replace(SETTINGS, events_max=8)
    exporter = lab.exporter(eight)
    for step in range(200):
        if step in restarts:
            exporter = lab.exporter(eight)
        if exporter.step() == IDLE_S:
            break
    dead = {letter.event for letter in lab.store.dead_letters("soc", limit=999)}
    lab.store.close()
    assert set(lab.sink.taken) | dead == set(lab.stored.ids)


# The bound of dead letters

BOUNDED = replace(SETTINGS, dead_letters_max=5)


def refused_of(lab: Lab) -> list[str]:
    return [letter.event for letter in lab.store.dead_letters("soc", limit=1000)]


def play(exporter: Exporter, steps: int = 60) -> None:
    for _ in range(steps):
        exporter.step()


def test_dead_letters_stop_at_their_bound_exactly_and_nothing_is_passed_over(lab: Lab):
    lab.stored.add(30)
    lab.sink.poison = set(lab.stored.ids[2:12])
    exporter = lab.exporter(BOUNDED)
    play(exporter)
    assert refused_of(lab) == lab.stored.ids[2:7]
    assert lab.sink.taken == lab.stored.ids[:2]
    assert exporter.is_stopped
    assert lab.store.health("soc").stopped_ns == lab.now_ns
    asked = len(lab.sink.asked)
    play(exporter)
    assert len(lab.sink.asked) == asked


def test_what_is_dropped_is_counted_and_the_sink_goes_on_where_it_stopped(lab: Lab):
    lab.stored.add(30)
    lab.sink.poison = set(lab.stored.ids[2:12])
    play(lab.exporter(BOUNDED))
    first = lab.store.dead_letters("soc", limit=1)[0].id
    assert lab.store.drop_dead("soc", [first, 10**9]) == 1
    exporter = lab.exporter(BOUNDED)
    assert exporter.is_stopped
    play(exporter)
    assert refused_of(lab) == lab.stored.ids[3:8]
    assert lab.store.drop_dead("soc") == 5
    play(exporter)
    assert (exporter.is_stopped, lab.store.health("soc").dropped) == (False, 6)
    assert refused_of(lab) == lab.stored.ids[8:12]
    assert lab.sink.taken == [*lab.stored.ids[:2], *lab.stored.ids[12:]]
    assert lab.store.health("soc").stopped_ns == 0


def test_a_stopped_sink_still_takes_what_is_replayed(lab: Lab):
    lab.stored.add(12)
    lab.sink.poison = set(lab.stored.ids[:12])
    exporter = lab.exporter(BOUNDED)
    play(exporter)
    assert exporter.is_stopped
    lab.sink.poison = set()
    lab.store.queue_dead("soc")
    play(exporter)
    assert refused_of(lab) == []
    assert sorted(lab.sink.taken) == sorted(lab.stored.ids)
    assert not exporter.is_stopped


def test_what_is_refused_again_is_one_letter_and_takes_no_room(lab: Lab):
    lab.stored.add(6)
    lab.sink.poison = set(lab.stored.ids[:5])
    exporter = lab.exporter(BOUNDED)
    play(exporter)
    for _ in range(3):
        lab.store.queue_dead("soc")
        play(exporter, 3)
    assert lab.store.dead_count("soc") == 5


def test_a_store_that_cannot_be_asked_now_makes_no_dead_letter(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(3):
        lab.stored.add(2)

    def down(place: BatchPlace) -> bytes:
        raise UnavailableError("is down")

    exporter = lab.exporter()
    with monkeypatch.context() as while_down:
        while_down.setattr(lab.stored, "read", down)
        for _ in range(3):
            assert exporter.step() != IDLE_S
    assert lab.store.dead_count("soc") == 0
    assert lab.store.health("soc").failing == 3
    lab.drain(exporter)
    assert lab.sink.taken == lab.stored.ids


def test_unreadable_batches_count_as_well(lab: Lab):
    for _ in range(9):
        lab.stored.add(1)
    for position in range(1, 8):
        place, data = lab.stored.batches[position]
        lab.stored.batches[position] = (place, data[:-3] + b"xyz")
    play(lab.exporter(BOUNDED))
    assert lab.store.dead_count("soc") == 5
    assert lab.sink.taken == []


def test_an_older_file_is_brought_up_to_date(tmp_path: Path):
    path = tmp_path / "exports.sqlite"
    SqliteExports(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE fences")
        connection.execute("ALTER TABLE health DROP COLUMN dropped")
        connection.execute("ALTER TABLE health DROP COLUMN stopped_ns")
        connection.execute("INSERT INTO health (sink, delivered) VALUES ('soc', 7)")
        connection.execute("PRAGMA user_version=1")
        connection.commit()
    store = SqliteExports(path)
    assert (store.health("soc").delivered, store.health("soc").dropped) == (7, 0)
    assert store.drop_dead("soc") == 0
    store.close()

"""Several aggregators on one PostgreSQL, and everything that can happen to it on the way."""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from contract_tests import unit_module
from log_lab import KEYS
from postgresql_lab import Cluster, needs_postgresql, running_cluster
from postgresql_relay import Plan, Relay

from aesp_proxy.aggregator.databases import close_databases
from aesp_proxy.aggregator.identity import DataDir, prepare
from aesp_proxy.aggregator.joining import join
from aesp_proxy.aggregator.leases import TurnLostError
from aesp_proxy.aggregator.log.keys import ensure_log_key
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.store import postgresql, postgresql_layout
from aesp_proxy.aggregator.store.exports import Cursor, DeadLetter
from aesp_proxy.aggregator.store.tokens import TokenRefusedError, TokenTerms
from aesp_proxy.aggregator.stores import (
    open_control,
    open_exports,
    open_fence,
    open_leases,
    open_ledger,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.aggregator.writer import Answer
from aesp_proxy.errors import AespError, ConfigError, RecordError, UnavailableError
from aesp_proxy.record.receipt import verify_receipt
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import Note

pytestmark = needs_postgresql

_fixtures = vars(unit_module("aggregator/conftest"))
_writer = vars(unit_module("aggregator/test_writer"))
Chain, Aggregator = _fixtures["Chain"], _writer["Aggregator"]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
# The connections that hold a lease, as a cut network would end them.
END_LEASES = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    " AND classid = 1095062352 AND granted AND pid IN (SELECT pid FROM pg_stat_activity"
    " WHERE state = 'idle')"
)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
HOSTILE = "x'); DROP TABLE aesp_proxy.origins; -- %s ? {x:String} \\ \" \U0001f4a5"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as made:
        yield made
        close_databases()


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def home(tmp_path: Path, cluster: Cluster, database: str) -> Callable[..., DataDir]:
    """Make data directories of aggregators that share the database and a directory of objects."""
    cluster.emptied(database)

    def make(name: str, url: str = "") -> DataDir:
        data = DataDir(tmp_path / name)
        data.root.mkdir()
        data.store_settings.write_text(
            f"database: {url or database}\nobjects: {{directory: {tmp_path / 'objects'}}}\n"
        )
        return data

    return make


@pytest.fixture
def pair(home: Any) -> Iterator[tuple[Any, Any]]:
    """Two aggregators with one receipt key."""
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("one", "two"):
            data = home(name)
            control = open_control(data)
            stack.callback(control.close)
            made.append(Aggregator(data, control))
            stack.callback(made[-1].close)
        made[1].key = made[1].writer._receipt_key = made[0].key
        made[1].public_key = made[0].public_key
        yield made[0], made[1]


def enrol(control: Any, chain: Any) -> Identity:
    identity = Identity(role=Role.HOST, name=chain.origin)
    control.enrol(
        chain.origin,
        public_key=chain.public_key,
        tenants=frozenset(),
        certificate=Certificate(
            fingerprint=chain.origin.encode(), identity=identity, issued_ns=1, not_after_ns=2**62
        ),
    )
    return identity


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Do all at the same instant; return what each gave or raised."""
    barrier, found = threading.Barrier(len(calls)), [None] * len(calls)

    def do(at: int) -> None:
        barrier.wait()
        try:
            found[at] = calls[at]()
        except AespError as error:
            found[at] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=do, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def insist(aggregator: Any, data: bytes, identity: Identity) -> Answer:
    """Send until there is an answer, as a host does; errors are "come again"."""
    pause = threading.Event()
    for _ in range(2_000):
        answer = aggregator.send(data, identity)
        if isinstance(answer, Answer):
            return answer
        assert isinstance(answer, UnavailableError | RecordError), answer
        pause.wait(0.01)  # as long as the other may need to make a batch durable
    raise AssertionError("it never answers")


def positions(aggregator: Any) -> list[int]:
    return [place.position for place in aggregator.ledger.after(0, limit=10_000)]


def test_a_batch_sent_to_two_at_once_is_stored_once_and_receipted_by_both(pair: Any):
    one, two = pair
    chain = Chain()
    identity = enrol(one.control, chain)
    for number in range(1, 9):
        data = chain.take(2)
        answers = at_once(
            lambda data=data: insist(one, data, identity),
            lambda data=data: insist(two, data, identity),
        )
        for answer in answers:
            receipt = verify_receipt(answer.receipt, public_key=one.public_key, origin=chain.origin)
            assert receipt.batch_no == number
    assert positions(one) == [*range(1, 9)]
    assert one.files(chain.origin) == []  # they are where both can read them
    assert two.stored(chain.origin, 8) == data


@pytest.mark.parametrize("turn", range(4))
def test_of_two_histories_one_is_taken_and_the_other_is_a_fork_whoever_got_which(
    pair: Any, turn: int
):
    one, two = pair
    chain = Chain()
    identity = enrol(one.control, chain)
    insist(one, chain.take(1), identity)
    other = replace(chain)
    histories = [chain.take(1), other.take(2)]
    answers = at_once(
        lambda: insist(one, histories[turn % 2], identity),
        lambda: insist(two, histories[1 - turn % 2], identity),
    )
    kinds = sorted("receipt" if a.receipt else a.refusal.kind.value for a in answers)
    assert kinds == ["fork", "receipt"]
    (evidence,) = two.control.evidence(chain.origin)
    objects = open_objects(one.data)
    kept = {objects.get(evidence.stored_key), objects.get(evidence.offered_key)}
    objects.close()
    assert kept == set(histories)
    # Shut out at once, at both.
    for aggregator in pair:
        assert insist(aggregator, chain.take(1), identity).refusal.kind.value == "quarantined"


def test_positions_have_no_gap_and_no_reader_sees_one_before_those_under_it(pair: Any, home: Any):
    one, two = pair
    chains = [Chain(origin=f"h-{number}") for number in range(6)]
    identities = [enrol(one.control, chain) for chain in chains]
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        objects = open_objects(one.data)
        reader = open_ledger_reader(one.data, objects)
        while not (done.is_set() and len(seen) >= 60):
            last = seen[-1] if seen else 0
            seen.extend(place.position for place in reader.after(last, limit=3))
        reader.close()
        objects.close()

    def ship(at: int) -> None:
        for _ in range(10):
            insist(pair[at % 2], chains[at].take(1), identities[at])

    reading = threading.Thread(target=read)
    reading.start()
    at_once(*(lambda at=at: ship(at) for at in range(6)))
    done.set()
    reading.join()
    assert seen == [*range(1, 61)]
    assert two.ledger.last_position() == 60


def test_a_token_is_used_once_however_many_get_it_at_the_same_instant(home: Any):
    controls = [open_control(home(f"a{number}")) for number in range(4)]
    for turn in range(5):
        token = bytes([turn]) * 32
        controls[0].tokens.add(TokenTerms(fingerprint=token, made_ns=1, expires_ns=100))
        answers = at_once(
            *(
                lambda at=at, control=control, token=token: control.tokens.use(
                    token,
                    origin=f"h-{at}",
                    request=b"r",
                    now_ns=50,
                    admit=lambda _: f"certificate of {at}".encode(),
                )
                for at, control in enumerate(controls)
            )
        )
        won = [answer for answer in answers if isinstance(answer, bytes)]
        assert len(won) == 1, answers
        lost = [answer for answer in answers if answer not in won]
        assert {getattr(each, "code", each) for each in lost} == {"token_used"}
        assert all(isinstance(each, TokenRefusedError) for each in lost)
    for control in controls:
        control.close()


def test_what_one_aggregator_changes_holds_at_the_others_next_question(pair: Any):
    one, two = pair
    chain = Chain()
    assert two.send(chain.take(1), Identity(role=Role.HOST, name=chain.origin)).refusal
    chain = Chain(origin="h-two")
    identity = enrol(one.control, chain)
    assert insist(two, chain.take(1), identity).receipt
    fingerprint = chain.origin.encode()
    assert two.control.identity(fingerprint, now_ns=5) == identity
    one.control.revoke(identity, now_ns=5)
    assert two.control.identity(fingerprint, now_ns=6) is None


@pytest.fixture
def relayed(home: Any, cluster: Cluster, database: str, monkeypatch) -> Iterator[Any]:
    """An aggregator that reaches the server through a relay."""
    (place,) = cluster.folder.glob(".s.PGSQL.*[0-9]")
    relay = Relay(str(place))
    monkeypatch.setenv("PGPASSWORD", "of the lab")
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    tls = "sslmode=disable&gssencmode=disable"
    data = home("relayed", f"postgresql://aesp@127.0.0.1:{relay.port}/{name}?{tls}")
    monkeypatch.setattr(postgresql, "REFUSE_S", 0.0)
    control = open_control(data)
    made = Aggregator(data, control)
    yield made, relay
    relay.plan = None
    with contextlib.suppress(AespError):
        made.close()
    control.close()
    close_databases()
    relay.close()


def check_all(aggregator: Any, chain: Any, receipted: int, sent: list[bytes]) -> None:
    """Nothing that was receipted is missing; what is stored is what was sent, in order."""
    objects = open_objects(aggregator.data)
    reader = open_ledger_reader(aggregator.data, objects)
    before: Any = ()
    # What the client was not told of may be committed at this moment.
    while (head := reader.head(chain.origin)) != before:
        before, places = head, reader.after(0, limit=1000)
    assert [place.position for place in places] == [*range(1, len(places) + 1)]
    assert [reader.read(place) for place in places] == sent[: len(places)]
    assert (head.batch_no if head else 0) == len(places) >= receipted
    reader.close()
    objects.close()


def test_a_connection_that_is_cut_anywhere_in_an_append_promises_nothing_and_loses_nothing(
    relayed: Any,
):
    aggregator, relay = relayed
    chain = Chain()
    identity = enrol(aggregator.control, chain)
    sent = [chain.take(1)]
    insist(aggregator, sent[0], identity)
    number, receipted, swallow = 0, 1, False
    while True:
        relay.plan = plan = Plan(number, swallow=swallow)
        sent.append(chain.take(1))
        answer = aggregator.send(sent[-1], identity)
        if not plan.is_done:
            assert answer.receipt
            if swallow:
                break
            # Once more, and now the answers are lost.
            number, swallow = 0, True
        relay.plan = None
        # A receipt may come of an append whose connection was cut after its commit, only.
        receipted = len(sent) if isinstance(answer, Answer) else receipted
        check_all(aggregator, chain, receipted, sent)
        receipt = insist(aggregator, sent[-1], identity).receipt
        verified = verify_receipt(receipt, public_key=aggregator.public_key, origin=chain.origin)
        receipted = verified.batch_no
        assert receipted == len(sent)
        check_all(aggregator, chain, receipted, sent)
        number += 1
    assert number > 10


@pytest.mark.parametrize("step", ["asked", "locked", "stored", "committed", "answered"])
def test_a_server_that_is_killed_anywhere_in_an_append_has_all_that_was_receipted(
    relayed: Any, cluster: Cluster, monkeypatch, step: str
):
    aggregator, relay = relayed
    chain = Chain()
    identity = enrol(aggregator.control, chain)
    sent = [chain.take(1), chain.take(2)]
    insist(aggregator, sent[0], identity)
    put_all = aggregator.objects.put_all
    kills = {"locked": [cluster.kill, put_all], "stored": [put_all, cluster.kill]}
    if step == "asked":
        cluster.kill()
    elif step in kills:

        def put_and_kill(items: Any) -> None:
            for act in kills[step]:
                act(items) if act is put_all else act()

        monkeypatch.setattr(aggregator.objects, "put_all", put_and_kill)
    elif step == "committed":  # the server has done it and can tell nobody
        number = _messages(aggregator, relay, chain, identity, sent)
        relay.plan = Plan(number, swallow=True, then=cluster.kill)
    answer = aggregator.send(sent[-1], identity)
    if step == "answered":
        assert answer.receipt
        cluster.kill()
    else:
        assert isinstance(answer, UnavailableError), answer
    relay.plan = None
    monkeypatch.setattr(aggregator.objects, "put_all", put_all)
    assert isinstance(aggregator.send(sent[-1], identity), UnavailableError)
    cluster.restart()
    check_all(aggregator, chain, len(sent) - (step != "answered"), sent)
    assert insist(aggregator, sent[-1], identity).receipt
    check_all(aggregator, chain, len(sent), sent)


def _messages(aggregator: Any, relay: Any, chain: Any, identity: Any, sent: list[bytes]) -> int:
    """Return how many messages an append has; one batch more is stored by it."""
    relay.plan = plan = Plan(10_000)
    insist(aggregator, sent[-1], identity)
    sent.append(chain.take(1))
    return len(plan.seen)


def test_an_aggregator_that_hangs_with_a_host_in_hand_holds_up_no_other(
    home: Any, cluster: Cluster, monkeypatch
):
    monkeypatch.setitem(postgresql._SESSION, "idle_in_transaction_session_timeout", "300ms")
    close_databases()
    data = home("one")
    control, objects = open_control(data), open_objects(data)
    chain = Chain()
    identity = enrol(control, chain)
    hanging = open_ledger(data, objects)
    other = Aggregator(home("two"), control)
    with hanging.held({chain.origin}) as ours:
        assert ours == {chain.origin}
        first = chain.take(1)
        assert insist_for_long(other, first, identity).receipt
        # It comes to itself, and has nothing any more.
        accept = _accepted(first, identity, hanging, control)
        with pytest.raises((UnavailableError, RecordError)):
            hanging.append([accept])
    assert positions(other) == [1]
    other.close()
    hanging.close()
    control.close()
    objects.close()
    close_databases()


def test_a_host_that_another_has_in_hand_comes_again_and_the_rest_is_served(pair: Any):
    one, two = pair
    busy, free = Chain(), Chain(origin="h-free")
    identities = [enrol(one.control, chain) for chain in (busy, free)]
    first = busy.take(1)
    objects = open_objects(one.data)
    other = open_ledger(one.data, objects)
    with other.held({busy.origin}) as ours:
        assert ours == {busy.origin}
        answer = two.send(first, identities[0])
        assert isinstance(answer, UnavailableError)
        assert "in hand" in str(answer)
        assert insist(two, free.take(1), identities[1]).receipt
    assert insist(two, first, identities[0]).receipt
    other.close()
    objects.close()


def insist_for_long(aggregator: Any, data: bytes, identity: Identity) -> Answer:
    done = threading.Event()
    for _ in range(200):
        answer = aggregator.send(data, identity)
        if isinstance(answer, Answer):
            return answer
        done.wait(0.05)
    raise AssertionError("the lock never fell")


def _accepted(data: bytes, identity: Identity, ledger: Any, control: Any) -> Any:
    from aesp_proxy.aggregator.ingest import Accept, IngestLimits, judge
    from aesp_proxy.aggregator.writer import Stores, _Group

    group = _Group(Stores(ledger=ledger, control=control, objects=None))  # type: ignore[arg-type]
    found = judge(data, identity=identity, standing=group, limits=IngestLimits(), now_ns=2**60)
    assert isinstance(found, Accept), found
    return found.batch


def test_a_lock_that_another_holds_is_waited_for_so_long_and_then_said(
    home: Any, database: str, monkeypatch
):
    monkeypatch.setitem(postgresql._SESSION, "lock_timeout", "200ms")
    close_databases()
    data = home("one")
    control = open_control(data)
    chain = Chain()
    identity = enrol(control, chain)
    aggregator = Aggregator(data, control)
    with psycopg.connect(database) as other:
        other.execute("SELECT last FROM aesp_proxy.positions FOR UPDATE")
        answer = aggregator.send(first := chain.take(1), identity)
        assert isinstance(answer, UnavailableError)
        assert "LockNotAvailable" in str(answer)
    assert insist(aggregator, first, identity).receipt
    aggregator.close()
    control.close()
    close_databases()


def test_a_full_disk_is_said_and_taken_for_nothing_else():
    error = postgresql.translate(psycopg.errors.DiskFull("No space left on device: secret"))
    assert isinstance(error, RecordError)
    assert str(error) == "the database's disk is full (make room)"


@pytest.mark.parametrize(
    ("setting", "level"),
    [("fsync", "server"), ("full_page_writes", "server"), ("synchronous_commit", "database")],
)
def test_a_server_that_may_lose_what_it_has_committed_is_refused(
    home: Any, cluster: Cluster, database: str, setting: str, level: str
):
    data = home("one")
    close_databases()
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    if level == "server":
        cluster.execute(f"ALTER SYSTEM SET {setting} = off")
    else:
        cluster.execute(f'ALTER DATABASE "{name}" SET {setting} = off')
    cluster.execute("SELECT pg_reload_conf()")
    try:
        with pytest.raises(ConfigError, match=f"has {setting} off"):
            open_until_refused(data)
    finally:
        cluster.execute(f"ALTER SYSTEM RESET {setting}")
        cluster.execute(f'ALTER DATABASE "{name}" RESET {setting}')
        cluster.execute("SELECT pg_reload_conf()")
    close_databases()


def open_until_refused(data: DataDir) -> None:
    """Open again and again: a reload reaches new sessions after a moment."""
    for _ in range(200):
        open_control(data).close()
        close_databases()


def test_what_is_recorded_is_never_read_as_sql(home: Any, cluster: Cluster, database: str):
    data = home("one")
    control, exports = open_control(data), open_exports(data)
    chain = Chain()
    identity = Identity(role=Role.HOST, name=chain.origin)
    certificate = Certificate(fingerprint=b"f", identity=identity, issued_ns=1, not_after_ns=9)
    control.tokens.add(
        TokenTerms(
            fingerprint=b"t" * 32,
            made_ns=1,
            expires_ns=9,
            tenants=frozenset({HOSTILE}),
            labels=((HOSTILE, HOSTILE),),
        )
    )

    def admit(terms: TokenTerms) -> bytes:
        control.enrol_within(
            chain.origin,
            public_key=chain.public_key,
            tenants=terms.tenants,
            labels=terms.labels,
            certificate=certificate,
        )
        return b"certificate"

    control.tokens.use(b"t" * 32, origin=chain.origin, request=b"r", now_ns=2, admit=admit)
    assert control.origin(chain.origin).tenants == {HOSTILE}
    assert control.labels(chain.origin) == {HOSTILE: HOSTILE}
    assert control.origin(HOSTILE) is None
    assert control.tokens.take_back("'; DROP TABLE tokens") == 0
    control.note_refusals({(HOSTILE, HOSTILE): 2}, now_ns=1)
    assert [each.kind for each in control.refusals(HOSTILE)] == [HOSTILE]
    letter = DeadLetter(position=1, row=0, event=HOSTILE, reason=f"{HOSTILE}\0\ud800")
    exports.advance("soc", "live", Cursor(position=1), delivered=0, refused=[letter], now_ns=1)
    (kept,) = exports.dead_letters("soc", limit=9)
    assert kept.event == HOSTILE
    assert kept.reason == f"{HOSTILE}\ufffd?"
    exports.note_failure("soc", HOSTILE, now_ns=1, next_try_ns=2)
    assert exports.health("soc").last_error == HOSTILE
    assert cluster.execute("SELECT count(*) FROM aesp_proxy.origins", url=database) == [(1,)]
    control.close()
    exports.close()


def test_tables_are_made_once_and_a_newer_layout_is_not_touched(home: Any, cluster: Cluster):
    url = cluster.new_database()
    homes = [home(f"a{number}", url) for number in range(4)]
    servers = [postgresql.Server(url, where="stores.yaml") for _ in homes]
    made = at_once(*(lambda server=server: server.connect().close() for server in servers))
    assert made == [None] * 4
    # Who may only read and write needs no right to make tables.
    cluster.execute("CREATE ROLE plain LOGIN", url=url)
    cluster.execute("GRANT USAGE ON SCHEMA aesp_proxy TO plain", url=url)
    cluster.execute("GRANT SELECT ON ALL TABLES IN SCHEMA aesp_proxy TO plain", url=url)
    postgresql.Server(url.replace("aesp@", "plain@"), where="s").connect().close()
    cluster.execute("UPDATE aesp_proxy.layout SET version = 99", url=url)
    with pytest.raises(ConfigError, match="layout 99"):
        open_control(homes[0])


def test_a_lease_is_one_aggregators_and_falls_with_its_connection(home: Any, cluster: Cluster):
    one, two = open_leases(home("one")), open_leases(home("two"))
    lease = one.take("export:soc")
    assert lease is not None
    assert lease.held()
    assert two.take("export:soc") is None
    two.take("export:other").release()
    cluster.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'aesp-proxy'"
    )
    taken = until(lambda: two.take("export:soc"))
    assert not lease.held()
    taken.release()
    until(lambda: one.take("export:soc")).release()
    close_databases()


def note_of(size: int) -> Note:
    return KEYS.sign(Checkpoint(origin=KEYS.origin, size=size, root=bytes(32)).text)


def test_who_wakes_after_its_lease_was_taken_over_changes_no_checkpoint(
    home: Any, cluster: Cluster
):
    """Also who is in the middle of a write: who takes over waits for its end."""
    data = {name: home(name) for name in ("one", "two")}
    objects = open_objects(data["one"])
    with contextlib.closing(objects), ThreadPoolExecutor(2) as pool:
        lease = open_leases(data["one"]).take("log")
        old = open_fence(data["one"], "log")
        asleep, wakes = threading.Event(), threading.Event()

        def nap() -> bool:
            asleep.set()
            return wakes.wait(30)

        writing = pool.submit(LogStore(objects, held=nap, turn=old.held).publish, note_of(1))
        assert asleep.wait(30)
        cluster.execute(END_LEASES)
        taken = until(lambda: open_leases(data["two"]).take("log"))
        taking = pool.submit(open_fence, data["two"], "log")
        until(lambda: cluster.execute(WAITING) != [(0,)])
        assert not taking.done()
        wakes.set()
        writing.result()
        new = taking.result()
        store = LogStore(objects, held=taken.held, turn=new.held)
        assert parse_checkpoint(store.published().text).size == 1
        store.publish(note_of(2))
        assert new.number == old.number + 1
        assert not lease.held()
        for act in (LogStore.publish, LogStore.keep_signed):
            with pytest.raises(TurnLostError, match="'log'"):
                act(LogStore(objects, turn=old.held), note_of(3))
        assert parse_checkpoint(store.published().text).size == 2
        assert store.signed() is None
        taken.release()
        old.close()
        new.close()
    close_databases()


def first_layout(cluster: Cluster) -> str:
    """Make a database as the first version left it, with something in it."""
    url = cluster.new_database()
    cluster.execute(
        "SET search_path = aesp_proxy; "
        + "; ".join(postgresql_layout.TABLES)
        + "; INSERT INTO layout VALUES (1); INSERT INTO lanes VALUES ('soc', 'live', 7, 3, NULL)",
        url=url,
    )
    return url


def layout_of(cluster: Cluster, url: str) -> list[Any]:
    return cluster.execute(
        "SELECT version, to_regclass('aesp_proxy.fences') IS NOT NULL FROM aesp_proxy.layout",
        url=url,
    )


def test_an_older_layout_is_led_up_once_by_all_that_meet_it_and_keeps_what_it_holds(
    home: Any, cluster: Cluster
):
    url = first_layout(cluster)
    assert layout_of(cluster, url) == [(1, False)]
    servers = [postgresql.Server(url, where="stores.yaml") for _ in range(4)]
    made = at_once(*(lambda server=server: server.connect().close() for server in servers))
    assert made == [None] * 4
    assert layout_of(cluster, url) == [(postgresql_layout.VERSION, True)]
    exports = open_exports(home("one", url))
    assert exports.cursor("soc") == Cursor(position=7, row=3)
    exports.take_turn("export:soc")
    exports.close()
    close_databases()


def test_a_step_that_fails_leaves_the_older_layout_as_it_was(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    url = first_layout(cluster)
    steps = (*postgresql_layout.STEPS, ("CREATE TABLE more (a integer)", "SELECT 1 / 0"))
    monkeypatch.setattr(postgresql_layout, "STEPS", steps)
    monkeypatch.setattr(postgresql_layout, "VERSION", 1 + len(steps))
    with pytest.raises(RecordError, match="DivisionByZero"):
        postgresql.Server(url, where="s").connect()
    assert layout_of(cluster, url) == [(1, False)]


def test_who_may_not_change_an_older_layout_is_told_who_does(cluster: Cluster):
    url = first_layout(cluster)
    cluster.execute(
        "CREATE ROLE writer LOGIN; GRANT USAGE ON SCHEMA aesp_proxy TO writer;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA aesp_proxy TO writer",
        url=url,
    )
    with pytest.raises(ConfigError, match="may not make it") as told:
        postgresql.Server(url.replace("aesp@", "writer@"), where="s").connect()
    assert "aggregator check" in told.value.remedy
    assert layout_of(cluster, url) == [(1, False)]
    postgresql.Server(url, where="s").connect().close()
    assert layout_of(cluster, url) == [(postgresql_layout.VERSION, True)]


def until(ask: Callable[[], Any]) -> Any:
    for _ in range(200):
        with contextlib.suppress(AespError):
            if found := ask():
                return found
    raise AssertionError("it did not come to pass")


def test_who_joins_knows_the_hosts_and_signs_with_the_same_keys(home: Any):
    one = home("one")
    prepare(one.root, now=NOW)
    ensure_log_key(one)
    control = open_control(one)
    chain = Chain()
    enrol(control, chain)
    control.close()
    two = DataDir(one.root.parent / "two")
    assert join(two.root, one.root, now=NOW) == 1
    assert join(two.root, one.root, now=NOW) == 1  # again: nothing is lost
    for name in ("ca", "ca_key", "receipt_key", "log_key", "store_settings"):
        assert getattr(two, name).read_bytes() == getattr(one, name).read_bytes()
    for name in ("ca_key", "receipt_key", "log_key"):
        assert stat.S_IMODE(getattr(two, name).stat().st_mode) == 0o600
    assert two.origin_public(chain.origin).is_file()
    assert not two.server_key.exists()


def test_an_aggregator_moves_into_the_database_and_back_and_goes_on_there(
    cluster: Cluster, database: str, tmp_path: Path
) -> None:
    copies = unit_module("aggregator/test_copying")
    cluster.emptied(database)
    old = copies.make_aggregator(tmp_path / "old")
    rows, proof = copies.rows_of(old), copies.event_proof(old, "h-one/1/8")
    root = copies.elsewhere(tmp_path / "new")
    with (root / "stores.yaml").open("a") as settings:
        settings.write(f"database: {database}\n")
    new = copies.copied(root, old)
    copies.assert_same(old, rows, new, proof)
    # What counts up by itself goes on behind what came.
    assert (
        cluster.execute("SELECT last FROM aesp_proxy.positions", url=database)[0][0]
        == copies.BATCHES
    )
    letter = DeadLetter(position=9, row=0, event="h-one/1/9", reason="no")
    with contextlib.closing(open_exports(new)) as exports:
        exports.advance("soc", "live", Cursor(position=9), delivered=1, refused=[letter], now_ns=1)
        first, second = exports.dead_letters("soc", limit=9)
    assert second.id > first.id
    twice = copies.DataDir(tmp_path / "twice")
    twice.root.mkdir()
    twice.store_settings.write_bytes(new.store_settings.read_bytes())
    with pytest.raises(ConfigError, match="the database is that of"):
        copies.copied(twice.root, new)
    rows = copies.rows_of(new)
    with contextlib.closing(open_leases(new)) as leases:
        lease = leases.take("log")  # as an aggregator with another directory has it
        assert lease
        with pytest.raises(UnavailableError, match="serves this database"):
            copies.copied(tmp_path / "back", new)
        lease.release()
    copies.assert_same(new, rows, copies.copied(tmp_path / "back", new), proof)

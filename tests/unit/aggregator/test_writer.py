"""What the aggregator accepts, refuses, notes and keeps as evidence, on its real stores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from aesp_proxy.aggregator.identity import DataDir, ReceiptKey
from aesp_proxy.aggregator.ingest import IngestLimits, Refusal
from aesp_proxy.aggregator.ports import Identity, Notice, Role
from aesp_proxy.aggregator.store.control import Control
from aesp_proxy.aggregator.stores import open_control, open_ledger, open_objects
from aesp_proxy.aggregator.writer import Answer, Stores, Submission, Writer
from aesp_proxy.errors import AespError, RecordError, UnavailableError
from aesp_proxy.record.batch import Limits, SealedBatch, encode_batch, seal
from aesp_proxy.record.header import Flag, decode_header, encode_header, signed_message
from aesp_proxy.record.keyring import Rotation, rotation_record
from aesp_proxy.record.receipt import Receipt, verify_receipt
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem

START_NS = 1_800_000_000_000_000_000
NOW_NS = START_NS + 3_600 * 1_000_000_000


@dataclass
class Aggregator:
    """The accept path without HTTP: real files, a real database, the real thread."""

    data: DataDir
    control: Control
    limits: IngestLimits = field(default_factory=IngestLimits)

    def __post_init__(self) -> None:
        public_key, sign = signer_from_pem(new_private_pem())
        self.public_key = public_key
        self.key = ReceiptKey(key_id=key_id_of(public_key), public_key=public_key, sign=sign)
        self.stored_groups = 0
        self.open()

    def open(self) -> None:
        self.objects = open_objects(self.data)
        self.ledger = open_ledger(self.data, self.objects)
        # As in the server: the writer's thread has a connection of its own.
        self.writer_control = open_control(self.data)
        self.writer = Writer(
            Stores(ledger=self.ledger, control=self.writer_control, objects=self.objects),
            receipt_key=self.key,
            limits=self.limits,
            now_ns=lambda: NOW_NS,
            on_stored=self._count,
        )
        self.writer.start()

    def close(self) -> None:
        self.writer.stop()
        self.writer_control.close()
        self.ledger.close()
        self.objects.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def _count(self) -> None:
        self.stored_groups += 1

    def send_all(self, batches: list[bytes], identity: Identity) -> list[Answer | AespError]:
        answers: list[Answer | AespError | None] = [None] * len(batches)
        left = threading.Semaphore(0)

        def settle(place: int, answer: Answer | AespError) -> None:
            answers[place] = answer
            left.release()

        for place, data in enumerate(batches):
            self.writer.submit(
                Submission(
                    data=data,
                    identity=identity,
                    answer=lambda answer, at=place: settle(at, answer),
                    fail=lambda error, at=place: settle(at, error),
                )
            )
        for _ in batches:
            assert left.acquire(timeout=20)
        return [answer for answer in answers if answer is not None]

    def send(self, data: bytes, identity: Identity) -> Answer | AespError:
        return self.send_all([data], identity)[0]

    def receipt(self, data: bytes, identity: Identity) -> Receipt:
        answer = self.send(data, identity)
        assert isinstance(answer, Answer), answer
        assert answer.receipt is not None, answer.refusal
        return verify_receipt(answer.receipt, public_key=self.public_key, origin=identity.name)

    def refusal(self, data: bytes, identity: Identity) -> Any:
        answer = self.send(data, identity)
        assert isinstance(answer, Answer), answer
        assert answer.refusal is not None, "it was accepted"
        return answer.refusal

    def stored(self, origin: str, batch_no: int) -> bytes:
        place = self.ledger.find(origin, batch_no)
        assert place is not None
        return self.ledger.read(place)

    def files(self, origin: str) -> list[str]:
        directory = self.data.root / "batches" / origin
        names = directory.iterdir() if directory.exists() else []
        # Some stores add the hash of the header.
        return sorted(path.name.partition("-")[0].removesuffix(".batch") for path in names)


@pytest.fixture
def aggregator(stores: DataDir, control: Control) -> Iterator[Aggregator]:
    made = Aggregator(stores, control)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def small(stores: DataDir, control: Control) -> Iterator[Aggregator]:
    limits = Limits(batch_bytes_max=4096, inflated_bytes_max=2048, rows_max=8)
    made = Aggregator(stores, control, IngestLimits(batch=limits))
    try:
        yield made
    finally:
        made.close()


def resigned(chain: Any, batch: SealedBatch, **changes: Any) -> bytes:
    """Encode ``batch`` with a changed header that the origin's key has signed."""
    header = replace(decode_header(batch.header_bytes), **changes)
    header_bytes = encode_header(header)
    return encode_batch(
        replace(
            batch, header_bytes=header_bytes, signature=chain.key[1](signed_message(header_bytes))
        )
    )


def test_a_batch_that_holds_is_stored_as_it_came_and_receipted(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    data = chain.take()
    receipt = aggregator.receipt(data, identity)
    assert (receipt.batch_no, receipt.header_hash) == (1, chain.head.header_hash)
    assert aggregator.stored(chain.origin, 1) == data


def test_batches_that_wait_together_are_stored_with_one_append(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    batches = [chain.take() for _ in range(50)]
    answers = aggregator.send_all(batches, identity)
    assert all(isinstance(answer, Answer) and answer.receipt for answer in answers)
    assert aggregator.ledger.head(chain.origin).batch_no == 50
    assert aggregator.stored_groups < 50


def test_a_receipt_is_given_only_for_what_is_in_the_ledger(
    aggregator: Aggregator, chain: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = enrol(chain)
    first = chain.take()
    aggregator.receipt(first, identity)

    def full_disk(batches: Any) -> None:
        raise RecordError("no space left on device")

    monkeypatch.setattr(aggregator.ledger, "append", full_disk)
    second = chain.take()
    assert isinstance(aggregator.send(second, identity), RecordError)
    monkeypatch.undo()
    assert aggregator.ledger.head(chain.origin).batch_no == 1
    assert aggregator.receipt(second, identity).batch_no == 2


def test_a_failed_sync_promises_nothing_and_the_batch_is_taken_later(
    aggregator: Aggregator, chain: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = enrol(chain)
    data = chain.take()

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("aesp_proxy.aggregator.store.objects.os.fdatasync", fails)
    assert isinstance(aggregator.send(data, identity), RecordError)
    monkeypatch.undo()
    assert aggregator.ledger.head(chain.origin) is None
    assert aggregator.receipt(data, identity).batch_no == 1


def test_a_heartbeat_moves_the_chain_on(aggregator: Aggregator, chain: Any, enrol: Any) -> None:
    identity = enrol(chain)
    aggregator.receipt(chain.take(), identity)
    heartbeat = chain.take(0, rows=[], header={"flags": int(Flag.HEARTBEAT)})
    assert aggregator.receipt(heartbeat, identity).batch_no == 2
    assert aggregator.receipt(chain.take(), identity).batch_no == 3


def test_an_exact_duplicate_is_answered_again_and_stored_once(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    batches = [chain.take() for _ in range(3)]
    for data in batches:
        aggregator.receipt(data, identity)
    for data in batches:
        assert aggregator.receipt(data, identity).batch_no == 3
    assert aggregator.ledger.totals(chain.origin)[0] == 3


def test_a_duplicate_whose_body_was_changed_on_the_way_is_refused(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    data = chain.take()
    aggregator.receipt(data, identity)
    assert aggregator.refusal(data[:-1] + bytes([data[-1] ^ 1]), identity).kind is Refusal.CHANGED


def wrong_count(chain: Any) -> bytes:
    batch = chain.seal()
    return resigned(chain, batch, count=2)


def wrong_root(chain: Any) -> bytes:
    return resigned(chain, chain.seal(), root=bytes(32))


def wrong_body_hash(chain: Any) -> bytes:
    return resigned(chain, chain.seal(), body_hash=bytes(32))


def changed_body(chain: Any) -> bytes:
    data = encode_batch(chain.seal())
    return data[:-5] + bytes([data[-5] ^ 0x40]) + data[-4:]


def cut_off(chain: Any) -> bytes:
    return encode_batch(chain.seal())[:-10]


def bad_signature(chain: Any) -> bytes:
    batch = chain.seal()
    return encode_batch(replace(batch, signature=bytes(64)))


def unknown_key(chain: Any) -> bytes:
    public_key, sign = signer_from_pem(new_private_pem())
    chain.key = (public_key, sign)
    return encode_batch(chain.seal())


def seq_gap(chain: Any) -> bytes:
    chain.next_seq += 1
    return encode_batch(chain.seal())


def rows_out_of_order(chain: Any) -> bytes:
    rows = chain.rows(3)
    return encode_batch(chain.seal(3, rows=[rows[1], rows[0], rows[2]]))


def row_left_out(chain: Any) -> bytes:
    rows = chain.rows(4)
    return encode_batch(chain.seal(4, rows=[rows[0], rows[2], rows[3]]))


def row_not_canonical(chain: Any) -> bytes:
    rows = chain.rows(3)
    longer = rows[0][:3] + b"\xcd\x00" + rows[0][3:4] + rows[0][4:]
    return encode_batch(chain.seal(3, rows=[longer, *rows[1:]]))


def row_of_another_origin(chain: Any) -> bytes:
    rows = [row.replace(b"h-one", b"h-two") for row in chain.rows(3)]
    return encode_batch(chain.seal(3, rows=rows))


def foreign_tenant(chain: Any) -> bytes:
    return encode_batch(chain.seal(3, tenant_id="globex"))


def unknown_format(chain: Any) -> bytes:
    return resigned(chain, chain.seal(), format=2)


def unknown_magic(chain: Any) -> bytes:
    return encode_batch(chain.seal()).replace(b"AESPBAT1", b"AESPBAT2", 1)


def unknown_row_version(chain: Any) -> bytes:
    rows = chain.rows(3)
    assert rows[0][3] == 1
    return encode_batch(chain.seal(3, rows=[rows[0][:3] + b"\x02" + rows[0][4:], *rows[1:]]))


def not_a_batch(chain: Any) -> bytes:
    return b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("make", "kind", "status"),
    [
        (wrong_count, Refusal.CHANGED, 422),
        (wrong_root, Refusal.CHANGED, 422),
        (wrong_body_hash, Refusal.CHANGED, 422),
        (changed_body, Refusal.CHANGED, 422),
        (cut_off, Refusal.CHANGED, 422),
        (not_a_batch, Refusal.CHANGED, 422),
        (unknown_magic, Refusal.CHANGED, 422),
        (unknown_format, Refusal.NON_CANONICAL, 422),
        (unknown_row_version, Refusal.NON_CANONICAL, 422),
        (bad_signature, Refusal.BAD_SIGNATURE, 422),
        (unknown_key, Refusal.UNKNOWN_KEY, 403),
        (seq_gap, Refusal.SEQ_GAP, 422),
        (rows_out_of_order, Refusal.MISSING, 422),
        (row_left_out, Refusal.MISSING, 422),
        (row_not_canonical, Refusal.NON_CANONICAL, 422),
        (row_of_another_origin, Refusal.WRONG_KEY, 403),
        (foreign_tenant, Refusal.TENANT, 403),
    ],
)
def test_what_does_not_hold_is_refused_with_its_reason_and_leaves_nothing(
    aggregator: Aggregator,
    chain: Any,
    enrol: Any,
    make: Callable[[Any], bytes],
    kind: Refusal,
    status: int,
) -> None:
    identity = enrol(chain, tenants=("acme",))
    aggregator.receipt(chain.take(), identity)
    honest = chain.key
    refusal = aggregator.refusal(make(chain), identity)
    assert (refusal.kind, refusal.status) == (kind, status)
    assert aggregator.files(chain.origin) == ["0000000001"]
    assert aggregator.control.origin(chain.origin).quarantined_ns is None
    aggregator.restart()
    counted = {item.kind: item.count for item in aggregator.control.refusals(chain.origin)}
    assert counted == {kind.value: 1}
    chain.key, chain.next_seq = honest, 4
    assert aggregator.receipt(chain.take(tenant_id="acme"), identity).batch_no == 2


def test_an_epoch_that_has_ended_does_not_come_again(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    aggregator.receipt(chain.take(header={"flags": int(Flag.EPOCH_ENDED)}), identity)
    replayed = encode_batch(chain.seal())
    assert aggregator.refusal(replayed, identity).kind is Refusal.REPLAYED


def test_a_gap_is_refused_with_the_number_to_resume_from(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    first, second, third = chain.take(), chain.take(), chain.take()
    refusal = aggregator.refusal(third, identity)
    assert (refusal.kind, refusal.status, refusal.resume_from) == (Refusal.GAP, 409, 1)
    aggregator.receipt(first, identity)
    assert aggregator.refusal(third, identity).resume_from == 2
    aggregator.receipt(second, identity)
    assert aggregator.receipt(third, identity).batch_no == 3


def test_a_certificate_ships_for_its_own_origin_only(
    aggregator: Aggregator, chain: Any, new_chain: Any, enrol: Any
) -> None:
    other = new_chain(origin="h-two")
    enrol(chain)
    stranger = enrol(other)
    assert aggregator.refusal(chain.take(), stranger).kind is Refusal.OTHER_ORIGIN


def test_a_reader_does_not_ship(aggregator: Aggregator, chain: Any, enrol: Any) -> None:
    enrol(chain)
    reader = Identity(role=Role.READER, name=chain.origin)
    assert aggregator.refusal(chain.take(), reader).kind is Refusal.NOT_A_HOST


def test_an_origin_that_is_not_enrolled_is_refused(aggregator: Aggregator, chain: Any) -> None:
    identity = Identity(role=Role.HOST, name=chain.origin)
    assert aggregator.refusal(chain.take(), identity).kind is Refusal.UNKNOWN_ORIGIN


def test_another_origins_key_is_refused_as_such(
    aggregator: Aggregator, chain: Any, new_chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    other = new_chain(origin="h-two")
    enrol(other)
    chain.key = other.key
    assert aggregator.refusal(chain.take(), identity).kind is Refusal.FOREIGN_KEY


def test_two_batches_with_one_number_are_a_fork_kept_as_evidence_for_ever(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    aggregator.receipt(chain.take(), identity)
    other_history = encode_batch(chain.seal(2))
    stored = chain.take(3)
    aggregator.receipt(stored, identity)
    refusal = aggregator.refusal(other_history, identity)
    assert (refusal.kind, refusal.status) == (Refusal.FORK, 409)
    aggregator.restart()
    (evidence,) = aggregator.control.evidence(chain.origin)
    assert (aggregator.data.root / evidence.stored_key).read_bytes() == stored
    assert (aggregator.data.root / evidence.offered_key).read_bytes() == other_history
    assert aggregator.control.origin(chain.origin).quarantined_ns == NOW_NS
    assert aggregator.refusal(chain.take(), identity).kind is Refusal.QUARANTINED


def test_a_wrong_predecessor_is_a_fork(aggregator: Aggregator, chain: Any, enrol: Any) -> None:
    identity = enrol(chain)
    first = chain.take()
    aggregator.receipt(first, identity)
    branch = encode_batch(chain.seal(header={"prev_hash": bytes([7]) * 32}))
    assert aggregator.refusal(branch, identity).kind is Refusal.FORK
    (evidence,) = aggregator.control.evidence(chain.origin)
    assert (aggregator.data.root / evidence.stored_key).read_bytes() == first
    assert (aggregator.data.root / evidence.offered_key).read_bytes() == branch


def test_a_fork_within_one_group_keeps_the_first_and_stops_the_rest(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    other_history = encode_batch(chain.seal(2))
    first, second = chain.take(3), chain.take(3)
    answers = aggregator.send_all([first, other_history, second], identity)
    kinds = [getattr(getattr(answer, "refusal", None), "kind", None) for answer in answers]
    assert kinds == [None, Refusal.FORK, Refusal.QUARANTINED]
    assert aggregator.files(chain.origin) == ["0000000001"]


def test_only_the_origins_own_key_can_put_it_into_quarantine(
    aggregator: Aggregator, chain: Any, new_chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    forged = new_chain(origin=chain.origin)
    aggregator.receipt(chain.take(), identity)
    batch = forged.seal(2)
    named = resigned(forged, batch, key_id=key_id_of(chain.public_key))
    assert aggregator.refusal(named, identity).kind is Refusal.BAD_SIGNATURE
    assert aggregator.control.origin(chain.origin).quarantined_ns is None


def test_evidence_of_one_origin_is_bounded(aggregator: Aggregator, chain: Any, enrol: Any) -> None:
    identity = enrol(chain)
    branches = [encode_batch(chain.seal(1, message=f"history {n}")) for n in range(20)]
    aggregator.receipt(chain.take(), identity)
    for branch in branches:
        assert aggregator.refusal(branch, identity).kind is Refusal.FORK
    assert len(aggregator.control.evidence(chain.origin)) == 16
    assert len(aggregator.control.origins()) == 1


def test_a_released_origin_goes_on_and_the_evidence_stays(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    branch = encode_batch(chain.seal(2))
    aggregator.receipt(chain.take(), identity)
    aggregator.refusal(branch, identity)
    following = chain.take()
    assert aggregator.refusal(following, identity).kind is Refusal.QUARANTINED
    assert aggregator.control.release(chain.origin)
    assert aggregator.receipt(following, identity).batch_no == 2
    assert len(aggregator.control.evidence(chain.origin)) == 1


def test_a_key_that_the_old_one_named_signs_from_the_next_batch_on(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    old = chain.key
    new = signer_from_pem(new_private_pem())
    rotation = rotation_record(
        Rotation(public_key=new[0], from_batch=2), old_key_id=key_id_of(old[0]), time_ns=START_NS
    )
    fields = {name: getattr(rotation, name) for name in rotation.__dataclass_fields__}
    handover = chain.take(1, **fields)
    chain.key = new
    following = chain.take()
    answers = aggregator.send_all([handover, following], identity)
    assert all(isinstance(answer, Answer) and answer.receipt for answer in answers)
    aggregator.restart()
    chain.key = old
    assert aggregator.refusal(encode_batch(chain.seal()), identity).kind is Refusal.RETIRED_KEY
    chain.key = new
    assert aggregator.receipt(chain.take(), identity).batch_no == 3


def test_a_key_that_is_anothers_cannot_be_named(
    aggregator: Aggregator, chain: Any, new_chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    other = new_chain(origin="h-two")
    enrol(other)
    rotation = rotation_record(
        Rotation(public_key=other.public_key, from_batch=2), old_key_id="k-old", time_ns=START_NS
    )
    fields = {name: getattr(rotation, name) for name in rotation.__dataclass_fields__}
    assert aggregator.refusal(chain.take(1, **fields), identity).kind is Refusal.FOREIGN_KEY


@pytest.mark.parametrize(
    ("header", "notice"),
    [
        ({"sealed_wall_ns": NOW_NS + 86_400 * 10**9}, Notice.CLOCK_AHEAD),
        ({"sealed_wall_ns": START_NS - 3600 * 10**9}, Notice.CLOCK_BACK),
        ({"flags": int(Flag.UNCLEAN)}, Notice.UNCLEAN_RESTART),
        ({"dropped": 7}, Notice.LOSSES),
    ],
)
def test_what_is_odd_but_signed_is_accepted_and_noted(
    aggregator: Aggregator, chain: Any, enrol: Any, header: dict[str, Any], notice: Notice
) -> None:
    identity = enrol(chain)
    aggregator.receipt(chain.take(), identity)
    aggregator.receipt(chain.take(header=header), identity)
    aggregator.restart()
    noted = [(item.batch_no, item.notice) for item in aggregator.ledger.notices(chain.origin)]
    assert noted == [(2, notice)]


def test_a_header_from_tomorrow_shuts_out_none_that_comes_after_it(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    day_ns = 86_400 * 10**9
    for stamp_ns in (NOW_NS + 365 * day_ns, NOW_NS, NOW_NS + 1):
        aggregator.receipt(chain.take(header={"sealed_wall_ns": stamp_ns, "flags": 0}), identity)
    noted = [(item.batch_no, item.notice) for item in aggregator.ledger.notices(chain.origin)]
    assert noted == [(1, Notice.CLOCK_AHEAD), (2, Notice.CLOCK_BACK)]


@pytest.mark.parametrize("dropped", [(1 << 63) - 1, 1 << 40])
def test_absurd_losses_are_noted_or_refused_and_the_writer_goes_on(
    aggregator: Aggregator, chain: Any, new_chain: Any, enrol: Any, dropped: int
) -> None:
    identity, other = enrol(chain), new_chain(origin="h-two")
    honest = enrol(other)
    aggregator.receipt(chain.take(header={"dropped": dropped}), identity)
    following = encode_batch(chain.seal(header={"dropped": dropped}))
    if dropped > 1 << 60:
        assert aggregator.refusal(following, identity).kind is Refusal.OVERSIZE
    else:
        aggregator.receipt(following, identity)
    assert aggregator.receipt(other.take(), honest).batch_no == 1
    aggregator.restart()
    assert aggregator.receipt(other.take(), honest).batch_no == 2


def test_a_batch_over_the_limits_is_refused_before_it_is_inflated(
    small: Aggregator, chain: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = enrol(chain)

    class Inflater:
        def __init__(self) -> None:
            pytest.fail("it was inflated")

    monkeypatch.setattr("aesp_proxy.record.batch.zstandard.ZstdDecompressor", Inflater)
    assert small.refusal(bytes(4097), identity).kind is Refusal.OVERSIZE
    assert small.refusal(encode_batch(chain.seal(9)), identity).kind is Refusal.OVERSIZE
    bomb = encode_batch(chain.seal(1, message="a" * 60_000))
    assert len(bomb) < 4096
    refusal = small.refusal(bomb, identity)
    assert (refusal.kind, refusal.status) == (Refusal.OVERSIZE, 413)


def test_a_body_that_inflates_to_more_than_it_declares_is_refused(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    bomb = chain.seal(1, message="a" * 60_000)
    lying = resigned(chain, bomb, inflated_bytes=1000)
    assert aggregator.refusal(lying, identity).kind is Refusal.CHANGED


def test_what_a_crash_left_past_the_head_is_removed_at_the_next_start(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    aggregator.receipt(chain.take(), identity)
    directory = aggregator.data.root / "batches" / chain.origin
    (directory / "0000000002.batch").write_bytes(b"never promised")
    (directory / "0000000003.batch.part").write_bytes(b"half")
    aggregator.restart()
    assert aggregator.ledger.remove_unpromised([chain.origin]) == 2
    assert aggregator.files(chain.origin) == ["0000000001"]
    assert aggregator.receipt(chain.take(), identity).batch_no == 2


def test_heads_and_receipts_survive_a_restart(
    aggregator: Aggregator, chain: Any, enrol: Any
) -> None:
    identity = enrol(chain)
    for _ in range(3):
        aggregator.receipt(chain.take(), identity)
    aggregator.restart()
    kept = verify_receipt(aggregator.ledger.receipt(chain.origin), public_key=aggregator.public_key)
    assert kept.batch_no == 3
    assert aggregator.receipt(chain.take(), identity).batch_no == 4


def test_a_writer_that_has_ended_says_so_and_leaves_nobody_waiting(
    aggregator: Aggregator, chain: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = enrol(chain)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("aesp_proxy.aggregator.writer.judge", broken)
    assert isinstance(aggregator.send(chain.take(), identity), UnavailableError)
    assert isinstance(aggregator.writer.failed, ZeroDivisionError)
    with pytest.raises(UnavailableError):
        aggregator.writer.submit(Submission(data=b"", identity=identity, answer=print, fail=print))


def test_a_queue_that_is_full_pushes_back(
    aggregator: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aesp_proxy.aggregator.writer.QUEUE_BATCHES_MAX", 0)
    identity = Identity(role=Role.HOST, name="h-one")
    with pytest.raises(UnavailableError):
        aggregator.writer.submit(Submission(data=b"", identity=identity, answer=print, fail=print))


def test_sealing_by_hand_gives_the_same_as_the_host(chain: Any) -> None:
    batch = chain.seal()
    header = decode_header(batch.header_bytes)
    assert seal(chain.rows(3), header=header, sign=chain.key[1]).header_bytes == batch.header_bytes

from __future__ import annotations

import pytest

from aesp_proxy.errors import UnavailableError
from aesp_proxy.forward.shipper import PAUSE_S_MAX, Shipped, pause_s
from aesp_proxy.forward.transport import Answer
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.state import numbered_batches


def numbers(line) -> list[int]:
    return [number for number, _ in numbered_batches(line.host.paths.batches)]


def fault_of(line) -> Fault:
    with pytest.raises(ChainError) as caught:
        line.shipper.ship_once()
    return caught.value.kind


def test_everything_sealed_is_shipped_once_and_covered(line) -> None:
    line.host.seal(4)
    assert line.shipper.ship_once() == Shipped(sent=4, covered=4, waiting=0)
    assert line.shipper.ship_once() == Shipped(sent=0, covered=4, waiting=0)
    line.host.seal()
    assert line.shipper.ship_once() == Shipped(sent=1, covered=5, waiting=0)
    assert line.region.posted == [1, 2, 3, 4, 5]


def test_nothing_sealed_is_nothing_to_do(line) -> None:
    assert line.shipper.ship_once() == Shipped(sent=0, covered=0, waiting=0)


def test_a_lost_answer_is_asked_for_again_and_stored_once(line) -> None:
    line.host.seal(2)
    line.region.trouble = [lambda: None]
    with pytest.raises(UnavailableError):
        line.shipper.ship_once()
    assert line.shipper.ship_once().covered == 2
    assert line.region.posted == [1, 1, 2]
    assert len(line.region.batches) == 2


@pytest.mark.parametrize("status", [301, 408, 429, 500, 502, 503])
def test_a_passing_trouble_keeps_everything(line, make_problem, status: int) -> None:
    line.host.seal(2)
    line.region.trouble = [lambda: make_problem(status)]
    with pytest.raises(UnavailableError):
        line.shipper.ship_once()
    assert numbers(line) == [1, 2]
    assert line.shipper.ship_once().covered == 2


def test_shipping_goes_on_where_a_restored_aggregator_says(line, host, region) -> None:
    line.host.seal(5)
    line.shipper.ship_once()
    region.head, region.batches = type(region)(host.key.public_key).head, []
    line.host.seal()
    assert line.shipper.ship_once() == Shipped(sent=7, covered=6, waiting=0)
    assert region.posted[5:] == [6, 1, 2, 3, 4, 5, 6]


def test_an_aggregator_that_lost_what_was_released_is_told(line, host, region) -> None:
    line.host.seal(3)
    line.shipper.ship_once()
    host.paths.batch(1).unlink()
    region.head, region.batches = type(region)(host.key.public_key).head, []
    line.host.seal()
    assert fault_of(line) is Fault.MISSING


def test_an_aggregator_that_asks_for_the_same_batch_for_ever_is_not_obeyed_for_ever(
    line, make_problem
) -> None:
    line.host.seal(3)
    line.region.trouble = [lambda: make_problem(409, code="gap", resume_from=1)] * 50
    with pytest.raises(UnavailableError, match="again and again"):
        line.shipper.ship_once()


@pytest.mark.parametrize("resume_from", [0, -1, 99])
def test_a_batch_that_was_never_sealed_is_not_sent(line, make_problem, resume_from: int) -> None:
    line.host.seal(2)
    line.region.trouble = [lambda: make_problem(409, code="gap", resume_from=resume_from)]
    assert fault_of(line) is Fault.FORKED


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "fork", Fault.FORKED),
        (403, "unknown_key", Fault.WRONG_KEY),
        (413, "too_large", Fault.OVERSIZE),
        (422, "changed", Fault.CHANGED),
        (409, "", Fault.CHANGED),
    ],
)
def test_a_refusal_for_good_is_said_and_keeps_everything(
    line, make_problem, status: int, code: str, kind: Fault
) -> None:
    line.host.seal(2)
    line.region.trouble = [lambda: make_problem(status, code=code)]
    assert fault_of(line) is kind
    assert numbers(line) == [1, 2]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"code": 5}', b"\xff", b"[" * 60_000])
def test_an_answer_that_is_no_problem_document_is_a_refusal_without_a_word(
    line, body: bytes
) -> None:
    line.host.seal(1)
    line.region.trouble = [lambda: Answer(status=422, body=body)]
    assert fault_of(line) is Fault.CHANGED


@pytest.mark.parametrize("body", [b"", b"garbage", b"\x92\xc4\x00\xc4\x00"])
def test_an_answer_that_is_no_receipt_covers_nothing(line, body: bytes) -> None:
    line.host.seal(1)
    line.region.trouble = [lambda: Answer(status=200, body=body)]
    assert fault_of(line) is Fault.NON_CANONICAL
    assert line.spool.covered() is None


def test_a_receipt_of_another_key_covers_nothing(line, host) -> None:
    line.host.seal(1)
    thief = type(line.region)(host.key.public_key)
    line.region.trouble = [
        lambda: thief.receipt(batch_no=1, header_hash=b"\x00" * 32),
    ]
    assert fault_of(line) is Fault.WRONG_KEY
    assert line.spool.covered() is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"batch_no": 9}, Fault.FORKED),
        ({"batch_no": 1, "header_hash": b"\x01" * 32}, Fault.FORKED),
        ({"batch_no": 1, "origin": "h-other"}, Fault.REPLAYED),
    ],
)
def test_a_receipt_for_another_history_covers_nothing(line, changes, kind: Fault) -> None:
    line.host.seal(2)
    line.region.trouble = [lambda: line.region.receipt(**changes)]
    assert fault_of(line) is kind
    assert line.spool.covered() is None


def test_an_older_receipt_never_replaces_a_newer_one(line) -> None:
    line.host.seal(3)
    line.shipper.ship_once()
    older = line.region.receipt(batch_no=1, header_hash=line.region.hash_of(1))
    line.spool.store(older.body)
    covered = line.spool.covered()
    assert covered is not None
    assert covered.batch_no == 3


def test_a_damaged_receipt_on_disk_is_said(line, host) -> None:
    line.host.seal(1)
    line.shipper.ship_once()
    host.paths.receipt.write_bytes(b"damaged")
    assert fault_of(line) is Fault.NON_CANONICAL


def test_batches_stay_half_an_hour_after_their_receipt(line) -> None:
    line.now_s = 1_792_000_000.0
    line.host.seal(3)
    line.shipper.ship_once()
    line.now_s += 29 * 60
    line.host.seal(1)
    line.shipper.ship_once()
    assert numbers(line) == [1, 2, 3, 4]
    line.now_s += 2 * 60
    line.shipper.ship_once()
    assert numbers(line) == [4]
    line.now_s += 60 * 60
    line.shipper.ship_once()
    assert numbers(line) == []
    line.host.seal(1)
    assert line.shipper.ship_once().covered == 5


def test_what_no_receipt_covers_is_never_released(line) -> None:
    line.host.seal(3)
    assert line.spool.release(now_s=10**12) == 0
    assert numbers(line) == [1, 2, 3]


def test_a_forged_kept_receipt_releases_nothing(line, host) -> None:
    line.host.seal(3)
    (host.paths.receipts / "0000000003.receipt").write_bytes(b"forged")
    with pytest.raises(ChainError):
        line.spool.release(now_s=10**12)
    assert numbers(line) == [1, 2, 3]


def test_only_what_the_durable_head_names_is_sent(line, host) -> None:
    line.host.seal(2)
    head = host.paths.head.read_bytes()
    line.host.seal(1)
    host.paths.head.write_bytes(head)
    assert line.shipper.ship_once().covered == 2
    assert line.region.posted == [1, 2]


def test_shipping_stops_between_batches_when_told(line) -> None:
    line.host.seal(3)
    left = [True, True, False]
    assert line.shipper.ship_once(keep_going=lambda: left.pop(0)) == Shipped(
        sent=2, covered=2, waiting=1
    )


def test_pauses_grow_are_spread_and_bounded() -> None:
    assert pause_s(1, 0.999) <= 1
    assert pause_s(3, 0.0) > 0
    assert pause_s(3, 0.2) < pause_s(3, 0.9) < pause_s(5, 0.9)
    assert pause_s(10**6, 0.9999) <= PAUSE_S_MAX

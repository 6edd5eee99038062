"""One test for each word of ``Fault`` that a verifier of whole chains can say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aesp_proxy.model.record import RecordId
from aesp_proxy.record.batch import decode_batch, encode_batch
from aesp_proxy.record.canonical import decode_row, encode
from aesp_proxy.record.chain import ChainVerifier, Problem, Witness
from aesp_proxy.record.faults import Fault
from aesp_proxy.record.header import Flag
from aesp_proxy.record.keyring import KeyRing, KeySpan, Rotation, pinned, rotation_record
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem


def verify(chain, batches: list[bytes], *, named: bool = False, **options) -> list[Problem]:
    verifier = ChainVerifier(**{"keys": pinned(chain.public_key), **options})
    problems = []
    for number, data in enumerate(batches, start=1):
        problems += verifier.feed(f"place-{number}", data, number=number if named else 0)
    return problems + verifier.finish()


def kinds(problems: list[Problem]) -> list[Fault]:
    return [problem.kind for problem in problems]


@pytest.fixture
def five(chain):
    for _ in range(5):
        chain.add(3)
    return chain


def test_a_whole_chain_has_no_problem_and_is_counted(five) -> None:
    verifier = ChainVerifier(keys=pinned(five.public_key))
    for data in five.batches:
        assert verifier.feed("here", data) == []
    assert verifier.finish() == []
    assert (verifier.batch_count, verifier.record_count) == (5, 15)
    assert verifier.head == five.head


def test_changed_bytes_are_found_once_and_only_where_they_are(five) -> None:
    for at in (30, -1):
        data = bytearray(five.batches[2])
        data[at] ^= 1
        problems = verify(five, [*five.batches[:2], bytes(data), *five.batches[3:]], named=True)
        assert [problem.place for problem in problems] == ["place-3"]
        assert set(kinds(problems)) <= {Fault.CHANGED, Fault.NON_CANONICAL, Fault.WRONG_KEY}


def test_every_changed_byte_of_one_batch_is_found_in_its_place(five) -> None:
    first, second, third, *_ = five.batches
    for at in range(len(second)):
        changed = second[:at] + bytes([second[at] ^ 0x10]) + second[at + 1 :]
        problems = verify(five, [first, changed, third], named=True)
        assert problems, at
        assert {problem.place for problem in problems} == {"place-2"}, (at, problems)


def test_a_missing_batch_is_named(five) -> None:
    problems = verify(five, [*five.batches[:1], *five.batches[3:]])
    assert [(p.kind, p.batch_no) for p in problems] == [(Fault.MISSING, 2), (Fault.MISSING, 3)]


def test_a_missing_beginning_is_named_unless_a_receipt_let_it_go(five) -> None:
    assert kinds(verify(five, five.batches[2:])) == [Fault.MISSING, Fault.MISSING]
    assert verify(five, five.batches[2:], released_to=2) == []
    assert kinds(verify(five, five.batches[2:], released_to=1)) == [Fault.MISSING]


def test_batches_out_of_order_are_reordered_and_not_missing(five) -> None:
    one, two, three, *rest = five.batches
    assert kinds(verify(five, [one, three, two, *rest])) == [Fault.REORDERED]


def test_a_batch_under_another_name_is_reordered(five) -> None:
    one, two, three, *rest = five.batches
    assert set(kinds(verify(five, [one, three, two, *rest], named=True))) == {Fault.REORDERED}


def test_a_replayed_batch_is_found(five) -> None:
    assert kinds(verify(five, [*five.batches, five.batches[1]])) == [Fault.REPLAYED]


def test_two_batches_of_one_number_are_a_fork(five, chain) -> None:
    twin = replace(five, head=replace(five.head, batch_no=1), batches=[])
    twin.add(1)
    assert Fault.FORKED in kinds(verify(five, [*five.batches, twin.batches[0]]))


def test_another_predecessor_is_a_fork(five) -> None:
    twin = replace(five, head=replace(five.head, header_hash=b"\x07" * 32), batches=[])
    twin.add(1)
    assert kinds(verify(five, [*five.batches, twin.batches[0]])) == [Fault.FORKED]


def test_a_cut_off_end_is_found_by_what_a_receipt_remembers(five) -> None:
    witness = Witness(name="receipt", batch_no=5, header_hash=five.head.header_hash)
    assert verify(five, five.batches, witnesses=(witness,)) == []
    problems = verify(five, five.batches[:4], witnesses=(witness,))
    assert [(p.kind, p.batch_no) for p in problems] == [(Fault.TRUNCATED, 5)]
    assert kinds(verify(five, [], witnesses=(witness,))) == [Fault.TRUNCATED]


def test_a_receipt_for_another_history_is_a_fork(five) -> None:
    witness = Witness(name="receipt", batch_no=5, header_hash=b"\x01" * 32)
    assert kinds(verify(five, five.batches, witnesses=(witness,))) == [Fault.FORKED]


def test_a_clock_that_goes_back_is_found_and_a_small_step_is_not(chain) -> None:
    chain.add(1)
    chain.wall_ns -= 2_000_000_000
    chain.add(1, boot_id="after a boot", flags=0)
    assert verify(chain, chain.batches) == []
    chain.wall_ns -= 10_000_000_000
    chain.add(1, boot_id="after another", flags=0)
    assert kinds(verify(chain, chain.batches)) == [Fault.CLOCK]


def test_a_monotonic_clock_that_goes_back_within_a_boot_is_found(chain) -> None:
    chain.add(1, sealed_mono_ns=500)
    chain.add(1, sealed_mono_ns=400)
    assert kinds(verify(chain, chain.batches)) == [Fault.CLOCK]


def test_an_unknown_key_is_a_wrong_key(five, new_chain) -> None:
    keys = pinned(new_chain().public_key)
    assert set(kinds(verify(five, five.batches, keys=keys))) == {Fault.WRONG_KEY}


def test_a_gap_in_the_sequence_is_found(chain) -> None:
    chain.add(2)
    chain.seal_rows(chain.rows(2, first_seq=7), first_seq=7)
    assert kinds(verify(chain, chain.batches)) == [Fault.SEQ_GAP]


def test_an_ended_epoch_that_comes_again_is_a_replay(chain) -> None:
    chain.add(2, flags=Flag.EPOCH_ENDED)
    chain.seal_rows(chain.rows(2), first_seq=3)
    assert kinds(verify(chain, chain.batches)) == [Fault.REPLAYED]


def test_an_epoch_that_was_passed_over_does_not_begin(chain) -> None:
    chain.seal_rows(chain.rows(1, epoch=5, first_seq=1), epoch=5, first_seq=1)
    chain.seal_rows(chain.rows(1, epoch=4, first_seq=1), epoch=4, first_seq=1)
    assert kinds(verify(chain, chain.batches)) == [Fault.REPLAYED]


def test_epochs_of_several_writers_interleave(chain) -> None:
    for epoch, first_seq in ((1, 1), (2, 1), (1, 3), (2, 3)):
        rows = chain.rows(2, epoch=epoch, first_seq=first_seq)
        chain.seal_rows(rows, epoch=epoch, first_seq=first_seq)
    assert verify(chain, chain.batches) == []


def test_declared_losses_are_a_problem_and_an_unclean_end_is_a_note(chain) -> None:
    chain.add(2)
    chain.seal_rows(
        chain.rows(1, first_seq=4), first_seq=4, lost=1, flags=Flag.EPOCH_ENDED | Flag.UNCLEAN
    )
    problems = verify(chain, chain.batches)
    assert {p.kind: p.is_note for p in problems} == {Fault.LOST: False, Fault.UNCLEAN: True}


def test_a_record_changed_under_the_signature_is_named(chain) -> None:
    rows = chain.rows(4)
    rows[2] = rows[2][:3] + b"\xcc\x01" + rows[2][4:]
    chain.seal_rows(rows)
    (problem,) = verify(chain, chain.batches)
    assert (problem.kind, problem.record) == (Fault.NON_CANONICAL, "1/3")


def _rotate(chain, from_batch: int) -> None:
    public_key, sign = signer_from_pem(new_private_pem())
    record = rotation_record(
        Rotation(public_key=public_key, from_batch=from_batch),
        old_key_id=key_id_of(chain.public_key),
        time_ns=5,
    )
    row = encode(record, RecordId(origin=chain.head.origin, epoch=1, seq=chain.seq))
    chain.seal_rows([row], first_time_ns=5, last_time_ns=5)
    chain.public_key, chain.sign = public_key, sign


def test_a_key_hands_over_by_a_record_that_it_signed(chain) -> None:
    keys = pinned(chain.public_key)
    chain.add(1)
    _rotate(chain, from_batch=3)
    chain.add(1)
    assert verify(chain, chain.batches, keys=keys) == []


def test_a_retired_key_signs_nothing_more(chain) -> None:
    keys = pinned(chain.public_key)
    old = (chain.public_key, chain.sign)
    _rotate(chain, from_batch=2)
    chain.public_key, chain.sign = old
    chain.add(1)
    problems = verify(chain, chain.batches, keys=keys)
    assert kinds(problems) == [Fault.WRONG_KEY]
    assert "retired" in problems[0].message


def test_a_key_cannot_be_named_for_any_but_the_next_batch(chain) -> None:
    keys = pinned(chain.public_key)
    _rotate(chain, from_batch=7)
    assert kinds(verify(chain, chain.batches, keys=keys)) == [Fault.WRONG_KEY]


def test_a_ring_knows_from_and_to() -> None:
    key = b"\x01" * 32
    ring = KeyRing(spans=(KeySpan(public_key=key, from_batch=3, to_batch=5),))
    assert ring.key_for(key_id_of(key), 4) == key
    for number in (2, 6):
        with pytest.raises(Exception, match="retired or not yet valid"):
            ring.key_for(key_id_of(key), number)


def test_batches_survive_being_taken_apart_and_put_together(five) -> None:
    assert [encode_batch(decode_batch(data)) for data in five.batches] == five.batches
    assert decode_row(five.rows(1)[0])

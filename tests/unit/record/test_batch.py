from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ormsgpack
import pytest
import zstandard

from aesp_proxy.record import merkle
from aesp_proxy.record.batch import (
    Limits,
    SealedBatch,
    decode_batch,
    encode_batch,
    open_body,
    verify_batch,
    verify_envelope,
)
from aesp_proxy.record.canonical import decode_row
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.head import Head
from aesp_proxy.record.header import Flag, decode_header, encode_header, signed_message

LIMITS = Limits()


def _fault(
    batch: SealedBatch, public_key: bytes, previous: Head | None = None, limits: Limits = LIMITS
) -> ChainError:
    with pytest.raises(ChainError) as caught:
        verify_batch(batch, public_key=public_key, previous=previous, limits=limits)
    return caught.value


def test_what_is_sealed_verifies_and_gives_its_rows_back(chain) -> None:
    rows = chain.rows(5)
    batch = chain.seal_rows(rows)
    verified = verify_batch(
        decode_batch(encode_batch(batch)), public_key=chain.public_key, previous=None
    )
    assert verified.rows == rows
    assert verified.values == [decode_row(row) for row in rows]
    assert verified.head == chain.head
    assert verified.notices == frozenset()
    assert verified.header.root == merkle.root(merkle.leaf_hashes(rows))


def test_an_empty_heartbeat_verifies(chain) -> None:
    batch = chain.seal_rows([], epoch=0, first_seq=0, flags=Flag.HEARTBEAT)
    verified = verify_batch(batch, public_key=chain.public_key, previous=None)
    assert verified.rows == []
    assert verified.head.next_seq == ()


def test_another_key_is_a_wrong_key(chain, new_chain: Callable[[], object]) -> None:
    assert _fault(chain.add(), new_chain().public_key).kind is Fault.WRONG_KEY


def test_a_header_that_names_a_key_it_is_not_signed_with_is_changed(chain, new_chain) -> None:
    thief = new_chain()
    batch = chain.add()
    forged = replace(batch, signature=thief.sign(signed_message(batch.header_bytes)))
    assert _fault(forged, chain.public_key).kind is Fault.CHANGED


def test_a_signature_for_something_else_is_no_signature_of_a_header(chain) -> None:
    batch = chain.add()
    undomained = replace(batch, signature=chain.sign(batch.header_bytes))
    assert _fault(undomained, chain.public_key).kind is Fault.CHANGED


def test_every_byte_of_a_batch_counts(chain) -> None:
    data = encode_batch(chain.add(2))
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        with pytest.raises(ChainError):
            verify_batch(decode_batch(changed), public_key=chain.public_key, previous=None)


def test_a_batch_cut_off_anywhere_is_refused(chain) -> None:
    data = encode_batch(chain.add(2))
    for end in range(len(data)):
        with pytest.raises(ChainError):
            decode_batch(data[:end])
    with pytest.raises(ChainError):
        decode_batch(data + b"\x00")


def test_a_changed_body_names_the_record(chain) -> None:
    rows = chain.rows(50)
    batch = chain.seal_rows(rows)
    header = decode_header(batch.header_bytes)
    inflated = bytearray(zstandard.ZstdDecompressor().decompress(batch.body))
    inflated[inflated.index(b"e-34")] ^= 1
    body = zstandard.ZstdCompressor(level=1).compress(bytes(inflated))
    error = _fault(replace(batch, body=body), chain.public_key)
    assert (error.kind, error.row) == (Fault.CHANGED, 33)
    assert header.first_seq + error.row == 34


def _resigned(chain, batch: SealedBatch, **changes: object) -> SealedBatch:
    """What a thief with the key could write."""
    header = replace(decode_header(batch.header_bytes), **changes)
    header_bytes = encode_header(header)
    return replace(
        batch, header_bytes=header_bytes, signature=chain.sign(signed_message(header_bytes))
    )


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"root": bytes(32)}, Fault.CHANGED),
        ({"body_hash": bytes(32)}, Fault.CHANGED),
        ({"body_bytes": 1}, Fault.CHANGED),
        ({"inflated_bytes": 1}, Fault.CHANGED),
        ({"count": 2}, Fault.CHANGED),
        ({"count": 4}, Fault.CHANGED),
        ({"first_time_ns": 1}, Fault.CHANGED),
        ({"prev_hash": b"\x01" * 32}, Fault.FORKED),
        ({"first_seq": 2}, Fault.SEQ_GAP),
        ({"first_seq": 2, "lost": 1}, Fault.REORDERED),
        ({"batch_no": 2}, Fault.MISSING),
        ({"epoch": 2}, Fault.WRONG_KEY),
        ({"count": 10**9}, Fault.OVERSIZE),
        ({"inflated_bytes": 2**40}, Fault.OVERSIZE),
        ({"format": 2}, Fault.NON_CANONICAL),
        ({"flags": 1 << 20}, Fault.NON_CANONICAL),
        ({"origin": "../../etc"}, Fault.NON_CANONICAL),
        ({"origin": ""}, Fault.NON_CANONICAL),
        ({"batch_no": 0}, Fault.NON_CANONICAL),
        ({"root": b"short"}, Fault.NON_CANONICAL),
        ({"lost": -1}, Fault.NON_CANONICAL),
        ({"policy_hash": "x" * 300}, Fault.NON_CANONICAL),
        ({"count": 1.5}, Fault.NON_CANONICAL),
    ],
    ids=str,
)
def test_a_header_that_lies_is_found_even_when_signed(
    chain, changes: dict[str, object], kind: Fault
) -> None:
    batch = chain.add(3)
    assert _fault(_resigned(chain, batch, **changes), chain.public_key).kind is kind


def test_rows_out_of_sequence_are_found_even_when_signed(chain) -> None:
    rows = chain.rows(3)
    for wrong, kind in (
        ([rows[0], rows[2]], Fault.MISSING),
        ([rows[0], rows[0]], Fault.REORDERED),
        ([rows[1], rows[0]], Fault.MISSING),
    ):
        maker = replace(chain, batches=[], seq=1)
        batch = maker.seal_rows(wrong, last_time_ns=decode_row(wrong[-1])[3])
        assert _fault(batch, chain.public_key).kind is kind


def test_rows_that_are_not_canonical_are_found_even_when_signed(chain) -> None:
    rows = chain.rows(3)
    rows[1] = rows[1][:3] + b"\xcc\x01" + rows[1][4:]
    error = _fault(chain.seal_rows(rows), chain.public_key)
    assert (error.kind, error.row) == (Fault.NON_CANONICAL, 1)


def test_rows_of_another_origin_are_found_even_when_signed(chain, new_chain) -> None:
    other = new_chain()
    other.head = replace(other.head, origin="h-other")
    assert _fault(chain.seal_rows(other.rows(2)), chain.public_key).kind is Fault.WRONG_KEY


def test_a_bomb_is_refused_before_it_is_inflated(chain) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 * 1024 * 1024))
    header = decode_header(chain.add(1).header_bytes)
    for declared in (200 * 1024 * 1024, 1000):
        with pytest.raises(ChainError) as caught:
            open_body(
                replace(header, inflated_bytes=declared),
                bomb,
                inflated_bytes_max=LIMITS.inflated_bytes_max,
                rows_max=10,
            )
        assert caught.value.kind in {Fault.OVERSIZE, Fault.CHANGED}


def test_too_many_rows_or_bytes_are_refused(chain) -> None:
    batch = chain.add(5)
    few_rows = replace(LIMITS, rows_max=4)
    assert _fault(batch, chain.public_key, limits=few_rows).kind is Fault.OVERSIZE
    with pytest.raises(ChainError) as caught:
        decode_batch(encode_batch(batch), bytes_max=50)
    assert caught.value.kind is Fault.OVERSIZE


def test_a_header_spelled_another_way_is_refused(chain) -> None:
    batch = chain.add(1)
    values = ormsgpack.unpackb(batch.header_bytes)
    longer = b"\xdc" + len(values).to_bytes(2, "big") + b"\xcc\x01" + batch.header_bytes[4:]
    assert decode_header(batch.header_bytes).format == 1
    with pytest.raises(ChainError) as caught:
        decode_header(longer)
    assert caught.value.kind is Fault.NON_CANONICAL


def test_the_envelope_is_checked_without_looking_at_rows(chain) -> None:
    batch = chain.add(3)
    header, head = verify_envelope(batch, public_key=chain.public_key, previous=None, limits=LIMITS)
    assert (header.count, head) == (3, chain.head)


def test_losses_and_unclean_ends_are_flagged_not_refused(chain) -> None:
    chain.add(2)
    before = chain.head
    batch = chain.seal_rows(
        chain.rows(1, first_seq=5), first_seq=5, lost=2, flags=Flag.EPOCH_ENDED | Flag.UNCLEAN
    )
    verified = verify_batch(batch, public_key=chain.public_key, previous=before)
    assert verified.notices == {Fault.LOST, Fault.UNCLEAN}
    assert verified.head.expected_seq(1) is None

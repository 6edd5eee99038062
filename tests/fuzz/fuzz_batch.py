"""Fuzz target: batches, headers, bodies and receipts: what was not signed never verifies.

The first byte chooses: a batch, a patch on one that holds, a header, a body
under a header that holds, a receipt, a patch on one that holds.
"""

from __future__ import annotations

import contextlib
from functools import cache

from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.batch import (
    Limits,
    SealedBatch,
    decode_batch,
    draft,
    encode_batch,
    open_body,
    seal,
    verify_batch,
)
from aesp_proxy.record.canonical import encode
from aesp_proxy.record.chain import ChainVerifier
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.head import genesis
from aesp_proxy.record.header import decode_header, encode_header
from aesp_proxy.record.keyring import pinned
from aesp_proxy.record.receipt import Receipt, encode_receipt, verify_receipt
from aesp_proxy.record.signature import Signer, key_id_of, new_private_pem, signer_from_pem

LIMITS = Limits(batch_bytes_max=65_536, inflated_bytes_max=131_072, rows_max=64)


class FindingError(AssertionError):
    """A promise that did not hold."""


@cache
def row() -> bytes:
    """Encode the one row of the batch."""
    record = Record(
        kind=RecordKind.LIFECYCLE,
        time_ns=1,
        event_type="t",
        action="a",
        outcome=Outcome.SUCCESS,
        verdict="",
        reason="",
        guard="",
        severity="info",
        message="m",
        resource="r",
    )
    return encode(record, RecordId(origin="h-fuzz", epoch=1, seq=1))


def patched(whole: bytes, patch: bytes) -> bytes:
    """Replace bytes of ``whole``: two bytes of place, one of value, and again; a cut at the end."""
    data = bytearray(whole)
    for at in range(0, len(patch) - 2, 3):
        data[int.from_bytes(patch[at : at + 2]) % len(data)] = patch[at + 2]
    return bytes(data[: len(data) - len(patch) % 3])


@cache
def key() -> tuple[bytes, Signer]:
    """Make the key, once."""
    return signer_from_pem(new_private_pem())


@cache
def whole() -> SealedBatch:
    """Seal the batch that the patches are made on."""
    header = draft(
        genesis("h-fuzz"),
        key_id=key_id_of(key()[0]),
        epoch=1,
        first_seq=1,
        wall_ns=1,
        mono_ns=1,
        boot_id="b",
        first_time_ns=1,
        last_time_ns=1,
    )
    return seal([row()], header=header, sign=key()[1])


@cache
def receipt() -> bytes:
    """Sign the receipt that the patches are made on."""
    return encode_receipt(
        Receipt(
            origin="h-fuzz",
            batch_no=1,
            header_hash=bytes(32),
            time_ns=1,
            key_id=key_id_of(key()[0]),
        ),
        key()[1],
    )


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or a ChainError is a finding."""
    choice, rest = data[:1], data[1:]
    with contextlib.suppress(ChainError):
        match choice:
            case b"\x00":
                check_batch(rest)
            case b"\x01":
                check_batch(patched(encode_batch(whole()), rest))
            case b"\x02":
                if encode_header(decode_header(rest)) != rest:
                    raise FindingError(rest)
            case b"\x03":
                header = decode_header(whole().header_bytes)
                open_body(header, rest, inflated_bytes_max=LIMITS.inflated_bytes_max, rows_max=64)
            case b"\x04":
                check_receipt(rest)
            case _:
                check_receipt(patched(receipt(), rest))


def check_batch(data: bytes) -> None:
    """Only the very bytes that were sealed verify; the chain verifier never raises."""
    verifier = ChainVerifier(keys=pinned(key()[0]), limits=LIMITS)
    problems = verifier.feed("fuzz", data) + verifier.finish()
    if not problems and data != encode_batch(whole()):
        raise FindingError(data)
    batch = decode_batch(data, bytes_max=LIMITS.batch_bytes_max)
    verify_batch(batch, public_key=key()[0], previous=None, limits=LIMITS)
    if batch != whole():
        raise FindingError(data)


def check_receipt(data: bytes) -> None:
    """Only the very bytes that were signed are a receipt."""
    verify_receipt(data, public_key=key()[0])
    if data != receipt():
        raise FindingError(data)

"""The aggregator's signed word that it holds a chain up to a batch.

Rules: signed only over what is durable and contiguous; the signature is over a
domain and the canonical array, so a receipt cannot pass for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ormsgpack

from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.header import NO_HASH, TEXT_CHARS_MAX
from aesp_proxy.record.signature import Signer, is_signed, key_id_of

RECEIPT_BYTES_MAX: Final = 2048
CONTENT_TYPE: Final = "application/vnd.aesp.receipt"
_DOMAIN: Final = b"aesp-proxy receipt v1\x00"
_TYPES: Final = [int, str, int, bytes, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is promised: batches 1 to ``batch_no`` of ``origin`` are durable.

    ``header_hash`` names the header of batch ``batch_no``; ``time_ns`` is the
    aggregator's wall clock; ``key_id`` names its signing key.
    """

    origin: str
    batch_no: int
    header_hash: bytes
    time_ns: int
    key_id: str


def _statement(receipt: Receipt) -> bytes:
    return ormsgpack.packb(
        (
            1,
            receipt.origin,
            receipt.batch_no,
            receipt.header_hash,
            receipt.time_ns,
            receipt.key_id,
        )
    )


def encode_receipt(receipt: Receipt, sign: Signer) -> bytes:
    """Sign and pack a receipt."""
    statement = _statement(receipt)
    return ormsgpack.packb((statement, sign(_DOMAIN + statement)))


def decode_receipt(data: bytes) -> tuple[Receipt, bytes]:
    """Unpack a receipt and its signature, unverified. ChainError(NON_CANONICAL) otherwise."""
    if len(data) > RECEIPT_BYTES_MAX:
        raise ChainError(Fault.OVERSIZE, f"the receipt is {len(data)} bytes")
    try:
        outer = ormsgpack.unpackb(data)
        if type(outer) is not list or list(map(type, outer)) != [bytes, bytes]:
            raise _bad()
        values = ormsgpack.unpackb(outer[0])
    except (ormsgpack.MsgpackDecodeError, RecursionError) as error:
        raise _bad() from error
    if type(values) is not list or list(map(type, values)) != _TYPES or values[0] != 1:
        raise _bad()
    if min(values[2], values[4]) < 0 or max(values[2], values[4]) >> 63:
        raise _bad()
    if len(values[1]) > TEXT_CHARS_MAX or len(values[3]) != len(NO_HASH):
        raise _bad()
    receipt = Receipt(
        origin=values[1],
        batch_no=values[2],
        header_hash=values[3],
        time_ns=values[4],
        key_id=values[5],
    )
    if _statement(receipt) != outer[0] or ormsgpack.packb(outer) != data:
        raise _bad()
    return receipt, outer[1]


def verify_receipt(data: bytes, *, public_key: bytes, origin: str | None = None) -> Receipt:
    """Check a receipt against the aggregator's pinned key (32 raw bytes).

    ChainError: WRONG_KEY for another key, CHANGED for a bad signature,
    REPLAYED for a receipt of another origin.
    """
    receipt, signature = decode_receipt(data)
    if receipt.key_id != key_id_of(public_key):
        raise ChainError(Fault.WRONG_KEY, f"the receipt is signed by {receipt.key_id}")
    if not is_signed(public_key, signature, _DOMAIN + _statement(receipt)):
        raise ChainError(Fault.CHANGED, "the signature of the receipt does not hold")
    if origin is not None and receipt.origin != origin:
        raise ChainError(Fault.REPLAYED, f"the receipt is for origin {receipt.origin!r}")
    return receipt


def _bad() -> ChainError:
    return ChainError(Fault.NON_CANONICAL, "the receipt is not in canonical form")

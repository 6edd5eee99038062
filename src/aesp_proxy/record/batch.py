"""A batch: a signed header and a compressed body of canonical rows.

Rules: sizes are checked before anything is inflated; verification is bytes in,
value or :class:`ChainError` out, with no partial result. The stages are apart
so that a receiver may stop at the cheap one first: :func:`verify_envelope`
(signature, place in the chain, body hash, sizes), :func:`verify_rows` (count,
root, canonical form, sequence).

Body, after inflating: ``count`` little-endian u32 lengths, ``count`` marks of
two bytes (the head of each leaf hash: they tell which row a damaged body
changed), then the rows end to end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate
from typing import Any, Final

import zstandard

from aesp_proxy.errors import InputError
from aesp_proxy.record import merkle
from aesp_proxy.record.canonical import POSITION, RECORD_BYTES_MAX, decode_row
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.head import Head, advance, clock_turned_back, genesis
from aesp_proxy.record.header import (
    HEADER_BYTES_MAX,
    BatchHeader,
    Flag,
    decode_header,
    encode_header,
    header_hash,
    signed_message,
)
from aesp_proxy.record.signature import SIGNATURE_BYTES, Signer, is_signed, key_id_of

CONTENT_TYPE: Final = "application/vnd.aesp.batch"
MAGIC: Final = b"AESPBAT1"
_PREFIX: Final = struct.Struct("<8sII")
PREFIX_BYTES: Final = _PREFIX.size
_ROW_OVERHEAD_BYTES: Final = 6
_COMPRESSION_LEVEL: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a verifier accepts of one batch."""

    batch_bytes_max: int = 16 * 1024 * 1024
    inflated_bytes_max: int = 64 * 1024 * 1024
    rows_max: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBatch:
    """A batch as it is stored and sent: nothing in it is checked yet."""

    header_bytes: bytes
    signature: bytes
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBatch:
    """A batch that holds: ``head`` is the chain after it, ``rows`` its records' bytes.

    ``values`` are the rows unpacked, in the order of ``canonical.FIELDS``.
    ``notices`` are what a receiver flags and does not refuse: CLOCK, UNCLEAN, LOST.
    """

    header: BatchHeader
    header_hash: bytes
    rows: list[bytes]
    values: list[list[Any]]
    head: Head
    notices: frozenset[Fault]


def encode_batch(batch: SealedBatch) -> bytes:
    """Pack a batch for a file or a request."""
    prefix = _PREFIX.pack(MAGIC, len(batch.header_bytes), len(batch.body))
    return b"".join((prefix, batch.header_bytes, batch.signature, batch.body))


def header_bytes_of(data: bytes) -> bytes:
    """Give the header's bytes from the beginning of a batch. ChainError for other framing."""
    header_bytes, _ = _sizes(data)
    if len(data) < PREFIX_BYTES + header_bytes:
        raise ChainError(Fault.CHANGED, "the batch is cut off in its header")
    return data[PREFIX_BYTES : PREFIX_BYTES + header_bytes]


def _sizes(data: bytes) -> tuple[int, int]:
    if len(data) < PREFIX_BYTES:
        raise ChainError(Fault.CHANGED, "the batch is cut off before its header")
    magic, header_bytes, body_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise ChainError(Fault.CHANGED, "this is not a batch, or one of another version")
    if header_bytes > HEADER_BYTES_MAX:
        raise ChainError(Fault.OVERSIZE, f"the header is {header_bytes} bytes")
    return header_bytes, body_bytes


def decode_batch(data: bytes, *, bytes_max: int = Limits().batch_bytes_max) -> SealedBatch:
    """Take a batch apart, unverified. ChainError: OVERSIZE, or CHANGED for other framing."""
    if len(data) > bytes_max:
        raise ChainError(Fault.OVERSIZE, f"the batch is {len(data)} bytes, limit {bytes_max}")
    header_bytes, body_bytes = _sizes(data)
    signature_at = PREFIX_BYTES + header_bytes
    body_at = signature_at + SIGNATURE_BYTES
    if len(data) != body_at + body_bytes:
        raise ChainError(Fault.CHANGED, "the batch is cut off, or has bytes after its end")
    return SealedBatch(
        header_bytes=data[PREFIX_BYTES:signature_at],
        signature=data[signature_at:body_at],
        body=data[body_at:],
    )


def seal(records: Sequence[bytes], *, header: BatchHeader, sign: Signer) -> SealedBatch:
    """Seal rows into a batch: root, body and sizes are filled into ``header``, then signed.

    ``records`` are canonical rows of ``header.epoch`` from ``header.first_seq``
    on; every other field of ``header`` is the caller's (see :func:`draft`).
    """
    leaves = merkle.leaf_hashes(records)
    inflated = _pack_rows(records, leaves)
    body = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(inflated)
    full = replace(
        header,
        count=len(records),
        root=merkle.root(leaves),
        body_bytes=len(body),
        inflated_bytes=len(inflated),
        body_hash=sha256(body).digest(),
    )
    header_bytes = encode_header(full)
    return SealedBatch(
        header_bytes=header_bytes, signature=sign(signed_message(header_bytes)), body=body
    )


def draft(  # noqa: PLR0913 - a header has this many fields of its own
    head: Head,
    *,
    key_id: str,
    epoch: int,
    first_seq: int,
    wall_ns: int,
    mono_ns: int,
    boot_id: str,
    first_time_ns: int = 0,
    last_time_ns: int = 0,
    lost: int = 0,
    dropped: int = 0,
    policy_hash: str = "",
    flags: int = 0,
) -> BatchHeader:
    """Begin the header that follows ``head``; :func:`seal` fills in the rest."""
    header = BatchHeader(
        origin=head.origin,
        epoch=epoch,
        key_id=key_id,
        batch_no=head.batch_no + 1,
        prev_hash=head.header_hash,
        first_seq=first_seq,
        count=0,
        first_time_ns=first_time_ns,
        last_time_ns=last_time_ns,
        sealed_wall_ns=wall_ns,
        sealed_mono_ns=mono_ns,
        boot_id=boot_id,
        root=merkle.EMPTY_ROOT,
        body_bytes=0,
        inflated_bytes=0,
        body_hash=merkle.EMPTY_ROOT,
        lost=lost,
        dropped=dropped,
        policy_hash=policy_hash,
        flags=flags,
    )
    if clock_turned_back(head, header):
        return replace(header, flags=flags | Flag.CLOCK_BACK)
    return header


def _pack_rows(rows: Sequence[bytes], leaves: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(rows)}I", *map(len, rows))
    marks = b"".join([leaf[:2] for leaf in leaves])
    return b"".join((lengths, marks, *rows))


def open_body(
    header: BatchHeader, body: bytes, *, inflated_bytes_max: int, rows_max: int
) -> list[bytes]:
    """Inflate a body into its rows; limits are checked before a byte is inflated.

    ChainError: OVERSIZE, or CHANGED when the body is not what the header says.
    """
    if header.count > rows_max:
        raise ChainError(Fault.OVERSIZE, f"{header.count} records, the limit is {rows_max}")
    return _split_rows(_inflate(header, body, inflated_bytes_max), header.count)


def _inflate(header: BatchHeader, body: bytes, inflated_bytes_max: int) -> bytes:
    if header.inflated_bytes > inflated_bytes_max:
        raise ChainError(
            Fault.OVERSIZE,
            f"the body inflates to {header.inflated_bytes} bytes, limit {inflated_bytes_max}",
        )
    try:
        declared = zstandard.get_frame_parameters(body).content_size
        if declared != header.inflated_bytes:
            raise ChainError(Fault.CHANGED, "the body declares another size than the header")
        inflated = zstandard.ZstdDecompressor().decompress(
            body, max_output_size=header.inflated_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise ChainError(Fault.CHANGED, f"the body cannot be inflated: {error}") from error
    if len(inflated) != header.inflated_bytes:
        raise ChainError(Fault.CHANGED, "the body inflates to another size than the header says")
    return inflated


def _split_rows(inflated: bytes, count: int) -> list[bytes]:
    rows_at = _ROW_OVERHEAD_BYTES * count
    if len(inflated) < rows_at:
        raise ChainError(Fault.CHANGED, "the body is shorter than its table of rows")
    lengths = struct.unpack_from(f"<{count}I", inflated)
    if count and (min(lengths) == 0 or max(lengths) > RECORD_BYTES_MAX):
        raise ChainError(Fault.CHANGED, "the body holds a row that is empty or too long")
    ends = list(accumulate(lengths, initial=rows_at))
    if ends[-1] != len(inflated):
        raise ChainError(Fault.CHANGED, "the rows of the body do not fill it")
    return [inflated[ends[i] : ends[i + 1]] for i in range(count)]


def verify_envelope(
    batch: SealedBatch, *, public_key: bytes, previous: Head | None, limits: Limits
) -> tuple[BatchHeader, Head]:
    """Check signature, body hash, sizes and place in the chain; rows are not looked at.

    ``previous`` None means: this must be the first batch of its origin.
    """
    header = decode_header(batch.header_bytes)
    if header.key_id != key_id_of(public_key):
        raise ChainError(Fault.WRONG_KEY, f"batch {header.batch_no} names key {header.key_id}")
    if not is_signed(public_key, batch.signature, signed_message(batch.header_bytes)):
        raise ChainError(Fault.CHANGED, f"the signature of batch {header.batch_no} does not hold")
    head = genesis(header.origin) if previous is None else previous
    following = advance(head, header, header_hash(batch.header_bytes))
    if header.count > limits.rows_max or header.inflated_bytes > limits.inflated_bytes_max:
        raise ChainError(Fault.OVERSIZE, f"batch {header.batch_no} is over the limits")
    if len(batch.body) != header.body_bytes or sha256(batch.body).digest() != header.body_hash:
        row = changed_row(header, batch.body, limits)
        raise ChainError(
            Fault.CHANGED, f"the body of batch {header.batch_no} is not what was signed", row=row
        )
    return header, following


def verify_rows(
    header: BatchHeader, body: bytes, *, limits: Limits
) -> tuple[list[bytes], list[list[Any]]]:
    """Check count, root, canonical form, sequence and times of the rows of a body."""
    rows = open_body(
        header, body, inflated_bytes_max=limits.inflated_bytes_max, rows_max=limits.rows_max
    )
    if merkle.root(merkle.leaf_hashes(rows)) != header.root:
        raise ChainError(
            Fault.CHANGED,
            "the rows do not have the signed root",
            row=changed_row(header, body, limits),
        )
    values = [_checked_row(row, index) for index, row in enumerate(rows)]
    _check_sequence(header, values)
    return rows, values


def _checked_row(row: bytes, index: int) -> list[Any]:
    try:
        return decode_row(row)
    except InputError as error:
        raise ChainError(Fault.NON_CANONICAL, error.message, row=index) from error


_ORIGIN, _EPOCH, _SEQ = POSITION["origin"], POSITION["epoch"], POSITION["seq"]
_TIME: Final = POSITION["time_ns"]


def _check_sequence(header: BatchHeader, values: list[list[Any]]) -> None:
    for index, row in enumerate(values):
        if row[_ORIGIN] != header.origin or row[_EPOCH] != header.epoch:
            raise ChainError(Fault.WRONG_KEY, "a row is of another origin or epoch", row=index)
        if row[_SEQ] != header.first_seq + index:
            kind = Fault.MISSING if row[_SEQ] > header.first_seq + index else Fault.REORDERED
            raise ChainError(kind, f"record {row[_SEQ]} stands out of sequence", row=index)
    if values and (values[0][_TIME], values[-1][_TIME]) != (
        header.first_time_ns,
        header.last_time_ns,
    ):
        raise ChainError(Fault.CHANGED, "the header names other times than the rows")


def changed_row(header: BatchHeader, body: bytes, limits: Limits) -> int:
    """Find the first row that does not fit its mark; -1 when that cannot be told.

    The marks are evidence against accidents and careless hands only: whoever
    rewrites the body can rewrite them. That *something* changed is proved by
    the signed hashes, never by them.
    """
    try:
        inflated = _inflate(header, body, limits.inflated_bytes_max)
        rows = _split_rows(inflated, header.count)
    except ChainError:
        return -1
    marks_at = 4 * header.count
    for index, leaf in enumerate(merkle.leaf_hashes(rows)):
        mark_at = marks_at + 2 * index
        if leaf[:2] != inflated[mark_at : mark_at + 2]:
            return index
    return -1


def verify_batch(
    batch: SealedBatch,
    *,
    public_key: bytes,
    previous: Head | None,
    limits: Limits | None = None,
) -> VerifiedBatch:
    """Check a batch wholly: envelope, chain, rows. ChainError says what does not hold.

    ``public_key`` is 32 raw bytes; ``previous`` the head before this batch, None
    when it must be the first.
    """
    limits = limits or Limits()
    header, head = verify_envelope(batch, public_key=public_key, previous=previous, limits=limits)
    rows, values = verify_rows(header, batch.body, limits=limits)
    before = genesis(header.origin) if previous is None else previous
    return VerifiedBatch(
        header=header,
        header_hash=head.header_hash,
        rows=rows,
        values=values,
        head=head,
        notices=notices_of(before, header),
    )


def notices_of(before: Head, header: BatchHeader) -> frozenset[Fault]:
    """Give what a receiver flags in a header that holds."""
    found = set()
    if clock_turned_back(before, header):
        found.add(Fault.CLOCK)
    if header.flags & Flag.UNCLEAN:
        found.add(Fault.UNCLEAN)
    if header.lost or header.dropped:
        found.add(Fault.LOST)
    return frozenset(found)

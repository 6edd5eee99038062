"""The framing of journal segments: how one row lies on disk before it is sealed.

Rules: pure; a frame is whole and its checksum holds, or it is not there. A
segment is ``MAGIC``, one frame that names origin, epoch, segment and first
sequence number, then one frame a record. A frame is two little-endian u32
(length of what follows, CRC-32 of it), u64 sequence number, u8 flags, the row.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final
from zlib import crc32

import ormsgpack

from aesp_proxy.errors import RecordError
from aesp_proxy.record.canonical import RECORD_BYTES_MAX

MAGIC: Final = b"AESPWAL1"
_OUTER: Final = struct.Struct("<II")
_INNER: Final = struct.Struct("<QB")
_FRAME: Final = struct.Struct("<IIQB")
HEAD_BYTES: Final = _OUTER.size
FRAME_BYTES: Final = _FRAME.size
_BODY_BYTES_MAX: Final = _INNER.size + RECORD_BYTES_MAX
_SEQ_JUMP_MAX: Final = 1 << 32


class FrameFlag(IntFlag):
    """What a frame is, when it is not just a record."""

    DENIED = 1
    """The record is a refusal: seal soon."""
    SEGMENT = 2
    """The frame that opens a segment."""
    CLOSED = 4
    """The writer closed its journal; nothing follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHead:
    """What the first frame of a segment says."""

    origin: str
    epoch: int
    segment: int
    first_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Whole frames from one stretch of bytes: (seq, flags, row) each.

    ``end`` is the offset after the last whole frame; ``is_whole`` says whether
    that is the end of the bytes, or something cut or damaged follows.
    """

    frames: list[tuple[int, int, bytes]]
    end: int
    is_whole: bool


def encode_frame(seq: int, flags: int, row: bytes) -> bytes:
    """Frame one row."""
    body = _INNER.pack(seq, flags) + row
    return _OUTER.pack(len(body), crc32(body)) + body


def encode_segment_head(head: SegmentHead) -> bytes:
    """Begin a segment: magic and first frame."""
    row = ormsgpack.packb((1, head.origin, head.epoch, head.segment, head.first_seq))
    return MAGIC + encode_frame(0, FrameFlag.SEGMENT, row)


def decode_segment_head(data: bytes, *, where: str) -> tuple[SegmentHead, int] | None:
    """Read the head of a segment and the offset after it; None when it is not whole yet.

    RecordError when the bytes are of something else.
    """
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise RecordError("is not a journal segment", where=where)
    found = scan(data, len(MAGIC), frames_max=1).frames
    if not found:
        return None
    _, flags, row = found[0]
    try:
        version, origin, epoch, segment, first_seq = ormsgpack.unpackb(row)
    except (ormsgpack.MsgpackDecodeError, TypeError, ValueError) as error:
        raise RecordError("has a damaged head", where=where) from error
    if version != 1 or flags != FrameFlag.SEGMENT:
        raise RecordError("is of another version", where=where)
    head = SegmentHead(origin=origin, epoch=epoch, segment=segment, first_seq=first_seq)
    return head, len(MAGIC) + _FRAME.size + len(row)


def scan(data: bytes, offset: int, *, frames_max: int = 1 << 30, bytes_max: int = 1 << 62) -> Scan:
    """Read whole frames from ``offset`` on, up to ``frames_max`` or about ``bytes_max`` bytes."""
    frames: list[tuple[int, int, bytes]] = []
    size, stop, at = len(data), offset + bytes_max, offset
    unpack, inner, head = _FRAME.unpack_from, _INNER.size, HEAD_BYTES
    while at + _FRAME.size <= size and at < stop and len(frames) < frames_max:
        length, checksum, seq, flags = unpack(data, at)
        end = at + head + length
        if not inner <= length <= _BODY_BYTES_MAX or end > size:
            return Scan(frames=frames, end=at, is_whole=False)
        body = data[at + head : end]
        if crc32(body) != checksum:
            return Scan(frames=frames, end=at, is_whole=False)
        frames.append((seq, flags, body[inner:]))
        at = end
    is_whole = at == size or at >= stop or len(frames) >= frames_max
    return Scan(frames=frames, end=at, is_whole=is_whole)


def scan_run(data: bytes, next_seq: int, *, bytes_max: int) -> tuple[list[bytes], int, int]:
    """Read the records that follow each other from ``next_seq`` on: rows, end, flags of any.

    The path that sealing spends its time in. It stops in front of anything out
    of the ordinary, which is :func:`scan`'s business.
    """
    rows: list[bytes] = []
    size, at, seen = len(data) - _FRAME.size, 0, 0
    unpack, inner, head, append = _FRAME.unpack_from, _INNER.size, HEAD_BYTES, rows.append
    denied = int(FrameFlag.DENIED)
    while at <= size and at < bytes_max:
        length, checksum, seq, flags = unpack(data, at)
        end = at + head + length
        if seq != next_seq or flags > denied or not inner <= length <= _BODY_BYTES_MAX:
            break
        body = data[at + head : end]
        if len(body) != length or crc32(body) != checksum:
            break
        append(body[inner:])
        seen |= flags
        next_seq += 1
        at = end
    return rows, at, seen


def is_long_enough(data: bytes) -> bool:
    """Whether what begins as a frame is not merely cut off: then it was changed."""
    if len(data) < _FRAME.size:
        return False
    length = _OUTER.unpack_from(data)[0]
    return not _INNER.size <= length <= _BODY_BYTES_MAX or len(data) >= HEAD_BYTES + length


def resync(data: bytes, offset: int, expected_seq: int) -> int:
    """Find the next whole frame after damage at ``offset``; -1 when there is none.

    Its sequence number must be above ``expected_seq`` (or the same: a damaged
    stretch may hold no frame at all).
    """
    for at in range(offset + 1, len(data) - _FRAME.size + 1):
        length, checksum, seq, _ = _FRAME.unpack_from(data, at)
        end = at + HEAD_BYTES + length
        if (
            _INNER.size <= length <= _BODY_BYTES_MAX
            and end <= len(data)
            and expected_seq <= seq < expected_seq + _SEQ_JUMP_MAX
            and crc32(data[at + HEAD_BYTES : end]) == checksum
        ):
            return at
    return -1

"""The header of a batch: all that is signed about the records in its body.

Rules: a canonical msgpack array in the order of the dataclass; decoding and
encoding again gives the same bytes or the header is refused. The hash of these
bytes is what the next header names as its predecessor.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntFlag
from hashlib import sha256
from operator import attrgetter
from typing import Any, Final

import ormsgpack

from aesp_proxy.record.faults import ChainError, Fault

FORMAT: Final = 1
HEADER_BYTES_MAX: Final = 4096
NO_HASH: Final = bytes(32)
SIGNATURE_DOMAIN: Final = b"aesp-proxy batch header v1\x00"
TEXT_CHARS_MAX: Final = 256


_ORIGIN_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_ORIGIN_CHARS_MAX: Final = 64


def is_origin(text: str) -> bool:
    """Whether ``text`` may name an origin: 1-64 of a-z 0-9 - _ . and no dot in front.

    Narrow because it is a file name at both ends.
    """
    return (
        0 < len(text) <= _ORIGIN_CHARS_MAX
        and not text.startswith(".")
        and _ORIGIN_CHARS.issuperset(text)
    )


class Flag(IntFlag):
    """What a batch says beside its records."""

    HEARTBEAT = 1
    """Empty, sealed so that silence is an alarm."""
    EPOCH_ENDED = 2
    """No record of this epoch follows."""
    UNCLEAN = 4
    """The writer of this epoch ended without closing its journal."""
    CLOCK_BACK = 8
    """The sealer saw its own wall clock go backwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHeader:
    """One signed header.

    ``batch_no`` counts from 1 for the origin; ``prev_hash`` is SHA-256 of the
    previous header's bytes (zeros in the first). ``epoch`` is 0 in a heartbeat.
    The records are ``first_seq`` to ``first_seq + count - 1`` of that epoch;
    ``first_seq`` is the next expected one plus ``lost``, the records of this
    epoch that the host wrote and could not read back. ``dropped`` counts what
    passed in this epoch without a record, as its operator allows, and no earlier batch
    of it has declared. Times are
    nanoseconds: wall UTC, monotonic of the boot named by ``boot_id``. ``root``
    is the RFC 6962 root of the rows, ``body_hash`` SHA-256 of the ``body_bytes``
    compressed bytes, which inflate to ``inflated_bytes``.
    """

    format: int = FORMAT
    origin: str
    epoch: int
    key_id: str
    batch_no: int
    prev_hash: bytes
    first_seq: int
    count: int
    first_time_ns: int
    last_time_ns: int
    sealed_wall_ns: int
    sealed_mono_ns: int
    boot_id: str
    root: bytes
    body_bytes: int
    inflated_bytes: int
    body_hash: bytes
    lost: int = 0
    dropped: int = 0
    policy_serial: int = 0
    policy_hash: str = ""
    flags: int = 0


_NAMES: Final = tuple(field.name for field in fields(BatchHeader))
_TYPES: Final = [
    {"int": int, "str": str, "bytes": bytes}[str(field.type)] for field in fields(BatchHeader)
]
_VALUES: Final = attrgetter(*_NAMES)
_ALL_FLAGS: Final = int(Flag.HEARTBEAT | Flag.EPOCH_ENDED | Flag.UNCLEAN | Flag.CLOCK_BACK)


def encode_header(header: BatchHeader) -> bytes:
    """Pack a header: at most ``HEADER_BYTES_MAX`` bytes."""
    return ormsgpack.packb(_VALUES(header))


def decode_header(data: bytes) -> BatchHeader:
    """Unpack a header. ChainError(NON_CANONICAL) for anything but its canonical form."""
    if len(data) > HEADER_BYTES_MAX:
        raise ChainError(Fault.OVERSIZE, f"the header is {len(data)} bytes")
    try:
        values = ormsgpack.unpackb(data)
    except (ormsgpack.MsgpackDecodeError, RecursionError) as error:
        raise _bad(f"the header is not msgpack: {error}") from error
    if type(values) is not list or list(map(type, values)) != _TYPES:
        raise _bad("the header has fields of another number or type")
    if ormsgpack.packb(values) != data:
        raise _bad("the header is not in canonical form")
    header = BatchHeader(**dict(zip(_NAMES, values, strict=True)))
    _check_ranges(header, values)
    return header


def _check_ranges(header: BatchHeader, values: list[Any]) -> None:
    if header.format != FORMAT:
        raise _bad(f"the header has format {header.format}, known is {FORMAT}")
    if any(type(value) is int and not 0 <= value < 1 << 63 for value in values):
        raise _bad("the header holds a number out of range")
    if any(type(value) is str and len(value) > TEXT_CHARS_MAX for value in values):
        raise _bad("the header holds a text that is too long")
    if any(type(value) is bytes and len(value) != len(NO_HASH) for value in values):
        raise _bad("the header holds a hash of another length")
    if not header.batch_no or not is_origin(header.origin) or header.flags & ~_ALL_FLAGS:
        raise _bad("the header has no number, no proper origin, or unknown flags")
    if bool(header.epoch) != bool(header.first_seq) or (header.count and not header.epoch):
        raise _bad("the header counts records without an epoch")


def header_hash(header_bytes: bytes) -> bytes:
    """Name a header: SHA-256 of its bytes."""
    return sha256(header_bytes).digest()


def signed_message(header_bytes: bytes) -> bytes:
    """Give what the key signs: the domain, then the header's bytes."""
    return SIGNATURE_DOMAIN + header_bytes


def _bad(message: str) -> ChainError:
    return ChainError(Fault.NON_CANONICAL, message)

"""Which names a git repository tracks, out of its index.

Format: gitformat-index(5), versions 2 to 4, with object names of SHA-1 or SHA-256.
"""

from __future__ import annotations

import struct
from typing import Final

from aesp_proxy.errors import InputError

_HEAD: Final = struct.Struct(">4sII")
_FLAGS: Final = struct.Struct(">H")
_STAT_BYTES: Final = 40
_ID_BYTES: Final = (20, 32)
_EXTENDED: Final = 0x4000
_LENGTH: Final = 0xFFF
_VERSIONS: Final = range(2, 5)
_PREFIXED: Final = 4


def tracked_names(index: bytes) -> frozenset[bytes]:
    """Return the names of all entries, from the root of the working tree.

    Raises ``InputError`` for what is no index.
    """
    if len(index) < _HEAD.size:
        raise InputError("a git index of less than its head")
    magic, version, count = _HEAD.unpack_from(index)
    if magic != b"DIRC" or version not in _VERSIONS:
        raise InputError("no git index of version 2, 3 or 4")
    for id_bytes in _ID_BYTES:
        names = _names(index, version, count, id_bytes)
        if names is not None:
            return names
    raise InputError("a damaged git index")


def _names(index: bytes, version: int, count: int, id_bytes: int) -> frozenset[bytes] | None:
    """Read all entries; None when they make no sense with object names of this length."""
    end = len(index) - id_bytes
    fixed = _STAT_BYTES + id_bytes + _FLAGS.size
    if count * fixed > end:
        return None
    at, names, last = _HEAD.size, set(), b""
    for _ in range(count):
        start, at = at, at + fixed
        if at > end:
            return None
        flags = _FLAGS.unpack_from(index, at - _FLAGS.size)[0]
        if flags & _EXTENDED:
            at += _FLAGS.size
        kept = 0
        if version == _PREFIXED:
            dropped, at = _offset(index, at, end)
            kept = len(last) - dropped
        stop = index.find(b"\0", at, end)
        if stop < 0 or kept < 0:
            return None
        last = last[:kept] + index[at:stop]
        at = stop + 1 if version == _PREFIXED else start + (stop - start + 8) // 8 * 8
        if not last or last.startswith(b"/") or flags & _LENGTH != min(len(last), _LENGTH):
            return None
        names.add(last)
    return frozenset(names)


def _offset(index: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a number as pack files have offsets, gitformat-pack(5)."""
    value = -1
    while at < end:
        byte = index[at]
        value = ((value + 1) << 7) | (byte & 0x7F)
        at += 1
        if not byte & 0x80:
            return value, at
    return len(index), at

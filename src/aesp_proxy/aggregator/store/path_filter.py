"""Whether a batch may hold a path: a Bloom filter of one byte a path, kept beside the batch.

Paths are too many for a posting each: with those the index was twice as large. The filter
never misses a path that is there; one in twenty of those that are not is looked for in
vain. Who makes paths that collide only makes that search slower.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

_BITS_A_PATH: Final = 8
_SPREAD: Final = 0x9E3779B1


def path_bits(paths: set[str]) -> bytes:
    """Return the filter of ``paths``; its length is a power of two, empty for none."""
    if not paths:
        return b""
    size_bits = 64
    while size_bits < len(paths) * _BITS_A_PATH:
        size_bits *= 2
    # A digit a bit, made a number at the end: that costs half of setting bits of bytes.
    digits, mask = bytearray(b"0" * size_bits), size_bits - 1
    for path in paths:
        number = crc32(path.encode("utf-8", "surrogatepass"))
        digits[number & mask] = digits[(number * _SPREAD >> 20) & mask] = 49
    return int(digits, 2).to_bytes(size_bits // 8, "big")


def may_hold(bits: bytes, path: str) -> bool:
    """Whether ``path`` may be among those that ``bits`` were made of."""
    if not bits:
        return False
    number, mask = crc32(path.encode("utf-8", "surrogatepass")), len(bits) * 8 - 1
    places = (number & mask, (number * _SPREAD >> 20) & mask)
    return all(bits[place >> 3] >> (7 - (place & 7)) & 1 for place in places)

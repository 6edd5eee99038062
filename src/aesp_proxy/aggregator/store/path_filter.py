"""Whether a batch may hold a path: a Bloom filter of one byte a path, kept beside the batch.

Paths are too many for a posting each: with those the index was twice as large. The filter
never misses a path that is there; one in twenty of those that are not is looked for in
vain. Who makes paths that collide only makes that search slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BITS_A_PATH: Final = 8
_SEEDS: Final = (0, 0x9E3779B9)


def path_bits(paths: set[str]) -> bytes:
    """Return the filter of ``paths``; its length is a power of two, empty for none."""
    if not paths:
        return b""
    size_bits = 64
    while size_bits < len(paths) * _BITS_A_PATH:
        size_bits *= 2
    bits = bytearray(size_bits // 8)
    for place in _places(paths, size_bits - 1):
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def may_hold(bits: bytes, path: str) -> bool:
    """Whether ``path`` may be among those that ``bits`` were made of."""
    if not bits:
        return False
    places = _places((path,), len(bits) * 8 - 1)
    return all(bits[place >> 3] >> (place & 7) & 1 for place in places)


def _places(paths: Iterable[str], mask: int) -> Iterator[int]:
    for path in paths:
        data = path.encode("utf-8", "surrogatepass")
        for seed in _SEEDS:
            yield crc32(data, seed) & mask

"""Find registered grams in bytes by numpy: what ``_marks.c`` does, where nothing was compiled.

Both give the same answers, sorted. A gram is the bytes at a position, little-endian;
of its product with the secret factor the upper ``KEPT_BITS`` are its hash. A window is
``width + stride - 1`` bytes: of each one gram is looked at, if its shape comes into question
(see ``gram_shapes``). There is a filter for each shape, or none: a row of words of 64 bits; the
upper bits of a hash say which word, three fields of its lower bits which bits of that are set.
What passes is looked up among the known grams: (hash, shape, how far before the gram begins what
it is of, a number), each in its bits of one number, in sorted arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from aesp_proxy.decide.secrets.gram_shapes import SPACED, in_question
from aesp_proxy.decide.secrets.registered import KEPT_BITS

FIELDS: Final = 3
FIELD_BITS: Final = 6
PLACE_BITS: Final = 10
"""How far a gram is from the begin of what it is of, and a number, each in so many bits."""
SHAPE_SHIFT: Final = 2 * PLACE_BITS
HASH_SHIFT: Final = 64 - KEPT_BITS
_PLACE_MASK: Final = (1 << PLACE_BITS) - 1
_SHAPE_MASK: Final = (1 << HASH_SHIFT - SHAPE_SHIFT) - 1
_GRAM_BYTES_MAX: Final = 8
_SHIFT: Final = np.uint64(HASH_SHIFT)
_ONE: Final = np.uint64(1)
_EACH_BYTE: Final = 0x0101_0101_0101_0101
_FIELD_MASK: Final = np.uint64((1 << FIELD_BITS) - 1)

Numbers = NDArray[np.uint64]
Places = NDArray[np.intp]
Mark = tuple[int, int, int]
"""(where a gram stands, how far what it is of begins before it, a number: the length of that)"""


def marks(
    width: int,
    stride: int,
    factor: int,
    filters: tuple[bytearray, ...],
    masks: bytes,
    known: tuple[bytes, ...],
    before: bytes,
    data: bytes,
    /,
) -> list[Mark]:
    """Return the grams of ``width`` bytes in ``data`` that are ``known``.

    ``before`` is what stands before it: windows that begin there are looked at too. ``masks``
    are those of ``gram_shapes``; empty: shapes are not asked for, all are in the first filter.
    """
    window = width + stride - 1
    begun = min(len(before), window - 1)
    near = before[len(before) - begun :] + data
    if len(near) < window:
        return []
    padded = near + bytes(_GRAM_BYTES_MAX)
    count = (len(near) - window) // stride + 1
    grams: Numbers = np.ndarray((count,), np.uint64, padded, stride - 1, (stride,))
    at: Places = np.arange(stride - 1, stride * (count + 1) - 1, stride)
    mask = np.uint64((1 << 8 * width) - 1)
    if masks and not filters[SPACED]:
        kept = _without(grams, 0x20, mask)
        grams, at = grams[kept], at[kept]
    products = (grams & mask) * np.uint64(factor)
    passed = _passing(filters, products)
    if not len(passed):
        return []
    found = _look_up(at[passed], products[passed] >> _SHIFT, known)
    return sorted(
        (at - begun, packed >> PLACE_BITS & _PLACE_MASK, packed & _PLACE_MASK)
        for at, packed in found
        if not masks
        or in_question(near, at, width, window, masks) >> (packed >> SHAPE_SHIFT & _SHAPE_MASK) & 1
    )


def _without(grams: Numbers, separator: int, mask: np.uint64) -> Places:
    """Return which grams hold no separator: exact, but not for where one is."""
    other = grams ^ np.uint64(_EACH_BYTE * separator)
    other |= ~mask
    zeros = other - np.uint64(_EACH_BYTE)
    np.invert(other, out=other)
    zeros &= other
    zeros &= np.uint64(_EACH_BYTE << 7)
    kept: Places = (zeros == 0).nonzero()[0]
    return kept


def _passing(filters: tuple[bytearray, ...], products: Numbers) -> Places:
    hashes = products >> _SHIFT
    bits: Numbers = _ONE << (hashes & _FIELD_MASK)
    for field in range(1, FIELDS):
        bits |= _ONE << ((hashes >> np.uint64(field * FIELD_BITS)) & _FIELD_MASK)
    passing = np.zeros(len(products), np.bool_)
    for words in (np.frombuffer(one, np.uint64) for one in filters if one):
        which = hashes >> np.uint64(KEPT_BITS + 1 - len(words).bit_length())
        there = words.take(which.view(np.int64), None, None, "clip")
        passing |= (there & bits) == bits
    passed: Places = passing.nonzero()[0]
    return passed


def _look_up(at: Places, keys: Numbers, known: tuple[bytes, ...]) -> list[tuple[int, int]]:
    """Return of each the position, and what is known there."""
    found: list[tuple[int, int]] = []
    for ones in (np.frombuffer(each, np.uint64) for each in known):
        first = np.searchsorted(ones, keys << _SHIFT)
        there = (first < len(ones)).nonzero()[0]
        there = there[(ones[first[there]] >> _SHIFT) == keys[there]]
        for position, key, start in zip(
            at[there].tolist(), keys[there].tolist(), first[there].tolist(), strict=True
        ):
            place = start
            while place < len(ones) and int(ones[place]) >> HASH_SHIFT == key:
                found.append((position, int(ones[place])))
                place += 1
    return found

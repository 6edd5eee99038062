"""Find where data may hold a registered spelling: hashed grams in tables, by numpy.

The only module that knows numpy. A step of a scan costs four passes over one position in
``stride``, and a few more over the positions that are marked; the tables hold no value,
see ``registered``.

Rules:

- Nothing that was added is missed; what is reported has to be confirmed by its digest.
- A gram that is added counts from the next scan on. Grams are not taken out: who forgets
  a value drops its digests, and what is reported for it then is not confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aesp_proxy.decide.secrets.registered import Tier

_TABLE_BITS_MAX: Final = 24
_SPACE: Final = 16
"""So many places a gram, while the table may grow: few grams share one then."""
_EMPTY, _MANY = 0, 2
"""What no tag is: tags are odd."""
_RECENT_MAX: Final = 1 << 16
_PLACE_BITS: Final = 10
"""Offset and length of a spelling are kept with its gram, each in so many bits."""
_PLACE_MASK: Final = (1 << _PLACE_BITS) - 1
_BOTH_BITS: Final = 2 * _PLACE_BITS
_UNITS: Final[dict[int, type[np.unsignedinteger]]] = {4: np.uint32, 8: np.uint64}

Place = tuple[int, int]
"""(offset of a spelling in the data, its length)"""


class GramTable:
    """The grams of one tier.

    ``_tags`` says, at the upper bits of a hash, seven further bits of the gram that has them
    (``_MANY`` where grams differ). ``_known`` is sorted, each (hash, how far before the gram
    its spelling begins, the spelling's length) in one number; ``_recent`` is what is not
    yet in it.
    """

    __slots__ = (
        "_bits", "_factor", "_known", "_multiplier", "_recent", "_tags", "_to_index", "_to_tag",
        "_unit", "tier",
    )  # fmt: skip

    def __init__(self, tier: Tier, multiplier: int) -> None:
        self._unit = _UNITS[tier.gram_bytes]
        self._factor = self._unit(multiplier & ((1 << tier.gram_bytes * 8) - 1))
        self._multiplier = multiplier
        self.tier = tier
        self._known: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._recent: dict[int, set[int]] = {}
        self._size(0)

    def _size(self, bits: int) -> None:
        """Make the table for indices of ``bits``, empty."""
        tier = self.tier
        self._bits = bits
        self._to_index = self._unit(tier.gram_bytes * 8 - max(bits, 1))
        below_bits = tier.gram_bytes * 8 - min(_TABLE_BITS_MAX, tier.kept_bits - 8)
        self._to_tag = self._unit(below_bits - 8)
        self._tags: NDArray[np.uint8] = np.zeros(1 << bits, np.uint8)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return self._bits == 0

    def add(self, grams: Iterable[tuple[int, int, int]]) -> None:
        """Add grams, each (hash, how far before it the spelling begins, the spelling's length)."""
        hashes = set()
        for gram, before, length in grams:
            packed = (gram << _BOTH_BITS) | (before << _PLACE_BITS) | length
            self._recent.setdefault(gram, set()).add(packed)
            hashes.add(gram)
        if not hashes:
            return
        bits = self._bits_for(len(self._known) + len(self._recent))
        if bits > self._bits or len(self._recent) > _RECENT_MAX:
            self._merge(bits)
        else:
            self._mark(np.array(sorted(hashes), np.uint64))

    def _bits_for(self, total: int) -> int:
        wanted = (total * _SPACE - 1).bit_length()
        return min(wanted, _TABLE_BITS_MAX, self.tier.kept_bits - 8)

    def _merge(self, bits: int) -> None:
        """Sort what is recent into what is known, and make the tables large enough."""
        recent = np.array([one for ones in self._recent.values() for one in ones], np.uint64)
        known = np.unique(np.concatenate((self._known, recent)))
        if bits > self._bits:
            self._size(bits)
            recent = known
        self._mark(np.unique(recent >> np.uint64(_BOTH_BITS)))
        self._known = known
        self._recent = {}

    def _mark(self, grams: NDArray[np.uint64]) -> None:
        """Note the tags of grams, of which none comes twice."""
        index, tags = self._index(grams), self._tag(grams)
        there = self._tags[index]
        self._tags[index] = np.where((there == _EMPTY) | (there == tags), tags, np.uint8(_MANY))
        # Of two new ones at one index the last has left its tag.
        self._tags[index[self._tags[index] != tags]] = _MANY

    def _index(self, grams: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (grams >> np.uint64(self.tier.kept_bits - self._bits)).view(np.int64)

    def _tag(self, grams: NDArray[np.uint64]) -> NDArray[np.uint8]:
        dropped_bits = self.tier.gram_bytes * 8 - self.tier.kept_bits
        shift = np.uint64(int(self._to_tag) - dropped_bits)
        return (grams >> shift).astype(np.uint8) | np.uint8(1)

    def find(self, data: bytes) -> list[Place]:
        """Return where spellings may begin in ``data``, which may be before its start."""
        return list(dict.fromkeys((at - before, length) for at, before, length in self.marks(data)))

    def marks(self, data: bytes, stride: int = 0) -> list[tuple[int, int, int]]:
        """Return the grams in ``data``: where each stands, and what it was added with.

        They are looked for at every ``stride``-th position, 0 for the tier's own.
        """
        stride = stride or self.tier.stride
        count = (len(data) - self.tier.gram_bytes) // stride + 1
        if count <= 0:
            return []
        tier = self.tier
        products = np.ndarray((count,), self._unit, data, 0, (stride,)) * self._factor
        index = products >> self._to_index
        if tier.gram_bytes == 4:
            index = index.astype(np.int64)
        tags = self._tags.take(index.view(np.int64), None, None, "clip")
        wanted = (products >> self._to_tag).astype(np.uint8) | np.uint8(1)
        kept = (tags == wanted) | (tags == _MANY)
        # As bytes: finding one costs a tenth of what numpy's any() does.
        if kept.tobytes().find(1) < 0:
            return []
        at = kept.nonzero()[0]
        return self._look_up(at, self._grams(products[at]), stride)

    def _grams(self, products: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
        return products.astype(np.uint64) >> np.uint64(
            self.tier.gram_bytes * 8 - self.tier.kept_bits
        )

    def _look_up(
        self, at: NDArray[np.intp], grams: NDArray[np.uint64], stride: int
    ) -> list[tuple[int, int, int]]:
        known, recent = self._known, self._recent
        low = grams << np.uint64(_BOTH_BITS)
        first = np.searchsorted(known, low)
        there = (first < len(known)).nonzero()[0]
        there = there[(known[first[there]] >> np.uint64(_BOTH_BITS)) == grams[there]]
        found: list[tuple[int, int, int]] = []
        for position, start in zip(at[there].tolist(), first[there].tolist(), strict=True):
            gram = known[start] >> np.uint64(_BOTH_BITS)
            while start < len(known) and known[start] >> np.uint64(_BOTH_BITS) == gram:
                found.append(_place(position * stride, int(known[start])))
                start += 1  # noqa: PLW2901
        if recent:
            for position, number in zip(at.tolist(), grams.tolist(), strict=True):
                found += [_place(position * stride, one) for one in recent.get(number, ())]
        return found


def _place(at: int, packed: int) -> tuple[int, int, int]:
    return at, packed >> _PLACE_BITS & _PLACE_MASK, packed & _PLACE_MASK

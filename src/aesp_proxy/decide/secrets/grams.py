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

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aesp_proxy.decide.secrets.registered import Tier

_SPARSE_BITS_MAX: Final = 21
"""Up to this size (2 MiB) a table is made to be 1/256 full, beyond it 1/8."""
_TABLE_BITS_MAX: Final = 23
_TAG_BITS: Final = 16
_MANY: Final = 0xFFFF
_FEW: Final = 24
"""So many marks are looked at one by one, more by numpy."""
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

    ``_marks`` says of the upper bits of a hash whether a gram has them, ``_tags`` what the
    next bits of that gram are (``_MANY`` where grams differ). ``_known`` is sorted, each
    (hash, how far before the gram its spelling begins, the spelling's length) in one
    number; ``_recent`` is what is not yet in it.
    """

    __slots__ = (
        "_bits", "_factor", "_known", "_marks", "_multiplier", "_recent", "_tag_mask", "_tag_of",
        "_tag_shift", "_tags", "_to_index", "_unit", "tier",
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
        """Make the tables for indices of ``bits``, empty."""
        tier = self.tier
        self._bits = bits
        self._to_index = self._unit(tier.gram_bytes * 8 - max(bits, 1))
        self._tag_shift = max(0, tier.kept_bits - bits - _TAG_BITS)
        self._tag_mask = (1 << min(tier.kept_bits - bits, _TAG_BITS)) - 1
        self._marks: NDArray[np.bool_] = np.zeros(1 << bits, np.bool_)
        self._tags: NDArray[np.uint16] = np.zeros(1 << bits, np.uint16)
        self._tag_of = memoryview(self._tags)

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
        sparse, dense = (total * 256 - 1).bit_length(), (total * 8 - 1).bit_length()
        most = min(_TABLE_BITS_MAX, self.tier.kept_bits - 8)
        return min(max(min(sparse, _SPARSE_BITS_MAX), dense), most)

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
        """Mark grams, of which none comes twice."""
        index, tags = self._index(grams), self._tag(grams)
        taken = self._marks[index] & (self._tags[index] != tags)
        self._tags[index] = np.where(taken, np.uint16(_MANY), tags)
        self._marks[index] = True
        # Of two new ones at one index the last has left its tag.
        lost = self._tags[index] != tags
        self._tags[index[lost]] = _MANY

    def _index(self, grams: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (grams >> np.uint64(self.tier.kept_bits - self._bits)).view(np.int64)

    def _tag(self, grams: NDArray[np.uint64]) -> NDArray[np.uint16]:
        tags = grams >> np.uint64(self._tag_shift)
        return (tags & np.uint64(self._tag_mask)).astype(np.uint16)

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
        hashes = np.ndarray((count,), self._unit, data, 0, (stride,)) * self._factor
        index = hashes >> self._to_index
        if self.tier.gram_bytes == 4:
            index = index.astype(np.int64)
        # As bytes: finding a mark costs a tenth of what numpy's any() does.
        marked = self._marks.take(index.view(np.int64), None, None, "clip").tobytes()
        first = marked.find(1)
        if first < 0:
            return []
        if marked.count(1) <= _FEW:
            at = [one for one in _all(marked, first) if self._is_tagged(data, one * stride)]
            return self._look_up(np.array(at), self._grams(hashes[at]), stride) if at else []
        some = np.frombuffer(marked, np.bool_).nonzero()[0]
        grams = self._grams(hashes[some])
        tags = self._tags.take(index[some].view(np.int64), None, None, "clip")
        kept = (tags == self._tag(grams)) | (tags == _MANY)
        return self._look_up(some[kept], grams[kept], stride) if kept.any() else []

    def _is_tagged(self, data: bytes, at: int) -> bool:
        tier = self.tier
        gram = tier.hash(data[at : at + tier.gram_bytes], self._multiplier)
        below = tier.kept_bits - self._bits
        tag = self._tag_of[gram >> below]
        return tag in (gram >> self._tag_shift & self._tag_mask, _MANY)

    def _grams(self, products: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
        return products.astype(np.uint64) >> np.uint64(
            self.tier.gram_bytes * 8 - self.tier.kept_bits
        )

    def _look_up(
        self, at: NDArray[np.intp], grams: NDArray[np.uint64], stride: int
    ) -> list[tuple[int, int, int]]:
        known = self._known
        low = grams << np.uint64(_BOTH_BITS)
        lows = np.searchsorted(known, low).tolist()
        highs = np.searchsorted(known, low + np.uint64(1 << _BOTH_BITS)).tolist()
        found: list[tuple[int, int, int]] = []
        for position, gram, first, end in zip(
            at.tolist(), grams.tolist(), lows, highs, strict=True
        ):
            for one in (*known[first:end].tolist(), *self._recent.get(gram, ())):
                before, length = one >> _PLACE_BITS & _PLACE_MASK, one & _PLACE_MASK
                found.append((position * stride, before, length))
        return found


def _all(marked: bytes, at: int) -> Iterator[int]:
    while at >= 0:
        yield at
        at = marked.find(1, at + 1)

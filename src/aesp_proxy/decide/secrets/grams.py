"""Find where data may hold a registered spelling: hashed grams in a filter and sorted arrays.

The tables are made by numpy and hold no value, see ``registered``. They are read by ``_marks``
where that could be compiled, else by numpy, with the same answers (see ``compiled``).

Rules:

- Nothing that was added is missed; what is reported has to be confirmed by its digest.
- A gram that is added counts from the next scan on. Grams are not taken out: who forgets
  a value drops its digests, and what is reported for it then is not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import numpy as np

from aesp_proxy.decide.secrets import compiled, gram_marks
from aesp_proxy.decide.secrets.gram_marks import (
    FIELD_BITS,
    FIELDS,
    HASH_SHIFT,
    PLACE_BITS,
    SHAPE_SHIFT,
    Mark,
    Numbers,
)
from aesp_proxy.decide.secrets.gram_shapes import MASKS, SHAPES
from aesp_proxy.decide.secrets.registered import KEPT_BITS, Tier

_marks = gram_marks.marks if compiled.MARKS is None else compiled.MARKS.marks

_SHAPE_MASK: Final = (1 << HASH_SHIFT - SHAPE_SHIFT) - 1
_FILTER_BITS_MIN: Final = 6
_FILTER_BITS_MAX: Final = 22
"""32 MiB, a word of 64 bits for two grams of 30,000 values."""
_FILTER_BITS_NEAR: Final = 15
"""Up to 256 KiB are near enough to a core to have a word for each gram; more have half."""
_LEVEL_TIMES: Final = 4
"""Each sorted array is so many times as long as the next: few to look into, few to merge."""

Search = Callable[[bytes, bytes], list[Mark]]

Run = tuple[bytes, int, int, bytes]
"""Hashes of grams in a row, where the first of them stands in what they are of, a number below
1,024, and the shapes of the grams (see ``gram_shapes``)."""


class GramTable:
    """The grams of one tier.

    Where it is ``shaped``, they are of windows, and are looked for only where the data have
    their shape; else everywhere.

    Each is in the filter of its shape, three bits of one word, and in one of the sorted arrays
    of ``_known``: see ``gram_marks``.
    """

    __slots__ = ("_factor", "_filters", "_held", "_known", "_masks", "is_shaped", "search", "tier")

    search: Search
    """Return the grams in data, a look at the tier's stride: ``search(before, data)``."""

    def __init__(self, tier: Tier, multiplier: int, *, is_shaped: bool = True) -> None:
        self._factor = multiplier
        self.is_shaped = is_shaped
        self.tier = tier
        self._known: tuple[bytes, ...] = ()
        self._filters = [bytearray() for _ in range(SHAPES)]
        self._held = [0] * SHAPES
        self._masks = bytearray(MASKS)
        self.search = self.at_each(tier.stride)

    def __len__(self) -> int:
        return sum(self._held)

    def at_each(self, stride: int) -> Search:
        """Return a search that looks at one gram in ``stride`` positions, for what is there now.

        The arguments are bound, as most pieces of data have nothing and are done in one call.
        """
        masks = bytes(self._masks) if self.is_shaped else b""
        filters, width = tuple(self._filters), self.tier.gram_bytes
        return partial(_marks, width, stride, self._factor, filters, masks, self._known)

    def add(self, added: Iterable[Run]) -> None:
        """Add grams, which count from the next ``search`` on."""
        runs = [run for run in added if run[0]]
        if not runs:
            return
        grams: Numbers = np.frombuffer(b"".join(run for run, _, _, _ in runs), "<u8")
        sizes = [len(run) // 8 for run, _, _, _ in runs]
        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        firsts = np.repeat([first for _, first, _, _ in runs], sizes)
        begun = (np.arange(len(grams)) - starts + firsts).astype(np.uint64)
        numbers = np.repeat(np.array([number for _, _, number, _ in runs], np.uint64), sizes)
        kinds: Numbers = np.frombuffer(
            b"".join(shapes or bytes(len(run) // 4) for run, _, _, shapes in runs), np.uint8
        ).astype(np.uint64)
        shapes = kinds[::2]
        packed = (grams << np.uint64(HASH_SHIFT)) | (shapes << np.uint64(SHAPE_SHIFT))
        self._keep(np.sort(packed | (begun << np.uint64(PLACE_BITS)) | numbers))
        for shape in sorted(set(shapes.tolist())):
            self._let_pass(int(shape), grams[shapes == shape])
        for kind in np.unique(shapes * np.uint64(MASKS) + kinds[1::2]).tolist():
            shape, mask = divmod(int(kind), MASKS)
            self._masks[mask] |= 1 << shape
        self.search = self.at_each(self.tier.stride)

    def _keep(self, fresh: Numbers) -> None:
        known = [*self._known, fresh.tobytes()]
        while len(known) > 1 and len(known[-2]) < _LEVEL_TIMES * len(known[-1]):
            # Of two sorted runs a stable sort is a merge.
            both = np.frombuffer(b"".join(known[-2:]), np.uint64)
            known[-2:] = [np.sort(both, kind="stable").tobytes()]
        self._known = tuple(known)

    def _let_pass(self, shape: int, grams: Numbers) -> None:
        """Set the bits of grams of a shape; of all there are where the filter must grow."""
        self._held[shape] += len(grams)
        bits = (self._held[shape] - 1).bit_length()
        bits = max(min(bits, _FILTER_BITS_NEAR), min(bits - 1, _FILTER_BITS_MAX), _FILTER_BITS_MIN)
        if len(self._filters[shape]) == 8 << bits:
            _set_bits(self._filters[shape], grams)
            return
        words = bytearray(8 << bits)
        for known in (np.frombuffer(one, np.uint64) for one in self._known):
            here = (known >> np.uint64(SHAPE_SHIFT)) & np.uint64(_SHAPE_MASK) == np.uint64(shape)
            _set_bits(words, known[here] >> np.uint64(HASH_SHIFT))
        self._filters[shape] = words


def _set_bits(held: bytearray, grams: Numbers) -> None:
    """Set the bits of ``grams`` in a filter; see ``gram_marks``."""
    words: Numbers = np.frombuffer(held, np.uint64)
    bits: Numbers = np.zeros(len(grams), np.uint64)
    for field in range(FIELDS):
        place = (grams >> np.uint64(field * FIELD_BITS)) & np.uint64((1 << FIELD_BITS) - 1)
        bits |= np.uint64(1) << place
    index = grams >> np.uint64(KEPT_BITS + 1 - len(words).bit_length())
    np.bitwise_or.at(words, index.view(np.int64), bits)

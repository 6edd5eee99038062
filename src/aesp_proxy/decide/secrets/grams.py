"""Find where data may hold a registered spelling: hashed grams in a filter and sorted arrays.

The tables are made by numpy and hold no value, see ``registered``. They are read by ``_marks``
where that could be compiled, else by numpy, with the same answers (see ``compiled``).

Rules:

- Nothing that was added is missed; what is reported has to be confirmed by its digest.
- A gram that is added counts from the next scan on. Grams are not taken out: who forgets
  a value drops its digests, and what is reported for it then is not confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from aesp_proxy.decide.secrets import compiled, gram_marks
from aesp_proxy.decide.secrets.gram_marks import FIELD_BITS, FIELDS, PLACE_BITS, Mark, Numbers
from aesp_proxy.decide.secrets.registered import KEPT_BITS, Tier

_marks = gram_marks.marks if compiled.MARKS is None else compiled.MARKS.marks

_FILTER_BITS_MIN: Final = 6
_FILTER_BITS_MAX: Final = 22
"""32 MiB, a word of 64 bits for two grams of 30,000 values."""
_FILTER_BITS_NEAR: Final = 15
"""Up to 256 KiB are near enough to a core to have a word for each gram; more have half."""
_LEVEL_TIMES: Final = 4
"""Each sorted array is so many times as long as the next: few to look into, few to merge."""

Place = tuple[int, int]
"""(offset of a spelling in the data, its length)"""


class GramTable:
    """The grams of one tier, of windows without ``separator`` (where it is not empty).

    Each is in the filter ``_words``, three bits of one word; and in one of the sorted arrays
    of ``_known``: (hash, how far before the gram its spelling begins, the spelling's length)
    in one number.
    """

    __slots__ = ("_count", "_factor", "_known", "_separator", "_words", "tier")

    def __init__(self, tier: Tier, multiplier: int, separator: bytes = b"") -> None:
        self._factor = multiplier
        self._separator = separator
        self.tier = tier
        self._known: tuple[Numbers, ...] = ()
        self._words: Numbers = np.zeros(0, np.uint64)
        self._count = 0

    def add(self, added: Iterable[tuple[bytes, int, int]]) -> None:
        """Add grams: each run of them, where its first one stands in what it is of, and a number.

        The number is below 1,024: of spellings their length.
        """
        runs = list(added)
        grams: Numbers = np.frombuffer(b"".join(run for run, _, _ in runs), "<u8")
        if not len(grams):
            return
        sizes = [len(run) // 8 for run, _, _ in runs]
        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        firsts = np.repeat([first for _, first, _ in runs], sizes)
        begun = (np.arange(len(grams)) - starts + firsts).astype(np.uint64)
        numbers = np.repeat(np.array([number for _, _, number in runs], np.uint64), sizes)
        both = (begun << np.uint64(PLACE_BITS)) | numbers
        self._keep(np.sort((grams << np.uint64(2 * PLACE_BITS)) | both))
        self._let_pass(grams)

    def _keep(self, fresh: Numbers) -> None:
        known = [*self._known, fresh]
        while len(known) > 1 and len(known[-2]) < _LEVEL_TIMES * len(known[-1]):
            # Of two sorted runs a stable sort is a merge.
            known[-2:] = [np.sort(np.concatenate(known[-2:]), kind="stable")]
        self._known = tuple(known)

    def _let_pass(self, grams: Numbers) -> None:
        """Set the bits of grams; of all there are where the filter must grow for them."""
        self._count += len(grams)
        bits = (self._count - 1).bit_length()
        bits = max(min(bits, _FILTER_BITS_NEAR), min(bits - 1, _FILTER_BITS_MAX), _FILTER_BITS_MIN)
        if len(self._words) == 1 << bits:
            _set_bits(self._words, grams)
            return
        words: Numbers = np.zeros(1 << bits, np.uint64)
        for known in self._known:
            _set_bits(words, known >> np.uint64(2 * PLACE_BITS))
        self._words = words

    def find(self, data: bytes, before: bytes = b"") -> list[Place]:
        """Return where spellings may begin in ``data``, which may be before its start.

        ``before`` is what stands before it: of a spelling in both a place is returned too.
        """
        marks = self.marks(data, before)
        return list(dict.fromkeys([(at - begun, length) for at, begun, length in marks]))

    def marks(self, data: bytes, before: bytes = b"", stride: int = 0) -> list[Mark]:
        """Return the grams in ``data``: where each stands, and what it was added with.

        One is looked at in each ``stride`` positions, 0 for the tier's own.
        """
        if not self._count:
            return []
        tier = self.tier
        found: list[Mark] = _marks(
            before,
            data,
            tier.gram_bytes,
            stride or tier.stride,
            self._factor,
            self._words,
            self._known,
            self._separator,
        )
        return found


def _set_bits(words: Numbers, grams: Numbers) -> None:
    """Set the bits of ``grams`` in a filter; see ``gram_marks``."""
    bits: Numbers = np.zeros(len(grams), np.uint64)
    for field in range(FIELDS):
        place = (grams >> np.uint64(field * FIELD_BITS)) & np.uint64((1 << FIELD_BITS) - 1)
        bits |= np.uint64(1) << place
    index = grams >> np.uint64(KEPT_BITS + 1 - len(words).bit_length())
    np.bitwise_or.at(words, index.view(np.int64), bits)

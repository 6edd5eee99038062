"""Remember which parts of registered values a session has said, wherever and in what order.

Rules:

- A part is eight bytes of a value that stand in what leaves, in clear. Of pieces of eight
  bytes and more none is missed, whatever stands around it.
- A value is told when the parts make up three quarters of what is enough to tell it (all of
  a value under ``LONG_BYTES``; of a longer one ``WINDOW_BYTES``, from two units or more). A
  unit that says the whole value is not counted: that is what its scan judges.
- What was said before, block by block, is not looked at again: an agent repeats its
  conversation with each request.
- Of a unit with more than ``FINE_BYTES`` that are new, pieces of eleven bytes are found.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from aesp_proxy.decide.secrets.exact import ExactIndex, Whole
from aesp_proxy.model.decision import Finding

LONG_BYTES: Final = 36
WINDOW_BYTES: Final = 24
BLOCK_BYTES: Final = 2_048
BLOCKS_MAX: Final = 32_768
FINE_BYTES: Final = 65_536
"""So many new bytes of a unit are looked at everywhere, the rest at each fourth position."""
COARSE_STRIDE: Final = 4
_PART_BYTES: Final = 8
_PART: Final = (1 << _PART_BYTES) - 1
_ENOUGH, _OF = 3, 4


class CoveredMemory:
    """The parts that one session has said; changed in place, by one thread."""

    __slots__ = ("_blocks", "_said", "_wholes")

    def __init__(self) -> None:
        self._wholes = 0
        self._said: dict[int, int] = {}
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def open(self, index: ExactIndex) -> CoveredUnit:
        """Return what hears a unit that is about to leave."""
        if self._wholes != index.wholes:
            self._blocks.clear()  # which were looked at for others
            self._wholes = index.wholes
        return CoveredUnit(self, index)

    def said(self, number: int) -> int:
        """Return the bytes of a value that were said, a bit each."""
        return self._said.get(number, 0)

    def keep(self, number: int, bits: int) -> None:
        """Remember bytes of a value that leave."""
        self._said[number] = self._said.get(number, 0) | bits

    def is_known(self, block: int) -> bool:
        """Tell whether a block, by its hash, was said before and held no part."""
        return block in self._blocks

    def know(self, blocks: list[int]) -> None:
        """Remember blocks that hold no part."""
        self._blocks.update(dict.fromkeys(blocks))
        while len(self._blocks) > BLOCKS_MAX:
            self._blocks.popitem(last=False)


class CoveredUnit:
    """One unit: what of values it says. ``told`` may be asked as often as it hears more."""

    __slots__ = ("_before", "_bits", "_index", "_looked", "_memory", "_tail", "_total")

    def __init__(self, memory: CoveredMemory, index: ExactIndex) -> None:
        self._memory = memory
        self._index = index
        self._before: dict[int, int] = {}
        self._bits: dict[int, int] = {}
        self._tail = b""
        self._total = 0
        self._looked = 0

    def hear(self, data: bytes) -> None:
        """Take what is about to leave, piece by piece or as a whole."""
        text = self._tail + data
        self._tail = text[1 - _PART_BYTES :]
        at, run, blocks = len(text) - len(data), 0, list[int]()
        while at < len(text):
            stop = min(at + BLOCK_BYTES - self._total % BLOCK_BYTES, len(text))
            if stop - at == BLOCK_BYTES:
                # With the bytes before it, so that no part stands across two blocks unseen.
                block = hash(text[max(0, at - _PART_BYTES + 1) : stop])
                if self._memory.is_known(block):
                    self._look(text[run:at], blocks)
                    run, blocks = stop - _PART_BYTES + 1, []
                else:
                    blocks.append(block)
            self._total += stop - at
            at = stop
        self._look(text[run:], blocks)

    def _look(self, text: bytes, blocks: list[int]) -> None:
        """Look at what was not said before; ``blocks`` are the whole ones in it."""
        if len(text) < _PART_BYTES:
            return
        stride = 1 if self._looked < FINE_BYTES else COARSE_STRIDE
        self._looked += len(text)
        found = self._index.parts(text, stride)
        for at, number in found:
            self._before.setdefault(number, self._memory.said(number))
            self._bits[number] = self._bits.get(number, 0) | _PART << at
        if not found:
            self._memory.know(blocks)

    def told(self) -> tuple[Finding, ...]:
        """Return the values that are told with this unit; nothing told, it is remembered."""
        parts = []
        for number, bits in self._bits.items():
            whole = self._index.whole(number)
            if whole is not None and bits != (1 << whole.size) - 1:
                parts.append((number, bits, whole))
        found = tuple(
            _finding(whole)
            for number, bits, whole in parts
            if _is_news(bits, self._before[number], whole.size)
            and _is_enough(bits | self._before[number], whole.size)
        )
        for number, bits, _ in () if found else parts:
            self._memory.keep(number, bits)
        return found


def _is_news(bits: int, before: int, size: int) -> bool:
    return bool(bits & ~before) and (bool(before) or size < LONG_BYTES)


def _is_enough(bits: int, size: int) -> bool:
    """Tell whether enough of a value is there, in any window of it."""
    window = size if size < LONG_BYTES else WINDOW_BYTES
    mask = (1 << window) - 1
    return any(
        _OF * ((bits >> at) & mask).bit_count() >= _ENOUGH * window
        for at in range(size - window + 1)
    )


def _finding(whole: Whole) -> Finding:
    return Finding(
        rule=whole.rule.id,
        severity=whole.rule.severity,
        location="pieces",
        offset=0,
        masked="***",
        fingerprint=whole.fingerprint,
    )

"""Remember which parts of registered values a session has said, wherever and in what order.

Rules:

- A part is eight bytes of a value that stand in what leaves, in clear. Of pieces of eight
  bytes and more none is missed, whatever stands around it.
- A value is told when the parts make up three quarters of what is enough to tell it (all of
  a value under ``LONG_BYTES``; of a longer one ``WINDOW_BYTES``, from two units or more, or of
  most of it from one that says no value in clear: one may hold another). What a unit says in
  clear, as one, is not counted: its scan judges that.
- What was said before, block by block, is not looked at again: an agent repeats its
  conversation with each request.
- New text is read in further ways too (see ``respelled``), for values that are spelled there.
- Of a unit with more than ``FINE_BYTES`` that are new, pieces of eleven bytes are found behind
  these, and it is read in no further way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from aesp_proxy.decide.secrets.exact import ExactIndex, Whole
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.respelled import readings
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.model.decision import Finding

LONG_BYTES: Final = 36
WINDOW_BYTES: Final = 24
BLOCK_BYTES: Final = 2_048
BLOCKS_MAX: Final = 32_768
FINE_BYTES: Final = 65_536
"""So many new bytes of a unit are looked at everywhere, the rest at each fourth position."""
COARSE_STRIDE: Final = 4
CONTEXT_BYTES: Final = 1_024
_PART_BYTES: Final = 8
_PART: Final = (1 << _PART_BYTES) - 1
_ENOUGH, _OF = 3, 4


class CoveredMemory:
    """The parts that one session has said; changed in place, by one thread.

    ``tell`` is given the fingerprint of a value and the bytes of it that leave, before they
    do; what others have told meanwhile it hands to ``keep``.
    """

    __slots__ = ("_blocks", "_said", "_tell", "_wholes")

    def __init__(self, tell: Callable[[str, int], None] | None = None) -> None:
        self._wholes = 0
        self._said: dict[str, int] = {}
        self._tell = tell
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def open(self, index: ExactIndex) -> CoveredUnit:
        """Return what hears a unit that is about to leave."""
        if self._wholes != index.wholes:
            self._blocks.clear()  # which were looked at for others
            self._wholes = index.wholes
        return CoveredUnit(self, index)

    def said(self, fingerprint: str) -> int:
        """Return the bytes of a value that were said, a bit each."""
        return self._said.get(fingerprint, 0)

    def keep(self, fingerprint: str, bits: int) -> None:
        """Remember bytes of a value that leave."""
        self._said[fingerprint] = self._said.get(fingerprint, 0) | bits

    def tell(self, fingerprint: str, bits: int) -> None:
        """Have others know bytes that leave, where there are any that do not."""
        if self._tell is not None and bits & ~self.said(fingerprint):
            self._tell(fingerprint, bits)

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

    __slots__ = (
        "_before", "_bits", "_clear", "_context", "_found", "_index", "_looked", "_memory",
        "_told", "_total",
    )  # fmt: skip

    def __init__(self, memory: CoveredMemory, index: ExactIndex) -> None:
        self._memory = memory
        self._index = index
        self._before: dict[int, int] = {}
        self._bits: dict[int, int] = {}
        self._clear: set[str] = set()
        self._context = b""
        self._found: dict[str, Finding] = {}
        self._told: set[tuple[str, str]] = set()
        self._total = 0
        self._looked = 0

    def hear(self, data: bytes) -> None:
        """Take what is about to leave, piece by piece or as a whole."""
        text = self._context + data
        at = len(self._context)
        run, blocks = max(0, at - _PART_BYTES + 1), list[int]()
        while at < len(text):
            stop = min(at + BLOCK_BYTES - self._total % BLOCK_BYTES, len(text))
            if stop - at == BLOCK_BYTES:
                # With the bytes before it, so that no part stands across two blocks unseen.
                block = hash(text[max(0, at - _PART_BYTES + 1) : stop])
                if self._memory.is_known(block):
                    self._look(text, run, at, blocks)
                    run, blocks = stop - _PART_BYTES + 1, []
                else:
                    blocks.append(block)
            self._total += stop - at
            at = stop
        self._look(text, run, at, blocks)
        self._context = text[-CONTEXT_BYTES:]

    def _look(self, text: bytes, start: int, stop: int, blocks: list[int]) -> None:
        """Look at a part of ``text`` not said before; ``blocks`` are the whole ones in it."""
        if stop - start < _PART_BYTES:
            return
        stride = 1 if self._looked < FINE_BYTES else COARSE_STRIDE
        self._looked += stop - start
        found = self._index.parts(text[start:stop], stride)
        for at, number in found:
            whole = self._index.whole(number)
            if whole is not None:
                self._before.setdefault(number, self._memory.said(whole.fingerprint))
            self._bits[number] = self._bits.get(number, 0) | _PART << at
        near = text[max(0, start - CONTEXT_BYTES) : stop]
        if found:
            self._clear.update(one.rule.id for one in self._index.block(near)[0])
        if not (self._respelled(near) or found):
            self._memory.know(blocks)

    def _respelled(self, text: bytes) -> bool:
        """Look at further readings of a text; what stands in it in clear is left to its scan."""
        if self._looked > FINE_BYTES:
            return False
        seen: dict[str, tuple[str, Candidate]] = {}
        for how, shown in readings(text):
            for one in self._index.block(shown)[0]:
                seen.setdefault(one.rule.id, (how, one))
        clear = {one.rule.id for one in self._index.block(text)[0]} if seen else set()
        for rule_id in seen.keys() - clear:
            how, one = seen[rule_id]
            self._found[rule_id] = _finding(one.rule, one.fingerprint, how)
        return bool(seen)

    def told(self) -> tuple[Finding, ...]:
        """Return the values that are told with this unit, each once; none, it is remembered."""
        parts = []
        for number, bits in self._bits.items():
            whole = self._index.whole(number)
            if whole is not None and whole.rule.id not in self._clear:
                parts.append((bits, self._before.get(number, 0), whole))
        found = self._most(parts) or self._enough(parts) or self._kept(parts)
        found += tuple(self._found.values())
        fresh = tuple(one for one in found if (one.rule, one.via) not in self._told)
        self._told.update((one.rule, one.via) for one in fresh)
        return fresh

    def _most(self, parts: list[tuple[int, int, Whole]]) -> tuple[Finding, ...]:
        """Return the values that this unit alone says for the most part, in pieces."""
        return tuple(
            _finding(whole.rule, whole.fingerprint)
            for bits, _, whole in parts
            if not self._clear and _is_most(bits, whole.size)
        )

    def _kept(self, parts: list[tuple[int, int, Whole]]) -> tuple[Finding, ...]:
        """Remember what leaves; return what is told with what others said at the same time."""
        if self._found:
            return ()
        for bits, _, whole in parts:
            self._memory.tell(whole.fingerprint, bits)
        late = [
            (bits, before | self._memory.said(whole.fingerprint), whole)
            for bits, before, whole in parts
        ]
        for bits, _, whole in parts:
            self._memory.keep(whole.fingerprint, bits)
        return self._enough(late)

    @staticmethod
    def _enough(parts: list[tuple[int, int, Whole]]) -> tuple[Finding, ...]:
        return tuple(
            _finding(whole.rule, whole.fingerprint)
            for bits, before, whole in parts
            if _is_news(bits, before, whole.size) and _is_enough(bits | before, whole.size)
        )


def _is_news(bits: int, before: int, size: int) -> bool:
    return bool(bits & ~before) and (bool(before) or size < LONG_BYTES)


def _is_most(bits: int, size: int) -> bool:
    """Tell whether that is a long value for the most part: many share the beginning."""
    return _OF * bits.bit_count() >= _ENOUGH * size


def _is_enough(bits: int, size: int) -> bool:
    """Tell whether enough of a value is there, in any window of it."""
    window = size if size < LONG_BYTES else WINDOW_BYTES
    mask = (1 << window) - 1
    return any(
        _OF * ((bits >> at) & mask).bit_count() >= _ENOUGH * window
        for at in range(size - window + 1)
    )


def _finding(rule: Rule, fingerprint: str, via: str = "") -> Finding:
    return Finding(
        rule=rule.id,
        severity=rule.severity,
        location="content" if via else "pieces",
        offset=0,
        masked="***",
        fingerprint=fingerprint,
        via=via,
    )

"""Remember what a session says piece by piece, so that a secret cut over requests is put together.

A unit is what leaves at once: the target of a request, one header field, a short body, a
message, a name. It is split into slots at its separators. Units of the same kind and number
of slots are one *shape*; a slot that changes from one unit of a shape to the next *moves*, and
what moves is joined, in order and the other way round, to be scanned as if it stood there.

Rules:

- Nothing is kept but by ``keep``: what was refused has not left and is no piece.
- Memory is bounded: ``SHAPES_MAX`` shapes and ``TAPES_MAX`` slots that move, the oldest
  shape goes; of each slot ``TAPE_BYTES``, or two pieces of together ``PAIR_BYTES``.
- A shape is known by itself and with its host: pieces to several hosts meet in the one, and
  what an agent honestly says to another host between two pieces does not come between
  them in the other.
- What is joined by chance must not look like a secret: see ``Joined.is_made_of``.
- A unit like the one before it costs a comparison. Of what moves so many small values are
  made that they are named tuples: a frozen dataclass takes twice as long to make.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from aesp_proxy.decide.secrets.slots import from_base64, inner, is_word, shown

SHAPES_MAX: Final = 256
SLOTS_MAX: Final = 256
MOVING_MAX: Final = 24
TAPES_MAX: Final = 4_096
TAPE_BYTES: Final = 256
PAIR_BYTES: Final = 2_048
NEW_BYTES_MIN: Final = 4
"""So long a piece that comes again is none, in one of the readings."""
_PAIR: Final = 2
_TIMES_MAX: Final = 3
"""So often a piece may have come before anything moves."""
_SHORT_BYTES_MAX: Final = 7
_SAYS_BYTES_MIN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What leaves at once: its slots in order. ``host`` is where it goes."""

    kind: str
    host: str
    slots: tuple[bytes, ...]


class Joined(NamedTuple):
    """Pieces put together as ``text``; the newest is the last, or the first when ``turned``.

    ``pieces`` is empty where the text is what they say when decoded; ``sources`` are those
    that it was made of in any case.
    """

    text: bytes
    pieces: tuple[bytes, ...] = ()
    turned: bool = False
    sources: tuple[bytes, ...] = ()

    def is_said_by_one(self, value: bytes) -> bool:
        """Tell whether one of the pieces says ``value`` by itself: its own scan has judged it."""
        return any(
            value in text for one in self.pieces or self.sources for text in (one, *shown(one))
        )

    def is_made_of(self, start: int, stop: int, literals: Sequence[bytes]) -> bool:
        """Tell whether what stands there was cut to these pieces, and not joined by chance.

        It ends where a piece ends, and the newest is part of it. Of the pieces that begin in
        it none is a word, and most come once. Where only one of the ``literals`` stands in
        the first piece (somebody says how tokens begin), all others are short.
        """
        at, ends, begun = 0, [], []
        for piece in self.pieces:
            if start < at < stop:
                begun.append(piece)
            at += len(piece)
            ends.append(at)
        reaches = start < len(self.pieces[0]) if self.turned else stop == at
        if not reaches or stop not in ends or not begun or any(map(is_word, begun)):
            return False
        first = self.text[start : next(end for end in ends if end > start)]
        says = len(first) - max((len(text) for text in literals if text in first), default=0)
        is_fine = max(map(len, begun)) <= _SHORT_BYTES_MAX
        return (says >= _SAYS_BYTES_MIN or is_fine) and 2 * len(set(begun)) > len(begun)


class _Tape(NamedTuple):
    """The last pieces, oldest first, and how many bytes they are."""

    pieces: tuple[bytes, ...] = ()
    size: int = 0

    def longer(self, piece: bytes) -> _Tape:
        """Return the tape with another piece, and without the oldest ones over the bound."""
        if not piece:
            return self
        pieces, size = (*self.pieces, piece), self.size + len(piece)
        first, last = 0, len(pieces)
        while size > TAPE_BYTES and (last - first > _PAIR or size > PAIR_BYTES) and first < last:
            size -= len(pieces[first])
            first += 1
        return _Tape(pieces[first:], size)


_EMPTY: Final = _Tape()


class _Slot(NamedTuple):
    """One slot that moves, as it may be read.

    ``whole`` are its pieces as they come; ``fresh`` those that are no words and not there
    yet; ``inner`` what changes in them; ``plain`` what they say in base64. A slot that never
    ``says`` anything but numbers counts or measures.
    """

    whole: _Tape = _EMPTY
    fresh: _Tape = _EMPTY
    inner: _Tape = _EMPTY
    plain: _Tape = _EMPTY
    says: bool = False

    def longer(self, before: bytes, piece: bytes) -> _Slot:
        """Return the slot with another piece; ``before`` is the one before it."""
        is_fresh = not is_word(piece) and (
            len(piece) < NEW_BYTES_MIN or piece not in self.fresh.pieces
        )
        whole = self.whole.longer(piece)
        same = self.fresh is self.whole
        fresh = (whole if same else self.fresh.longer(piece)) if is_fresh else self.fresh
        old, new = inner(before, piece)
        part = self.inner
        if new != piece or part.pieces:
            part = (part if part.pieces else _EMPTY.longer(old)).longer(new)
        says, plain = from_base64(piece), _EMPTY
        if says:
            plain = self.plain if self.plain.pieces else _EMPTY.longer(from_base64(before))
            plain = plain.longer(says)
        return _Slot(whole, fresh, part, plain, self.says or bool(_no_number(piece)))

    def joined(self) -> Iterator[Joined]:
        """Yield what the pieces are together; nothing where they are numbers."""
        whole = self.whole.pieces
        if len(whole) < _PAIR or not self.says:
            return
        for tape in dict.fromkeys((whole, self.fresh.pieces, self.inner.pieces)):
            if len(tape) < _PAIR:
                continue
            text = b"".join(tape)
            yield Joined(text, tape)
            yield Joined(b"".join(tape[::-1]), tape[::-1], turned=True)
            for decoded in shown(text):
                yield Joined(decoded, sources=tape)
        if len(self.plain.pieces) >= _PAIR:
            yield Joined(b"".join(self.plain.pieces), sources=self.plain.pieces)


class _Shape:
    """The units of one shape: the last one, and the slots that have moved.

    The key of a slot is its number; ``-1`` is all that moves, unit by unit.
    """

    __slots__ = ("last", "slots", "times")

    def __init__(self, last: tuple[bytes, ...]) -> None:
        self.last = last
        self.times = 0
        self.slots: dict[int, _Slot] = {}

    def says_nothing(self, unit: Unit) -> bool:
        """Whether a unit is like the one before it."""
        return self.last == unit.slots and not self.slots

    def knows(self, unit: Unit) -> bool:
        """Whether a unit says nothing, and one more of it changes nothing either."""
        return self.times == _TIMES_MAX and self.says_nothing(unit)

    def longer(self, slots: tuple[bytes, ...]) -> dict[int, _Slot]:
        """Return the slots that move when these come next, as they are then."""
        known, last = self.slots, self.last
        moving = [n for n, one in enumerate(slots) if n in known or one != last[n]]
        pairs = [(number, last[number], slots[number]) for number in moving]
        if len(pairs) > MOVING_MAX:
            pairs = []  # a table of measurements, not a piece
        told = [pair for pair in pairs if not (pair[1].isdigit() and pair[2].isdigit())]
        if len(told) > 1:  # what counts is no piece, nor is a word
            pairs.append((-1, _without_words(told, 1), _without_words(told, 2)))
        return {
            number: (known.get(number) or _begun(before, self.times)).longer(before, piece)
            for number, before, piece in pairs
        }


def _no_number(piece: bytes) -> bytes:
    return piece.translate(None, b"0123456789.")


def _begun(before: bytes, times: int) -> _Slot:
    """Return a slot that begins to move after ``before`` has come so many times."""
    tape = whole = _EMPTY.longer(before)
    for _ in range(times - 1):
        whole = whole.longer(before)
    fresh = _EMPTY if is_word(before) else tape
    return _Slot(whole, fresh, says=bool(_no_number(before)))


def _without_words(pairs: Iterable[tuple[int, bytes, bytes]], which: int) -> bytes:
    slots: Iterator[bytes] = (pair[which] for pair in pairs)  # type: ignore[misc]
    return b"".join(slot for slot in slots if not is_word(slot))


class Step(NamedTuple):
    """What a unit would change: each shape it belongs to, with its slots that move.

    ``is_news`` is false where the unit has come often and nothing ever moves.
    """

    unit: Unit
    changes: tuple[tuple[tuple[str, str, int], dict[int, _Slot]], ...]
    is_news: bool = True

    def joined(self) -> list[Joined]:
        """Return what the pieces are together with those of the unit."""
        found: dict[Joined, None] = {}
        done: object = None
        for _, slots in self.changes:
            if slots is not done:  # with and without its host a shape mostly says the same
                for slot in slots.values():
                    found.update(dict.fromkeys(slot.joined()))
            done = slots
        return list(found)


_UNMOVED: Final[dict[int, _Slot]] = {}


class PieceMemory:
    """The shapes of one session; changed in place, by one thread."""

    __slots__ = ("_shapes", "_tapes")

    def __init__(self) -> None:
        self._shapes: OrderedDict[tuple[str, str, int], _Shape] = OrderedDict()
        self._tapes = 0

    def step(self, unit: Unit) -> Step:
        """Return what ``unit`` would change; nothing is kept until ``keep``, when it leaves."""
        changes: list[tuple[tuple[str, str, int], dict[int, _Slot]]] = []
        other: _Shape | None = None
        is_news = False
        for key in _keys(unit):
            shape = self._shapes.get(key)
            is_news = is_news or shape is None or not shape.knows(unit)
            if shape is None or shape.says_nothing(unit):
                changes.append((key, _UNMOVED))
            elif other is not None and shape.slots is other.slots and shape.last == other.last:
                changes.append((key, changes[0][1]))  # nobody but one host has this shape
            else:
                changes.append((key, shape.longer(unit.slots)))
            other = shape
        return Step(unit, tuple(changes), is_news)

    def keep(self, step: Step) -> None:
        """Remember a unit that leaves."""
        slots: dict[int, _Slot] = {}
        for number, (key, change) in enumerate(step.changes):
            shape = self._shapes.get(key)
            if shape is not None and not step.is_news:
                self._shapes.move_to_end(key)
                continue
            if shape is None:
                shape = self._shapes[key] = _Shape(step.unit.slots)
            is_shared = number and change is step.changes[0][1]
            slots = slots if is_shared else {**shape.slots, **change}
            self._tapes += len(slots) - len(shape.slots)
            shape.slots, shape.last = slots, step.unit.slots
            shape.times = min(shape.times + 1, _TIMES_MAX)
            self._shapes.move_to_end(key)
        while len(self._shapes) > SHAPES_MAX or (self._tapes > TAPES_MAX and self._shapes):
            _, gone = self._shapes.popitem(last=False)
            self._tapes -= len(gone.slots)


def _keys(unit: Unit) -> tuple[tuple[str, str, int], ...]:
    count = len(unit.slots)
    if not 0 < count <= SLOTS_MAX:
        return ()
    return (unit.kind, "", count), (unit.kind, unit.host, count)

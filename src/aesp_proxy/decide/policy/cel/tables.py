"""Tables of an index: for a value, which entries it leaves, as bits of an int.

Entry ``n`` is bit ``n``. A table holds at most one atom of an entry; entries without one
are always left. A table is never wrong about what it takes away: where the value is
of no use to the table (no number, a text that is no UTF-8) it raises ``EvaluationError``,
and then the entries evaluate the atom themselves.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import re2

from aesp_proxy.decide.policy.cel.atoms import Ask, Atom
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.prepared import Address, Network, Networks, Pattern

Placed = tuple[Atom, int]
"""An atom and the bit of its entry."""

BOUNDS_MAX = 1_024
"""Different bounds that a table of bounds holds: its size is bounds times entries."""

_MEMORY_BYTES_MAX = 64 * 1024 * 1024


Table = Callable[[object], int]
"""Takes a value to the entries that it leaves: one subject, one question."""


LookUp = tuple[Callable[[object, int], int], int]
"""What takes a value, and what is left where it does not occur, to the entries that it leaves."""


def table_of(ask: Ask, placed: Sequence[Placed], everything: int) -> Table:
    """Build the table of one question; ``everything`` has the bits of all entries."""
    match ask:
        case Ask.EQUAL:
            return _equal(placed, everything)
        case Ask.MEMBER:
            return cast("Table", _Keyed(placed, everything).after)
        case Ask.PREFIX:
            return _Affix(placed, everything, at_end=False).left
        case Ask.SUFFIX:
            return _Affix(placed, everything, at_end=True).left
        case Ask.REGEX:
            return _Regex(placed, everything).left
        case Ask.NETWORK:
            return _Networks(placed, everything).left
        case Ask.ABOVE | Ask.BELOW:
            return _Bounds(placed, everything, above=ask is Ask.ABOVE).left


class _Keyed:
    """Entries by key: those that want one of their keys hit, and those that want none."""

    __slots__ = ("base", "keys", "taken", "wanted")

    def __init__(self, placed: Sequence[Placed], everything: int) -> None:
        self.base = everything
        self.wanted: dict[object, int] = {}
        self.taken: dict[object, int] = {}
        for atom, bit in placed:
            if not atom.negated:
                self.base &= ~bit
            target = self.taken if atom.negated else self.wanted
            for key in atom.keys:
                target[key] = target.get(key, 0) | bit
        self.keys = list({**self.wanted, **self.taken})

    def after(self, hits: Iterable[object]) -> int:
        """Return the entries that are left when these keys are hit."""
        left, wanted, taken = self.base, self.wanted, self.taken
        if not taken:
            for hit in hits:
                if hit in wanted:
                    left |= wanted[hit]
            return left
        gone = 0
        for hit in hits:
            left |= wanted.get(hit, 0)
            gone |= taken.get(hit, 0)
        return left & ~gone

    def numbered(self) -> tuple[list[int], list[int]]:
        """Return what each key wants and takes, in the order of ``keys``."""
        return (
            [self.wanted.get(key, 0) for key in self.keys],
            [self.taken.get(key, 0) for key in self.keys],
        )


def look_up_of(placed: Sequence[Placed], everything: int) -> LookUp:
    """Return the table of EQUAL as the look-up that it is; see ``LookUp``."""
    keyed = _Keyed(placed, everything)
    return {key: keyed.after((key,)) for key in keyed.keys}.get, keyed.base


def _equal(placed: Sequence[Placed], everything: int) -> Table:
    by_value, base = look_up_of(placed, everything)
    return lambda value: by_value(value, base)


class _Affix:
    """Beginnings or ends of a text, by length: one look-up a length that occurs."""

    __slots__ = ("_at_end", "_keyed", "_lengths")

    def __init__(self, placed: Sequence[Placed], everything: int, *, at_end: bool) -> None:
        self._keyed = _Keyed(placed, everything)
        self._lengths = sorted({len(str(key)) for key in self._keyed.keys})
        self._at_end = at_end

    def left(self, value: object) -> int:
        text = cast("str", value)
        size = len(text)
        if self._at_end:
            return self._keyed.after([text[size - n :] for n in self._lengths if n <= size])
        return self._keyed.after([text[:n] for n in self._lengths if n <= size])


class _Regex:
    """All patterns on one subject as one automaton of RE2.

    The last pattern matches every text: an automaton that has run out of memory says so by
    matching nothing, and must not be taken at its word.
    """

    __slots__ = ("_base", "_set", "_taken", "_wanted")

    def __init__(self, placed: Sequence[Placed], everything: int) -> None:
        keyed = _Keyed(placed, everything)
        self._base = keyed.base
        self._wanted, self._taken = keyed.numbered()
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY_BYTES_MAX
        self._set = re2.Set.SearchSet(options)
        for pattern in keyed.keys:
            self._set.Add(cast("Pattern", pattern).text)
        self._set.Add("")
        self._set.Compile()

    def left(self, value: object) -> int:
        wanted, taken = self._wanted, self._taken
        left, gone, sentinel = self._base, 0, len(wanted)
        awake = False
        try:
            hits = self._set.Match(cast("str", value))
        except (UnicodeError, re2.error):
            raise EvaluationError("a text that cannot be searched") from None
        for hit in hits:
            if hit == sentinel:
                awake = True
            else:
                left |= wanted[hit]
                gone |= taken[hit]
        if not awake:
            raise EvaluationError("patterns that take too much memory together")
        return left & ~gone


class _Networks:
    __slots__ = ("_base", "_rows")

    def __init__(self, placed: Sequence[Placed], everything: int) -> None:
        keyed = _Keyed(placed, everything)
        self._base = keyed.base
        networks = [cast("Network | Networks", key) for key in keyed.keys]
        self._rows = list(zip(networks, *keyed.numbered(), strict=True))

    def left(self, value: object) -> int:
        address = cast("Address", value)
        left, gone = self._base, 0
        for network, wanted, taken in self._rows:
            if network.holds(address):
                left |= wanted
                gone |= taken
        return left & ~gone


class _Bounds:
    """Bounds on one side, sorted; for each place between them, the entries that are left."""

    __slots__ = ("_bounds", "_steps")

    def __init__(self, placed: Sequence[Placed], everything: int, *, above: bool) -> None:
        # A bound that is itself inside or outside is two places: (bound, 0) and (bound, 1).
        def place(atom: Atom) -> tuple[float, int]:
            bound = cast("float", atom.keys[0])
            return bound, int(atom.strict == above)

        self._bounds = sorted({place(atom) for atom, _ in placed})
        base = everything
        for _, bit in placed:
            base &= ~bit
        steps = [0] * (len(self._bounds) + 1)
        for atom, bit in placed:
            at = bisect_left(self._bounds, place(atom))
            inside = range(at + 1, len(steps)) if above else range(at + 1)
            for step in inside:
                steps[step] |= bit
        self._steps = [step | base for step in steps]

    def left(self, value: object) -> int:
        number = cast("float", value)
        if number != number:  # noqa: PLR0124 - a NaN has no place among bounds
            raise EvaluationError("no number")
        return self._steps[bisect_right(self._bounds, (number, 0.5))]

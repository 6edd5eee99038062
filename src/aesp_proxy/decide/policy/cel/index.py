"""Which of many conditions hold for an event: tables first, evaluation for what is left.

An entry is a conjunction: atoms that tables decide, and a residue that is evaluated. Each
table takes away the entries whose atom is false, which is sound because in CEL
``false && error`` is false. Where a subject has no value (an unknown fact, an error) its
tables take nothing away and the entries that ask it are evaluated whole, so that the error
comes out as CEL has it. Equal residues are evaluated once an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import itemgetter, or_
from typing import Final

from aesp_proxy.decide.policy.cel.atoms import Ask, Atom, atom_of
from aesp_proxy.decide.policy.cel.bits import numbers_of
from aesp_proxy.decide.policy.cel.emit import Slots, emit, loops
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.cel.tables import (
    BOUNDS_MAX,
    Placed,
    Table,
    look_up_of,
    table_of,
)
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.cel.types import BOOL

_SLOWNESS: Final = (Ask.EQUAL, Ask.MEMBER, Ask.ABOVE, Ask.BELOW, Ask.PREFIX, Ask.SUFFIX,
                    Ask.NETWORK, Ask.REGEX)  # fmt: skip
_ALWAYS = Term(op="const", type=BOOL, value=True)


@dataclass(frozen=True, slots=True)
class Failed:
    """What a condition gives that has no value; the text names facts and operations only."""

    why: str


_Asks = Mapping[Ask, Sequence[Placed]]
"""The atoms of a subject, by what is asked of it."""


class _Function:
    """A conjunction, compiled: true, false, or why it has no value."""

    __slots__ = ("_counts", "_evaluate")

    def __init__(self, term: Term, slot_of: Mapping[str, int]) -> None:
        self._evaluate = emit(term, slot_of)
        self._counts = loops(term)

    def __call__(self, slots: Slots) -> bool | Failed:
        if self._counts:
            slots[0][0] = STEPS_MAX  # type: ignore[index]
        try:
            return self._evaluate(slots) is True
        except EvaluationError as failure:
            return Failed(str(failure))


class ConditionIndex:
    """Entries, each a tuple of conjuncts; built once, asked for each event."""

    def __init__(self, entries: Sequence[tuple[Term, ...]], slot_of: Mapping[str, int]) -> None:
        self._slot_of = slot_of
        self._entries = tuple(entries)
        self.everything = (1 << len(entries)) - 1
        self._functions: list[_Function] = []
        self._wholes: dict[int, _Function] = {}
        tables, residues = _sorted_out(entries)
        # The quick tables first: what they leave may not need the slow ones at all. Each row
        # begins with where the value comes from and the entries that ask it.
        of_facts = sorted(_of_facts(tables), key=lambda each: _slowness(*each))
        self._look_ups = tuple(
            (self._slot(term), _users(asks), *look_up_of(asks[Ask.EQUAL], self.everything))
            for term, asks in of_facts
            if Ask.EQUAL in asks
        )
        self._facts = tuple(
            (self._slot(term), _users(asks), self._tables(asks)[0])
            for term, asks in of_facts
            if Ask.EQUAL not in asks
        )
        self._terms = tuple(
            (emit(term, slot_of), _users(asks), self._tables(asks))
            for term, asks in sorted(tables.items(), key=lambda each: _slowness(*each))
            if term.op != "fact"
        )
        self._computing = _bits_of(users for _, users, _ in self._terms)
        self.residues = tuple(_conjunction(residue) for residue in residues)
        self._residue_of = tuple(self._numbered())
        self._unsure = _bits_of(1 << n for n, at in enumerate(self._residue_of) if at >= 0)

    def _numbered(self) -> Iterator[int]:
        """Yield the function of each entry's residue, -1 for none; equal ones are one."""
        numbers: dict[Term, int] = {}
        for residue in self.residues:
            if residue is None:
                yield -1
                continue
            number = numbers.setdefault(residue, len(self._functions))
            if number == len(self._functions):
                self._functions.append(_Function(residue, self._slot_of))
            yield number

    def _slot(self, term: Term) -> int:
        return self._slot_of[str(term.value)]

    def _tables(self, asks: _Asks) -> tuple[Table, ...]:
        return tuple(table_of(ask, placed, self.everything) for ask, placed in asks.items())

    def holding(self, slots: Slots, left: int) -> list[tuple[int, bool | Failed]]:
        """Return the entries that hold or have no value, of those in the bits of ``left``."""
        unknown = 0
        # Loops without a call of ours between them: every event waits for this.
        for slot, users, look_up, base in self._look_ups:
            if left & users:
                value = slots[slot]
                if value is None:
                    unknown |= users
                else:
                    left &= look_up(value, base)
        for slot, users, table in self._facts:
            if left & users:
                value = slots[slot]
                if value is None:
                    unknown |= users
                    continue
                try:
                    left &= table(value)
                except EvaluationError:
                    unknown |= users
        if left & self._computing:
            left, unknown = self._computed(slots, left, unknown)
        return self._evaluated(slots, left, unknown) if left else []

    def _computed(self, slots: Slots, left: int, unknown: int) -> tuple[int, int]:
        """Ask the tables of what is worked out from facts, such as the hour of a time."""
        for evaluate, users, tables in self._terms:
            if left & users:
                try:
                    value = evaluate(slots)
                    if value is None:
                        unknown |= users
                        continue
                    for table in tables:
                        left &= table(value)
                except EvaluationError:
                    unknown |= users
        return left, unknown

    def _evaluated(self, slots: Slots, left: int, unknown: int) -> list[tuple[int, bool | Failed]]:
        """Evaluate what the tables have left; of an ``unknown`` subject, the whole entry."""
        if not left & (self._unsure | unknown):
            return [(number, True) for number in numbers_of(left)]
        found: list[tuple[int, bool | Failed]] = []
        known: dict[int, bool | Failed] = {-1: True}
        residue_of, functions = self._residue_of, self._functions
        for number in numbers_of(left & ~unknown if unknown else left):
            residue = residue_of[number]
            if residue not in known:
                known[residue] = functions[residue](slots)
            result = known[residue]
            if result is not False:
                found.append((number, result))
        if unknown:
            for number in numbers_of(left & unknown):
                result = self._whole(number)(slots)
                if result is not False:
                    found.append((number, result))
            found.sort(key=itemgetter(0))
        return found

    def _whole(self, number: int) -> _Function:
        made = self._wholes.get(number)
        if made is None:
            whole = _conjunction(self._entries[number])
            made = _Function(whole or _ALWAYS, self._slot_of)
            self._wholes[number] = made
        return made


def _bits_of(bits: Iterable[int]) -> int:
    return reduce(or_, bits, 0)


def _users(asks: _Asks) -> int:
    return _bits_of(bit for placed in asks.values() for _, bit in placed)


def _of_facts(tables: Mapping[Term, _Asks]) -> Iterator[tuple[Term, _Asks]]:
    """Yield each table of a fact by itself."""
    for term, asks in tables.items():
        if term.op == "fact":
            for ask, placed in asks.items():
                yield term, {ask: placed}


def _slowness(_: Term, asks: _Asks) -> tuple[int, int]:
    slowest = max(_SLOWNESS.index(ask) for ask in asks)
    return slowest, -sum(len(placed) for placed in asks.values())


def _sorted_out(
    entries: Sequence[tuple[Term, ...]],
) -> tuple[dict[Term, dict[Ask, list[Placed]]], list[tuple[Term, ...]]]:
    """Give each entry's atoms to tables, one a table, and keep the rest as its residue."""
    tables: dict[Term, dict[Ask, list[Placed]]] = {}
    bounds: dict[tuple[Term, Ask], set[object]] = {}
    residues: list[tuple[Term, ...]] = []
    for number, conjuncts in enumerate(entries):
        bit, taken, residue = 1 << number, set[tuple[Term, Ask]](), []
        for conjunct in conjuncts:
            atom = atom_of(conjunct)
            place = None if atom is None else (atom.subject, atom.ask)
            if atom is None or place is None or place in taken or not _fits(atom, bounds):
                residue.append(conjunct)
                continue
            taken.add(place)
            tables.setdefault(atom.subject, {}).setdefault(atom.ask, []).append((atom, bit))
        residues.append(tuple(residue))
    return tables, residues


def _fits(atom: Atom, bounds: dict[tuple[Term, Ask], set[object]]) -> bool:
    if atom.ask not in (Ask.ABOVE, Ask.BELOW):
        return True
    known = bounds.setdefault((atom.subject, atom.ask), set())
    known.add(atom.keys[0])
    return len(known) <= BOUNDS_MAX


def _conjunction(conjuncts: tuple[Term, ...]) -> Term | None:
    if not conjuncts:
        return None
    if len(conjuncts) == 1:
        return conjuncts[0]
    return Term(op="and", type=BOOL, args=conjuncts, fallible=any(c.fallible for c in conjuncts))

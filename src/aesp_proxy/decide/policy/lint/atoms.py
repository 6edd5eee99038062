"""What one part of a condition says of another: implied, or never true together.

Parts are atoms (one subject against constants); yes is always right, and what is not
decided is no. A part that has no value has none where the other, on the same subject, has
none either, so what is implied may take its place, errors included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, cast

from aesp_proxy.decide.policy.cel.atoms import Ask, Atom, atom_of
from aesp_proxy.decide.policy.cel.prepared import Address, Network, Networks, Pattern
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.cel.types import Kind

_WHOLE: Final = frozenset({Kind.INT, Kind.UINT, Kind.LEVEL, Kind.TIMESTAMP, Kind.DURATION})
Net = IPv4Network | IPv6Network


def read(term: Term) -> Atom | None:
    """Return the atom that a part is; of a flag, one that is not negated."""
    atom = atom_of(term)
    if atom is None or not atom.negated or atom.ask is not Ask.EQUAL:
        return atom
    if atom.subject.type.kind is Kind.BOOL:
        keys = tuple(value for value in (True, False) if value not in atom.keys)
        return Atom(subject=atom.subject, ask=Ask.EQUAL, keys=keys)
    return atom


def holds(atom: Atom, value: object) -> bool:
    """Tell whether an atom holds of a value of its subject."""
    hit = any(_hits(atom, key, value) for key in atom.keys)
    return hit is not atom.negated


def _hits(atom: Atom, key: object, value: object) -> bool:
    match atom.ask:
        case Ask.EQUAL:
            return value == key
        case Ask.MEMBER:
            return key in cast("Sequence[object]", value)
        case Ask.PREFIX:
            return str(value).startswith(str(key))
        case Ask.SUFFIX:
            return str(value).endswith(str(key))
        case Ask.REGEX:
            return cast("Pattern", key).program.search(str(value)) is not None
        case Ask.NETWORK:
            return cast("Network | Networks", key).holds(cast("Address", value))
        case Ask.ABOVE:
            left, right = cast("float", value), cast("float", key)
            return left > right if atom.strict else left >= right
        case Ask.BELOW:
            left, right = cast("float", value), cast("float", key)
            return left < right if atom.strict else left <= right


def implies(given: Term, wanted: Term) -> bool:
    """Tell whether one part, where it holds, makes another hold."""
    if given == wanted or (wanted.op == "const" and wanted.value is True):
        return True
    return _parts_imply(given, wanted) or _atom_implies(given, wanted)


def _parts_imply(given: Term, wanted: Term) -> bool:
    if wanted.op == "and":
        return all(implies(given, each) for each in wanted.args)
    if given.op == "or":
        return all(implies(each, wanted) for each in given.args)
    if given.op == "and":
        return any(implies(each, wanted) for each in given.args)
    return wanted.op == "or" and any(implies(given, each) for each in wanted.args)


def _atom_implies(given: Term, wanted: Term) -> bool:
    one, other = read(given), read(wanted)
    if one is None or other is None or one.subject != other.subject:
        return False
    if one.ask is Ask.EQUAL and not one.negated:
        return all(holds(other, key) for key in one.keys)
    if one.ask is not other.ask:
        return other.ask is Ask.EQUAL and other.negated and _excludes(one, other.keys)
    if one.ask in (Ask.ABOVE, Ask.BELOW):
        return _bounds_imply(one, other)
    if one.negated != other.negated:
        return other.negated and apart(one.ask, one.keys, other.keys)
    if one.negated:
        return within(one.ask, other.keys, one.keys)
    return within(one.ask, one.keys, other.keys)


def contradict(one: Term, other: Term) -> bool:
    """Tell whether two parts can never hold together."""
    if one == _negated(other) or other == _negated(one):
        return True
    mine, theirs = read(one), read(other)
    if mine is None or theirs is None or mine.subject != theirs.subject:
        return False
    for first, second in ((mine, theirs), (theirs, mine)):
        if first.ask is Ask.EQUAL and not first.negated:
            return not any(holds(second, key) for key in first.keys)
    if {mine.ask, theirs.ask} == {Ask.ABOVE, Ask.BELOW}:
        return _bounds_apart(mine, theirs)
    if mine.ask is not theirs.ask or (mine.negated and theirs.negated):
        return False
    if mine.negated or theirs.negated:
        plain, negated = (theirs, mine) if mine.negated else (mine, theirs)
        return within(mine.ask, plain.keys, negated.keys)
    return apart(mine.ask, mine.keys, theirs.keys)


def _negated(term: Term) -> Term | None:
    return term.args[0] if term.op == "not" else None


def within(ask: Ask, inner: Iterable[object], outer: Iterable[object]) -> bool:
    """Tell whether each of some keys says no more than one of others."""
    others = list(_spread(ask, outer))
    covers = _COVERS.get(ask, _same)
    return all(any(covers(other, key) for other in others) for key in _spread(ask, inner))


def apart(ask: Ask, one: Iterable[object], other: Iterable[object]) -> bool:
    """Tell whether no value hits a key of one and of the other."""
    if ask not in _COVERS:
        return False
    covers, others = _COVERS[ask], list(_spread(ask, other))
    return not any(
        covers(first, second) or covers(second, first)
        for first in _spread(ask, one)
        for second in others
    )


def _spread(ask: Ask, keys: Iterable[object]) -> Iterable[object]:
    for key in keys:
        if ask is Ask.NETWORK and isinstance(key, Networks):
            yield from (each.network for each in key.networks)
        else:
            yield key.network if isinstance(key, Network) else key


def _same(outer: object, inner: object) -> bool:
    return outer == inner


def _starts(outer: object, inner: object) -> bool:
    return str(inner).startswith(str(outer))


def _ends(outer: object, inner: object) -> bool:
    return str(inner).endswith(str(outer))


def _contains(outer: object, inner: object) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and isinstance(inner, IPv6Network) and (
        inner.subnet_of(outer)
    )  # fmt: skip


_COVERS: Final[dict[Ask, Callable[[object, object], bool]]] = {
    Ask.PREFIX: _starts,
    Ask.SUFFIX: _ends,
    Ask.NETWORK: _contains,
}


def _excludes(atom: Atom, keys: Iterable[object]) -> bool:
    return atom.ask is not Ask.MEMBER and not any(holds(atom, key) for key in keys)


def _bound(atom: Atom) -> tuple[float, bool]:
    """Return a bound and whether it is itself outside; of whole numbers it never is."""
    value = cast("float", atom.keys[0])
    if atom.strict and atom.subject.type.kind in _WHOLE and isinstance(value, int):
        return value + (1 if atom.ask is Ask.ABOVE else -1), False
    return value, atom.strict


def _bounds_imply(one: Atom, other: Atom) -> bool:
    (mine, strict), (theirs, other_strict) = _bound(one), _bound(other)
    if mine == theirs:
        return strict or not other_strict
    return mine > theirs if one.ask is Ask.ABOVE else mine < theirs


def _bounds_apart(one: Atom, other: Atom) -> bool:
    above, below = (one, other) if one.ask is Ask.ABOVE else (other, one)
    (least, strict), (most, other_strict) = _bound(above), _bound(below)
    return least > most or (least == most and (strict or other_strict))


def bounds_meet(one: Atom, other: Atom) -> bool:
    """Tell whether a lower and an upper bound together leave no value out."""
    above, below = (one, other) if one.ask is Ask.ABOVE else (other, one)
    (least, strict), (most, other_strict) = _bound(above), _bound(below)
    return least < most or (least == most and not (strict and other_strict))

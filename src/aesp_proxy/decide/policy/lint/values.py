"""Values for facts: such that the parts of a condition that speak of one fact hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import product
from typing import Final, cast

from aesp_proxy.decide.policy.cel.atoms import Ask, Atom
from aesp_proxy.decide.policy.cel.prepared import Address, Network, Networks, Pattern
from aesp_proxy.decide.policy.cel.terms import Term, asked_of
from aesp_proxy.decide.policy.cel.types import Kind, Type
from aesp_proxy.decide.policy.lint.atoms import holds, read
from aesp_proxy.model.context import Level

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A Monday morning, a Saturday night: for conditions on hours and days.
_MOMENTS: Final = (1_767_607_200_000_000_000, 1_767_999_600_000_000_000, 1_767_574_800_000_000_000)
_TEXTS: Final = ("witness", "/witness", "")
_HINTED: Final = frozenset({"contains", "startsWith", "endsWith"})
_PLAIN_CHARS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/ :,@"
)
_CANDIDATES_MAX: Final = 12
_ADDRESSES: Final[tuple[Address, ...]] = tuple(
    map(ip_address, ("192.0.2.1", "10.0.0.1", "2001:db8::1"))
)


def solved(parts: Sequence[Term], types: Mapping[str, Type]) -> Iterator[dict[str, object]]:
    """Yield values of facts with which parts may hold, the likeliest first; to be confirmed.

    ``types`` are those of the facts that are read. A fact that is only read gets any value.
    """
    names = sorted({name for part in parts for name in asked_of(part) if name in types})
    chosen: dict[str, list[object]] = {}
    for name in names:
        found = list(_values(name, types[name], parts))
        if not found:
            return
        chosen[name] = found[:_CANDIDATES_MAX]
    for number, values in enumerate(product(*chosen.values())):
        if number == _CANDIDATES_MAX:
            return
        yield dict(zip(chosen, values, strict=True))


def _values(name: str, type_: Type, parts: Sequence[Term]) -> Iterator[object]:
    if type_.kind in (Kind.MAP, Kind.DYN):
        yield built(name, parts)
        return
    atoms = [
        atom
        for part in parts
        if (atom := read(part)) is not None
        and atom.subject.op == "fact"
        and atom.subject.value == name
    ]
    hints = [hint for part in parts for hint in _hints(part, name)]
    start = "/" if name.endswith(".path") else ""
    seen: list[object] = []
    for value in (*_candidates(type_, atoms, hints, start), *_ordinary(type_)):
        if value not in seen and all(holds(atom, value) for atom in atoms):
            seen.append(value)
            yield value


def built(name: str, parts: Sequence[Term]) -> dict[str, object]:
    """Return the map, or the JSON object, of which parts ask certain values by key."""
    made: dict[str, object] = {}
    for part in parts:
        atom = read(part)
        subject, value = part, None
        if atom is not None and not atom.negated:
            subject = atom.subject
            value = next(_candidates(subject.type, [atom], [], ""), None)
        elif part.op == "equal" and part.args[1].op == "dyn":
            subject, value = part.args[0], part.args[1].args[0].value
        path = _keys(subject, name)
        if path and value is not None:
            at = made
            for key in path[:-1]:
                inner = at.setdefault(key, {})
                at = cast("dict[str, object]", inner) if isinstance(inner, dict) else {}
            at[path[-1]] = value
    return made


def _keys(term: Term, name: str) -> list[str] | None:
    """Return the keys by which a fact is asked; None where a term is something else."""
    if term.op == "fact":
        return [] if term.value == name else None
    if not term.args:
        return None
    above = _keys(term.args[0], name)
    if above is None or term.op == "dyn" or term.op.startswith("as_"):
        return above
    if term.op == "dyn_field":
        return [*above, str(term.value)]
    if term.op == "value_of" and term.args[1].op == "const":
        return [*above, str(term.args[1].value)]
    return None


def _candidates(
    type_: Type, atoms: Sequence[Atom], hints: Sequence[str], start: str
) -> Iterator[object]:
    plain = [atom for atom in atoms if not atom.negated]
    for atom in plain:
        if atom.ask is Ask.EQUAL:
            yield from atom.keys
    if type_.kind is Kind.LIST:
        yield tuple(atom.keys[0] for atom in plain if atom.ask is Ask.MEMBER)
    if type_.kind is Kind.STRING:
        yield from _texts(plain, hints, start)
    for atom in plain:
        for key in atom.keys:
            yield from _beyond(atom, key)


def _texts(atoms: Sequence[Atom], hints: Sequence[str], start: str) -> Iterator[str]:
    """Yield texts of the beginnings, middles and ends that are asked for."""
    starts = [str(key) for atom in atoms if atom.ask is Ask.PREFIX for key in atom.keys] or [start]
    ends = [str(key) for atom in atoms if atom.ask is Ask.SUFFIX for key in atom.keys] or [""]
    found = [_literal(key) for atom in atoms if atom.ask is Ask.REGEX for key in atom.keys]
    if (starts, ends, found, hints) == ([start], [""], [], []):
        return
    middles = [*found, *hints, "".join(hints)]
    for first, middle, last in product(starts, middles, ends):
        yield from (f"{first}{middle}{last}", f"{first}w{middle}w{last}")
        if middle.startswith(first) or not first:
            yield middle


def _beyond(atom: Atom, key: object) -> Iterator[object]:
    match atom.ask:
        case Ask.NETWORK:
            networks = key.networks if isinstance(key, Networks) else (cast("Network", key),)
            for each in networks:
                net = each.network
                yield net[1] if net.num_addresses > 1 else net[0]
        case Ask.ABOVE | Ask.BELOW:
            bound = cast("float", key)
            step = 1 if atom.ask is Ask.ABOVE else -1
            yield from (bound, bound + step) if not atom.strict else (bound + step,)
        case _:
            return


def _literal(key: object) -> str:
    """Return a text that a simple expression matches: its plain characters."""
    text = cast("Pattern", key).text.removeprefix("^").removesuffix("$")
    return "".join(char for char in text.replace("\\.", ".") if char in _PLAIN_CHARS or char == ".")


def _hints(part: Term, name: str) -> Iterator[str]:
    """Yield texts that operations on a fact ask for beside those of atoms: what it contains."""
    if part.op in _HINTED and part.args[0].op == "fact" and part.args[0].value == name:
        value = part.args[1].value
        if isinstance(value, str):
            yield value
    for arg in part.args:
        yield from _hints(arg, name)


def _ordinary(type_: Type) -> Iterator[object]:
    match type_.kind:
        case Kind.BOOL:
            yield from (True, False)
        case Kind.INT | Kind.UINT:
            yield from (1, 443, 80, 1_000, 0)
        case Kind.DOUBLE:
            yield from (1.0, 0.0, 0.5, 1_000.0)
        case Kind.STRING:
            yield from _TEXTS
        case Kind.LEVEL:
            yield from Level
        case Kind.TIMESTAMP:
            yield from _MOMENTS
        case Kind.LIST:
            yield ()
        case Kind.ADDRESS:
            yield from _ADDRESSES
        case _:
            return


def as_stated(value: object, type_: Type) -> object:
    """Return a value as a suite states it."""
    match type_.kind:
        case Kind.LEVEL:
            return Level(cast("int", value)).word
        case Kind.TIMESTAMP:
            moment = _EPOCH + timedelta(microseconds=cast("int", value) // 1_000)
            return moment.isoformat().replace("+00:00", "Z")
        case Kind.ADDRESS:
            return str(value)
        case Kind.LIST:
            return list(cast("Sequence[object]", value))
        case _:
            return value

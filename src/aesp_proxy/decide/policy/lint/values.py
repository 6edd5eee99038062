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
_SIZE: Final = {"startsWith": "{}witness", "endsWith": "/witness{}", "contains": "/w{}w"}
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
    atoms = [
        atom
        for part in parts
        if (atom := read(part)) is not None
        and atom.subject.op == "fact"
        and atom.subject.value == name
    ]
    hints = [hint for part in parts for hint in _hints(part, name)]
    seen: list[object] = []
    for value in (*_candidates(type_, atoms), *hints, *_ordinary(type_)):
        if value not in seen and all(holds(atom, value) for atom in atoms):
            seen.append(value)
            yield value


def _candidates(type_: Type, atoms: Sequence[Atom]) -> Iterator[object]:
    plain = [atom for atom in atoms if not atom.negated]
    for atom in plain:
        if atom.ask is Ask.EQUAL:
            yield from atom.keys
    members = [atom.keys[0] for atom in plain if atom.ask is Ask.MEMBER]
    if type_.kind is Kind.LIST:
        yield tuple(members)
    starts = [str(key) for atom in plain if atom.ask is Ask.PREFIX for key in atom.keys] or [""]
    ends = [str(key) for atom in plain if atom.ask is Ask.SUFFIX for key in atom.keys] or [""]
    middles = [_literal(key) for atom in plain if atom.ask is Ask.REGEX for key in atom.keys] or [
        ""
    ]
    if (starts, ends, middles) != ([""], [""], [""]):
        for start, middle, end in product(starts, middles, ends):
            yield from (f"{start}{middle}{end}", f"{start}witness{middle}{end}")
    for atom in plain:
        for key in atom.keys:
            yield from _beyond(atom, key)


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


def _hints(part: Term, name: str) -> Iterator[object]:
    """Yield texts that operations on a fact ask for: what it contains, what a glob matches."""
    if len(part.args) > 1:
        first, second = part.args[0], part.args[1]
        if first.op == "fact" and first.value == name and second.op == "const":
            form = _SIZE.get(part.op)
            if form is not None and isinstance(second.value, str):
                yield form.format(second.value)
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

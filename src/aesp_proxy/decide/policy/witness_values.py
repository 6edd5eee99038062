"""Values worth trying for a fact: what a condition names, what lies beside it, and nothing.

By type, not by operation: every constant near a fact is tried in the forms that the type
of the fact has. Whether a value does is for the condition itself to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, ip_address
from itertools import islice
from typing import Final

from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.moments import moment_of_text
from aesp_proxy.decide.policy.cel.prepared import (
    Glob,
    HostPattern,
    Network,
    Networks,
    Pattern,
)
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.cel.types import Kind
from aesp_proxy.decide.policy.cover_hosts import hosts_of
from aesp_proxy.decide.policy.cover_names import paths_of
from aesp_proxy.decide.policy.facts import FACTS, KINDS_OF_ACTION
from aesp_proxy.decide.policy.hosts import parse_host_rule
from aesp_proxy.decide.policy.regex_sample import regex_sample
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.witness_event import PLAIN_HOST, PLAIN_TEXT, PLAIN_TIME_NS
from aesp_proxy.model.context import Level

VALUES_MAX: Final = 256
_SIZE_MAX: Final = 4_096
_TEXTS_JOINED_MAX: Final = 8
_SECOND_NS: Final = 10**9
_HOUR_NS: Final = 3_600 * _SECOND_NS
_DAYS_TRIED: Final = (0, 5, 6, 1, 2, 3, 4)  # from Monday
_WHOLE_DAYS: Final = frozenset({0, 5, 6})
_PUBLIC: Final = IPv4Address("8.8.8.8")
_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
_PLAIN: Final[Mapping[str, tuple[object, ...]]] = {
    "request.host": (PLAIN_HOST,),
    "request.port": (443, 80),
    "request.scheme": ("https", "http"),
    "request.method": _METHODS,
    "request.path": ("/", "/witness"),
    "request.resource.path": ("/witness",),
    "request.destination_ip": (_PUBLIC,),
    "request.source_ip": (_PUBLIC, IPv4Address("10.0.0.1")),
    "agent.executable": ("/usr/bin/witness",),
}


def values_of(
    name: str, terms: Iterable[Term], offered: Iterable[object] = ()
) -> tuple[object, ...]:
    """Return values to try for a fact in conditions, plain ones first; None is "unknown".

    ``offered`` are texts that others want of it: they are combined with those of conditions.
    Of what is no fact (the text of a patch) nobody but the caller has values.
    """
    if name not in FACTS:
        return ()
    near = _Near()
    near.texts.update(dict.fromkeys(text for text in offered if isinstance(text, str)))
    for term in terms:
        near.read(term)
    found: dict[object, object] = {}
    for value in islice(_candidates(name, near), VALUES_MAX):
        found.setdefault(repr(value), value)
    return tuple(found.values())


class _Near:
    """The constants of conditions, by what they are."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}
        self.numbers: dict[float, None] = {}
        self.others: list[object] = []
        self.keys: dict[str, None] = {}

    def read(self, term: Term) -> None:
        if term.op == "const":
            self._constant(term.value)
        if term.op in ("dyn_field", "dyn_has"):
            self.keys[str(term.value)] = None
        if term.op in ("value_of", "dyn_item", "in", "dyn_in"):
            for arg in term.args:
                if arg.op == "const" and isinstance(arg.value, str):
                    self.keys[arg.value] = None
        for arg in term.args:
            self.read(arg)

    def _constant(self, value: object) -> None:
        match value:
            case bool():
                return
            case Level():
                return
            case str():
                self.texts[value] = None
            case int() | float():
                self.numbers[value] = None
            case tuple() | list():
                for each in value:
                    self._constant(each)
            case Pattern():
                sample = regex_sample(value.text)
                if sample is not None:
                    self.texts[sample] = None
            case Glob():
                self.texts.update(dict.fromkeys(paths_of(value.text)))
            case HostPattern():
                rule = parse_host_rule(Sourced(value.text, ""))
                self.texts.update(dict.fromkeys(host.name for host in hosts_of(rule)))
            case _:
                self.others.append(value)


def _candidates(name: str, near: _Near) -> Iterator[object]:
    fact = FACTS[name]
    yield from _PLAIN.get(name, ())
    if name == "request.action":
        yield from (word for word in KINDS_OF_ACTION if not word.endswith("*"))
    kind = fact.type.kind
    match kind:
        case Kind.BOOL:
            yield from (True, False)
        case Kind.LEVEL:
            yield from Level
        case Kind.TIMESTAMP:
            yield from _moments(near)
        case Kind.INT:
            yield from _whole(near)
        case Kind.DOUBLE:
            yield from _real(near)
        case Kind.STRING:
            yield from _texts(near)
        case Kind.ADDRESS:
            yield from _addresses(near)
        case Kind.LIST:
            yield from _lists(near)
        case Kind.MAP:
            yield from _maps(near)
        case _:
            yield from _json(near)
    if fact.sometimes or not fact.always:
        yield None


def _texts(near: _Near) -> Iterator[str]:
    yield from near.texts
    yield PLAIN_TEXT
    for text in near.texts:
        yield text + PLAIN_TEXT
        yield PLAIN_TEXT + text
        yield text.upper()
        yield text.lower()
        yield f"/{PLAIN_TEXT}{text}"
    for size in _sizes(near):
        yield "w" * size
        if size:
            yield "/" + "w" * (size - 1)
    few = list(near.texts)[:_TEXTS_JOINED_MAX]
    for start in few:
        for end in few:
            if start != end:
                yield start + end
                yield start + PLAIN_TEXT + end
                others = [text for text in few if text not in (start, end)]
                yield "".join((start, *others, end))
    yield ""


def _sizes(near: _Near) -> Iterator[int]:
    for number in near.numbers:
        for size in (number, number + 1, number - 1):
            if 0 <= size <= _SIZE_MAX and size == int(size):
                yield int(size)


def _whole(near: _Near) -> Iterator[int]:
    for number in near.numbers:
        if -(2**62) < number < 2**62:
            yield from (int(number), int(number) + 1, max(int(number) - 1, 0))
    yield from (0, 1, 1_000, 10**7)


def _real(near: _Near) -> Iterator[float]:
    for number in near.numbers:
        yield from (float(number), number + 0.5, max(number - 0.5, 0.0), number * 0.5, number * 2.0)
    yield from (0.0, 0.5, 1.0, 10.0**6)


def _moments(near: _Near) -> Iterator[int]:
    yield PLAIN_TIME_NS
    for number in near.numbers:
        if number > 10**12:  # nanoseconds, and no hour of a day
            yield from (int(number), int(number) + _SECOND_NS, int(number) - _SECOND_NS)
            yield from (int(number) + 24 * _HOUR_NS, int(number) - 24 * _HOUR_NS)
    for text in near.texts:
        try:
            stated = moment_of_text(text)
        except EvaluationError:
            continue
        yield from (stated, stated + _SECOND_NS, stated - _SECOND_NS)
        yield from (stated + _HOUR_NS, stated - _HOUR_NS)
    midnight = PLAIN_TIME_NS - 10 * _HOUR_NS
    for day in _DAYS_TRIED:
        step = 1 if day in _WHOLE_DAYS else 4
        yield from (midnight + (24 * day + hour) * _HOUR_NS for hour in range(0, 24, step))
    yield from (midnight + 30 * 24 * month * _HOUR_NS for month in range(1, 12))
    yield from (PLAIN_TIME_NS + minutes * 60 * 10**9 for minutes in (15, 30, 45, 59))


def _addresses(near: _Near) -> Iterator[object]:
    for other in near.others:
        networks = other.networks if isinstance(other, Networks) else (other,)
        for each in networks:
            if isinstance(each, Network):
                yield each.network[min(1, each.network.num_addresses - 1)]
                yield each.network[0]
                yield each.network[-1]
    for text in near.texts:
        try:
            yield ip_address(text)
        except ValueError:
            continue
    yield from (_PUBLIC, IPv4Address("10.0.0.1"))


def _lists(near: _Near) -> Iterator[tuple[str, ...]]:
    for text in near.texts:
        yield (text,)
    yield (PLAIN_TEXT,)
    yield ()
    yield tuple(near.texts)
    for size in _sizes(near):
        if size <= VALUES_MAX:
            yield tuple(f"w{number}" for number in range(size))


def _maps(near: _Near) -> Iterator[dict[str, str]]:
    yield {}
    for key in near.keys:
        yield from ({key: text} for text in (*near.texts, PLAIN_TEXT, ""))


def _json(near: _Near) -> Iterator[object]:
    leaves = (*near.texts, *near.numbers, True, False, PLAIN_TEXT, 0)
    yield {}
    for key in near.keys:
        for leaf in leaves:
            yield {key: leaf}
            yield {key: [leaf]}
    keys = list(near.keys)[:4]
    for outer in keys:
        for inner in keys:
            if outer != inner:
                yield from ({outer: {inner: leaf}} for leaf in leaves)
    yield from near.texts

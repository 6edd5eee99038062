"""Witnesses: an event for which conditions hold, found by trying and proved by evaluating.

The one home of "make an event for this". A search of small steps over the values that the
conditions name: it may miss, it never lies, because every demand is evaluated on the event
itself. Demands are conditions, what a rule speaks of, or whatever a caller asks
(``Demand``), such as that a policy lets the event pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from aesp_proxy.decide.policy.cel.emit import emit
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.extract import extractor
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.cel.terms import Term, asked_of, conjuncts_of
from aesp_proxy.decide.policy.cover_hosts import hosts_of, ports_of
from aesp_proxy.decide.policy.cover_names import paths_of, tools_of
from aesp_proxy.decide.policy.facts import EVENTS, FACTS, KINDS_OF_ACTION
from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.policy.selectors import ANY_HTTP, Selector
from aesp_proxy.decide.policy.witness_event import Facts, Witness, event_for
from aesp_proxy.decide.policy.witness_values import values_of
from aesp_proxy.decide.rule import CompiledRule
from aesp_proxy.decide.selection import Selection
from aesp_proxy.errors import InputError
from aesp_proxy.model.context import Context
from aesp_proxy.model.event import Event

__all__ = [
    "Demand", "Facts", "Witness", "conditions", "event_for", "facts_for", "host_facts",
    "path_facts", "speaks", "tool_facts", "witness_for", "witness_of_rules",
]  # fmt: skip

_TRIES_MAX: Final = 3_000
_ASKED_MAX: Final = 400
_BESIDE_MAX: Final = 64
_ROUNDS_MAX: Final = 24
_PAIR_VALUES_MAX: Final = 24

Values = Mapping[str, Sequence[object]]
"""Values to try for facts, beside those that conditions name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Something that must be so of an event; ``facts`` are those that it depends on.

    A ``costly`` one is only asked where all others are met.
    """

    facts: frozenset[str]
    met: Callable[[Event, Context], bool]
    costly: bool = False


def facts_for(
    terms: Iterable[Term],
    *,
    kinds: Iterable[str] = tuple(EVENTS),
    refuted: Iterable[Term] = (),
    values: Values | None = None,
) -> Facts | None:
    """Return facts for which all ``terms`` hold and no ``refuted`` does; None if none is found."""
    found = witness_for(
        kinds=kinds,
        demands=(),
        terms=tuple(terms),
        refuted=tuple(refuted),
        values=values or {},
    )
    return None if found is None else found.facts


def witness_of_rules(
    rules: Sequence[CompiledRule],
    *,
    refuted: Sequence[CompiledRule] = (),
    demands: Sequence[Demand] = (),
    values: Values | None = None,
    beside: Sequence[Term] = (),
) -> Witness | None:
    """Return an event that all ``rules`` speak of and whose conditions hold; None if none is found.

    No condition of a ``refuted`` rule holds for it.
    """
    kinds = [kind for kind in EVENTS if all(kind in rule.kinds for rule in rules)]
    offered = _joined([values or {}, *(_values_of_rule(rule) for rule in rules)])
    return witness_for(
        kinds=kinds,
        demands=(*(speaks(rule) for rule in rules), *demands),
        terms=tuple(rule.condition.term for rule in rules),
        refuted=tuple(rule.condition.term for rule in refuted),
        values=offered,
        beside=beside,
    )


def witness_for(
    *,
    kinds: Iterable[str],
    demands: Sequence[Demand],
    terms: Sequence[Term] = (),
    refuted: Sequence[Term] = (),
    values: Values | None = None,
    beside: Sequence[Term] = (),
) -> Witness | None:
    """Search for an event of one of ``kinds`` that meets everything; None if none is found.

    ``beside`` are conditions that nothing is demanded of, but whose values are worth trying.
    """
    for kind in kinds:
        wanted = [*conditions(kind, terms, refuted), *demands]
        search = _Search(kind, wanted, [*terms, *refuted, *beside[:_BESIDE_MAX]])
        found = search.run(values or {})
        if found is not None:
            return found
    return None


def conditions(kind: str, terms: Iterable[Term], refuted: Iterable[Term] = ()) -> list[Demand]:
    """Return the demands that ``terms`` hold, conjunct by conjunct, and ``refuted`` do not."""
    held = [_holds(each, kind, wanted=True) for term in terms for each in conjuncts_of(term)]
    return held + [_holds(term, kind, wanted=False) for term in refuted]


def _holds(term: Term, kind: str, *, wanted: bool) -> Demand:
    names = sorted(asked_of(term))
    slot_of = {name: at for at, name in enumerate(names, start=1)}
    evaluate, extract = emit(term, slot_of), extractor(names, kind)

    def met(event: Event, context: Context) -> bool:
        try:
            return evaluate(([STEPS_MAX], *extract(event, context, ()))) is wanted
        except EvaluationError:
            return False

    return Demand(facts=frozenset(names), met=met)


def speaks(rule: CompiledRule) -> Demand:
    """Return the demand that an event is of a rule's actions and resources."""
    selection = Selection([(rule.selectors, rule.effect is Effect.ALLOW)])

    def met(event: Event, _context: Context) -> bool:
        return rule.names(event.action) and bool(selection.of(event))

    facts = {"request.action", "request.method", "request.host", "request.port",
             "request.resource.path", "tool.server", "tool.name"}  # fmt: skip
    return Demand(facts=frozenset(facts), met=met)


def _values_of_rule(rule: CompiledRule) -> Values:
    offered: list[Values] = [_of_selector(selector) for selector in rule.selectors]
    actions = [word for word in sorted(rule.actions) if word != ANY_HTTP]
    methods = [word.removeprefix("http.").upper() for word in actions if word.startswith("http.")]
    return _joined([*offered, {"request.action": actions, "request.method": methods}])


def _of_selector(selector: Selector) -> Values:
    if selector.host is not None:
        return host_facts(selector.host)
    if selector.glob is not None:
        return path_facts(selector.glob.value)
    return {} if selector.tool is None else tool_facts(selector.tool.value)


def host_facts(rule: HostRule) -> Values:
    """Return hosts and ports that a host rule names, as values of facts."""
    return {"request.host": [host.name for host in hosts_of(rule)], "request.port": ports_of(rule)}


def path_facts(glob: str) -> Values:
    """Return paths that a path pattern matches."""
    return {"request.resource.path": list(dict.fromkeys(paths_of(glob)))}


def tool_facts(rule: str) -> Values:
    """Return servers and names of tools that a tool rule names."""
    pairs = list(tools_of(rule))
    return {
        "tool.server": list(dict.fromkeys(server for server, _ in pairs)),
        "tool.name": list(dict.fromkeys(name for _, name in pairs)),
    }


def _joined(several: Iterable[Values]) -> Values:
    made: dict[str, list[object]] = {}
    for values in several:
        for name, each in values.items():
            made.setdefault(name, []).extend(each)
    return made


# No event at all is worse than one that meets nothing.
_WORST: Final = (Demand(facts=frozenset(), met=lambda _event, _context: False),)


class _Search:
    """Small steps from a plain event: one fact at a time, two where one does not help."""

    def __init__(self, kind: str, demands: Sequence[Demand], terms: Sequence[Term]) -> None:
        self._kind = kind
        self._demands = [demand for demand in demands if not demand.costly]
        self._costly = [demand for demand in demands if demand.costly]
        self._terms = [(term, asked_of(term)) for term in terms]
        self._tries = 0
        self._asked = 0
        self._offered: frozenset[str] = frozenset()
        self._values: dict[str, Sequence[object]] = {}

    def run(self, offered: Values) -> Witness | None:
        """Return the event that meets every demand, if the steps lead to one."""
        names = {name for demand in (*self._demands, *self._costly)
                 for name in demand.facts} | set(offered)  # fmt: skip
        self._offered = frozenset(offered)
        for name in sorted(filter(self._can_be, names)):
            named = [term for term, asked in self._terms if name in asked]
            wanted = offered.get(name, ())
            values = (*wanted, *values_of(name, named, wanted))
            self._values[name] = list({repr(value): value for value in values}.values())
        actions = [word for word, kinds in KINDS_OF_ACTION.items() if self._kind in kinds]
        self._values["request.action"] = [
            word for word in self._values.get("request.action", ()) if word in actions
        ]
        return self._climb({})

    def _can_be(self, name: str) -> bool:
        """Tell whether events of the kind have a fact; what is no fact is the caller's affair."""
        fact = FACTS.get(name)
        return fact is None or self._kind in fact.always or self._kind in fact.sometimes

    def _climb(self, facts: dict[str, object]) -> Witness | None:
        best = self._missing(facts)
        for _ in range(_ROUNDS_MAX):
            if not best:
                event, context = event_for(self._kind, facts)
                return Witness(event=event, context=context)
            step = self._step(facts, len(best))
            if step is None:
                return None
            facts, best = step
        return None

    def _step(
        self, facts: dict[str, object], missing: int
    ) -> tuple[dict[str, object], list[Demand]] | None:
        """Return facts by which fewer demands are missing."""
        for moves in (self._single(facts), self._double(facts)):
            for changed in moves:
                if self._tries > _TRIES_MAX:
                    return None
                left = self._missing(changed)
                if len(left) < missing:
                    return changed, left
        return None

    def _single(self, facts: dict[str, object]) -> Iterator[dict[str, object]]:
        for name in self._names(facts):
            for value in self._values.get(name, ()):
                yield from _with(facts, name, value)

    def _double(self, facts: dict[str, object]) -> Iterator[dict[str, object]]:
        names = self._names(facts)
        every = sorted(self._values)
        for one in names:
            for other in every:
                if one == other:
                    continue
                few = (self._values[one][:_PAIR_VALUES_MAX], self._values[other][:_PAIR_VALUES_MAX])
                for first, second in product(*few):
                    for changed in _with(facts, one, first):
                        yield from _with(changed, other, second)

    def _names(self, facts: dict[str, object]) -> list[str]:
        """Return the facts that the missing demands depend on."""
        missing = self._missing(facts)
        first = [demand for demand in missing if not demand.costly] or missing
        found = {name for demand in first for name in demand.facts}
        known = (name for name in found if name in self._values)
        return sorted(known, key=lambda name: (name not in self._offered, name))

    def _missing(self, facts: dict[str, object]) -> list[Demand]:
        self._tries += 1
        try:
            event, context = event_for(self._kind, facts)
        except InputError:
            return [*self._demands, *self._costly, *_WORST]
        missing = [demand for demand in self._demands if not demand.met(event, context)]
        if missing:
            return missing + self._costly
        if self._costly:
            self._asked += 1
            if self._asked > _ASKED_MAX:
                self._tries = _TRIES_MAX  # enough: the next step is the last
        return [demand for demand in self._costly if not demand.met(event, context)]


def _with(facts: dict[str, object], name: str, value: object) -> Iterator[dict[str, object]]:
    """Yield facts with another value of one; lists and maps also joined with what is there."""
    current = facts.get(name)
    yield {**facts, name: value}
    if isinstance(current, tuple) and isinstance(value, tuple) and current and value:
        yield {**facts, name: tuple(dict.fromkeys((*current, *value)))}
    if isinstance(current, dict) and isinstance(value, dict) and current and value:
        yield {**facts, name: {**current, **value}}

"""The CEL rules of a policy as one thing that is asked for an event.

DENY, ASK and AUDIT only restrict; ALLOW lifts refusals for want of an entry and nothing
else. A rule whose condition has no value (an unknown fact, an error) counts as matched,
unless it allows: then it counts as not. Rules are told strictest first, then in the order
of the policy.

Each kind of event has an index of its own with the rules that can apply to it; which those
are follows from ``actions`` and ``applies_to``, and, where no actions are stated, from the
facts that the condition reads: a rule about ``request.host`` speaks of what has a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.answer import NO_RULES, Answer, RuleMatches
from aesp_proxy.decide.policy.cel.atoms import alternatives
from aesp_proxy.decide.policy.cel.emit import Slots
from aesp_proxy.decide.policy.cel.extract import extractor
from aesp_proxy.decide.policy.cel.index import ConditionIndex, Failed
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.cel.terms import Term, asked_of
from aesp_proxy.decide.policy.facts import EVENTS, KINDS_OF_ACTION
from aesp_proxy.decide.policy.policy import Effect, RuleItem
from aesp_proxy.decide.rule import CompiledRule, answer_of, compile_rule
from aesp_proxy.decide.selection import Selection
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import DnsQuery, EgressConnect, Event

_ORDER: Final = (Effect.DENY, Effect.ASK, Effect.AUDIT, Effect.ALLOW)
_ANY_HTTP: Final = "http.*"
_DIALLED: Final = frozenset({"request", "connect"})

Held = tuple[CompiledRule, bool | Failed]
"""A rule that holds, or why it has no value."""


class Rules:
    """Compiled rules; immutable. Raises ``ConfigError`` for a rule that cannot be one."""

    __slots__ = ("_namers", "_openers", "_plans", "exact_names", "rules")

    def __init__(self, items: Sequence[RuleItem]) -> None:
        on = [item for item in items if item.enabled]
        ordered = sorted(on, key=lambda item: _ORDER.index(item.effect))
        self.rules: tuple[CompiledRule, ...] = tuple(map(compile_rule, ordered))
        self._plans: Mapping[type, Plan] = {
            event: Plan(kind, [rule for rule in self.rules if kind in rule.kinds])
            for kind, event in EVENTS.items()
            if any(kind in rule.kinds for rule in self.rules)
        }

        allowing = [rule for rule in self.rules if rule.effect is Effect.ALLOW]
        self._openers = _Openers([rule for rule in allowing if "request" in rule.kinds])
        self._namers = _Openers([rule for rule in allowing if rule.kinds & _DIALLED])
        hosts = (each.host for rule in allowing for each in rule.selectors)
        self.exact_names: frozenset[str] = frozenset(
            host.name for host in hosts if host is not None and host.name
        )

    def plan_of(self, event: Event) -> Plan | None:
        """Return what is asked for an event of its kind; None where no rule can apply."""
        return self._plans.get(type(event))

    def matches(self, event: Event, context: Context, findings: tuple[Finding, ...]) -> RuleMatches:
        """Return what the rules answer for one event."""
        plan = self._plans.get(type(event))
        if plan is None:
            return NO_RULES
        found = plan.holding(event, context, findings)
        if isinstance(event, EgressConnect) and event.unread:
            # To allow what nobody reads, a rule must say that it means connections.
            found = [held for held in found if _may_allow_unread(held[0])]
        return _told(found) if found else NO_RULES

    def opened(self, event: EgressConnect, matches: RuleMatches) -> RuleMatches:
        """Let a tunnel be opened to a host to which a rule may allow a request.

        The rule's condition is about requests, so it is not known yet whether it holds;
        each request in the tunnel is decided by itself.
        """
        return self._openers.opened(event, matches, "requests in it may be allowed")

    def named(self, event: DnsQuery, matches: RuleMatches) -> RuleMatches:
        """Let a name be asked for to which a rule may allow a connection or a request."""
        return self._namers.opened(event, matches, "connections to it may be allowed")


class _Openers:
    """Rules that may allow what is still to come, by what they apply to."""

    __slots__ = ("_rules", "_selection")

    def __init__(self, rules: Sequence[CompiledRule]) -> None:
        self._rules = tuple(rules)
        self._selection = Selection([(rule.selectors, True) for rule in self._rules])

    def opened(
        self, event: EgressConnect | DnsQuery, matches: RuleMatches, told: str
    ) -> RuleMatches:
        """Add the answer of the first that speaks of the event's host."""
        bits = self._selection.of(event) if self._rules else 0
        if not bits:
            return matches
        rule = self._rules[(bits & -bits).bit_length() - 1]
        answer = replace(rule.answer, message=f"{told} by the rule {rule.policy_id}")
        return replace(matches, answers=(*matches.answers, (answer, rule.policy_id)), allows=True)


def _may_allow_unread(rule: CompiledRule) -> bool:
    return rule.effect is not Effect.ALLOW or rule.names_connect


class Plan:
    """The rules that can apply to one kind of event, and how they are asked."""

    __slots__ = ("_actions", "_index", "_rule_of", "_selection", "extract", "rules", "slot_of")

    def __init__(self, kind: str, rules: Sequence[CompiledRule]) -> None:
        self.rules = tuple(rules)
        entries: list[tuple[Term, ...]] = []
        rule_of: list[CompiledRule] = []
        for rule in rules:
            for conjuncts in alternatives(rule.condition.term):
                entries.append(tuple(c for c in conjuncts if not _is_true(c)))
                rule_of.append(rule)
        facts = sorted({name for entry in entries for term in entry for name in asked_of(term)})
        self.slot_of: Mapping[str, int] = {name: at for at, name in enumerate(facts, start=1)}
        self.extract = extractor(facts, kind)
        self._index = ConditionIndex(entries, self.slot_of)
        self._rule_of = tuple(rule_of)
        self._actions = _bits_of_actions(kind, rule_of)
        self._selection = Selection([(r.selectors, r.effect is Effect.ALLOW) for r in rule_of])

    def residues(self) -> Mapping[str, Term]:
        """Return, by policy id, what the index cannot decide and each event may evaluate."""
        pairs = zip(self._rule_of, self._index.residues, strict=True)
        return {rule.policy_id: residue for rule, residue in pairs if residue is not None}

    def slots(self, event: Event, context: Context, findings: Sequence[Finding]) -> Slots:
        """Return the facts of an event by slot."""
        return ([STEPS_MAX], *self.extract(event, context, findings))

    def speaks(self, event: Event) -> int:
        """Return the entries whose actions and resources an event is of, as bits."""
        actions = self._actions
        named = actions.get(event.action)
        if named is None:
            named = actions.get(_ANY_HTTP, 0)
        return named & self._selection.of(event) if named else 0

    def speaking(self, event: Event) -> frozenset[str]:
        """Return the ids of the rules whose actions and resources an event is of."""
        bits = self.speaks(event)
        ids = (rule.policy_id for at, rule in enumerate(self._rule_of) if bits >> at & 1)
        return frozenset(ids)

    def holding(
        self, event: Event, context: Context, findings: Sequence[Finding]
    ) -> Sequence[Held]:
        """Return the rules that hold, or have no value, in their order."""
        left = self.speaks(event)
        if not left:
            return ()
        rule_of = self._rule_of
        results = self._index.holding(self.slots(event, context, findings), left)
        if len(rule_of) == len(self.rules):
            return [(rule_of[number], result) for number, result in results]
        found: dict[CompiledRule, bool | Failed] = {}
        for number, result in results:
            # Of alternatives, one that holds makes good one that has no value.
            if result is True or rule_of[number] not in found:
                found[rule_of[number]] = result
        return tuple(found.items())


def _is_true(term: Term) -> bool:
    return term.op == "const" and term.value is True


def _bits_of_actions(kind: str, rules: Sequence[CompiledRule]) -> Mapping[str, int]:
    words = [action for action, kinds in KINDS_OF_ACTION.items() if kind in kinds]
    bits = dict.fromkeys(words, 0)
    for number, rule in enumerate(rules):
        for word in words:
            if rule.names(word):
                bits[word] |= 1 << number
    return bits


def _told(found: Sequence[Held]) -> RuleMatches:
    firsts: dict[Effect, tuple[Answer, str]] = {}
    ids: list[str] = []
    errors: list[str] = []
    for rule, result in found:
        if result is not True:
            errors.append(rule.policy_id)
            if rule.effect is Effect.ALLOW:
                continue
        ids.append(rule.policy_id)
        if rule.effect not in firsts:
            answer = answer_of(rule, result)
            if answer is not None:
                firsts[rule.effect] = (answer, rule.policy_id)
    return RuleMatches(tuple(firsts.values()), Effect.ALLOW in firsts, tuple(ids), tuple(errors))

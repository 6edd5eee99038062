"""The rules of a policy over attempts of which not every fact is known.

A rule that reads no unknown fact is decided as ever. Of the others, a conjunct that is
false without any unknown fact decides that the rule does not match, because ``false`` and
an error are false; what is left may match or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aesp_proxy.decide.answer import NO_RULES, Answer, RuleMatches
from aesp_proxy.decide.policy.cel.emit import Evaluator, emit
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.terms import asked_of
from aesp_proxy.decide.policy.policy import Effect, RuleItem
from aesp_proxy.decide.rule import CompiledRule
from aesp_proxy.decide.rules import Plan, Rules
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import EgressConnect, Event


class StatedRules(Rules):
    """Rules whose answers are stated beforehand, for the engine to count."""

    __slots__ = ("_all", "stated")

    def __init__(self, rules: Rules | None) -> None:
        super().__init__(())
        self._all = rules
        self.stated: RuleMatches = NO_RULES

    def matches(
        self,
        event: Event,  # noqa: ARG002 - that of Rules
        context: Context,  # noqa: ARG002 - the same
        findings: tuple[Finding, ...],  # noqa: ARG002 - the same
    ) -> RuleMatches:
        """Return what was stated."""
        return self.stated

    def opened(self, event: EgressConnect, matches: RuleMatches) -> RuleMatches:
        """Let a tunnel be opened as the rules themselves do."""
        return matches if self._all is None else self._all.opened(event, matches)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartlyMatched:
    """What rules answer for sure, and those that may match besides."""

    sure: RuleMatches
    maybe: tuple[CompiledRule, ...] = ()

    def with_rules(self, rules: Sequence[CompiledRule]) -> RuleMatches:
        """Return the answers as they are if these of the rules that may match do."""
        if not rules:
            return self.sure
        answers: tuple[tuple[Answer, str], ...] = tuple((r.answer, r.policy_id) for r in rules)
        return RuleMatches(
            self.sure.answers + answers,
            self.sure.allows or any(rule.effect is Effect.ALLOW for rule in rules),
            self.sure.rules + tuple(rule.policy_id for rule in rules),
            self.sure.errors,
        )


class PartialRules:
    """The rules of a policy, split by what is unknown."""

    def __init__(self, rules: Rules, items: Sequence[RuleItem], unknown: frozenset[str]) -> None:
        open_ids = {rule.policy_id for rule in rules.rules if rule.condition.facts & unknown}
        sure = [item for item in items if item.policy_id.value not in open_ids]
        unsure = [item for item in items if item.policy_id.value in open_ids]
        self._sure = rules if not unsure else Rules(sure) if sure else None
        self._open = Rules(unsure) if unsure else None
        self._unknown = unknown
        self._known_conjuncts: dict[tuple[int, str], list[Evaluator]] = {}

    def matches(
        self, event: Event, context: Context, findings: tuple[Finding, ...]
    ) -> PartlyMatched:
        """Return what the rules answer for one event."""
        sure = NO_RULES if self._sure is None else self._sure.matches(event, context, findings)
        plan = None if self._open is None else self._open.plan_of(event)
        if plan is None:
            return PartlyMatched(sure=sure)
        speaking = plan.speaking(event)
        if not speaking:
            return PartlyMatched(sure=sure)
        slots = plan.slots(event, context, findings)
        maybe = tuple(
            rule
            for rule in plan.rules
            if rule.policy_id in speaking and not self._is_false(rule, plan, slots)
        )
        return PartlyMatched(sure=sure, maybe=maybe)

    def _is_false(self, rule: CompiledRule, plan: Plan, slots: Sequence[object]) -> bool:
        key = (id(plan), rule.policy_id)
        known = self._known_conjuncts.get(key)
        if known is None:
            known = [
                emit(conjunct, plan.slot_of)
                for conjunct in rule.condition.conjuncts
                if not asked_of(conjunct) & self._unknown
            ]
            self._known_conjuncts[key] = known
        return any(_false(evaluate, slots) for evaluate in known)


def _false(evaluate: Evaluator, slots: Sequence[object]) -> bool:
    try:
        return evaluate(slots) is False
    except EvaluationError:
        return False

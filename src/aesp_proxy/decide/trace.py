"""Why a rule did or did not match: every conjunct with its value, for people and coverage.

Slower than deciding, which never asks for it, and by another way: each conjunct is
evaluated by itself, whatever the index would have said. The two must agree, and tests hold
them to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.policy.cel.emit import Slots, emit
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.rule import CompiledRule
from aesp_proxy.decide.rules import Rules
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ConjunctTrace:
    """A part of a condition: its words, its value (None: it has none), and why it has none."""

    text: str
    value: bool | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """One rule and one event.

    ``applies`` tells whether the rule speaks of the event's action and resource; if not, no
    conjunct is evaluated and there are none. ``value`` is that of the condition, None for an
    error; ``matched`` whether the rule answers (an error of a rule that restricts does).
    ``lacking`` counts the conjuncts that are false or have no value.
    """

    policy_id: str
    source: str
    effect: Effect
    applies: bool
    conjuncts: tuple[ConjunctTrace, ...]
    value: bool | None
    matched: bool

    @property
    def lacking(self) -> int:
        """Conjuncts that do not hold."""
        return sum(each.value is not True for each in self.conjuncts)


def explain(
    rules: Rules, event: Event, context: Context, findings: Sequence[Finding]
) -> tuple[RuleTrace, ...]:
    """Return a trace of every rule, in the order they are told in."""
    plan = rules.plan_of(event)
    if plan is None:
        return tuple(map(_silent, rules.rules))
    speaking = plan.speaking(event)
    slots = plan.slots(event, context, findings)
    return tuple(
        _trace(rule, slots, plan.slot_of) if rule.policy_id in speaking else _silent(rule)
        for rule in rules.rules
    )


def _silent(rule: CompiledRule) -> RuleTrace:
    return RuleTrace(
        policy_id=rule.policy_id,
        source=rule.source,
        effect=rule.effect,
        applies=False,
        conjuncts=(),
        value=False,
        matched=False,
    )


def _trace(rule: CompiledRule, slots: Slots, slot_of: Mapping[str, int]) -> RuleTrace:
    parts = tuple(
        _conjunct(rule.condition.text_of(term), term, slots, slot_of)
        for term in rule.condition.conjuncts
    )
    values = [part.value for part in parts]
    value = False if False in values else None if None in values else True
    matched = value is True or (value is None and rule.effect is not Effect.ALLOW)
    return RuleTrace(
        policy_id=rule.policy_id,
        source=rule.source,
        effect=rule.effect,
        applies=True,
        conjuncts=parts,
        value=value,
        matched=matched,
    )


def _conjunct(text: str, term: Term, slots: Slots, slot_of: Mapping[str, int]) -> ConjunctTrace:
    slots[0][0] = STEPS_MAX  # type: ignore[index]
    try:
        return ConjunctTrace(text=text, value=emit(term, slot_of)(slots) is True)
    except EvaluationError as failure:
        return ConjunctTrace(text=text, value=None, error=str(failure))

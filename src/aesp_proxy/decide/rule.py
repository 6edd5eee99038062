"""One rule, compiled: where it applies, its condition, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.cel.check import Known
from aesp_proxy.decide.policy.cel.condition import Condition, compile_condition
from aesp_proxy.decide.policy.cel.index import Failed
from aesp_proxy.decide.policy.cel.terms import facts_of
from aesp_proxy.decide.policy.facts import EVENTS, FACTS, KINDS_OF_ACTION
from aesp_proxy.decide.policy.policy import Effect, RuleItem
from aesp_proxy.decide.policy.selectors import (
    Selector,
    SelectorKind,
    expand_actions,
    names_action,
    parse_selector,
)
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Reason, Severity, Verdict

_KINDS_OF_SELECTOR: Final[Mapping[SelectorKind, frozenset[str]]] = {
    SelectorKind.EGRESS: frozenset({"request", "connect", "network", "dns"}),
    SelectorKind.FILE: frozenset({"file", "patch"}),
    SelectorKind.TOOL: frozenset({"tool"}),
    SelectorKind.ANY: frozenset(EVENTS),
}
_TEXT_CHARS_MAX: Final = 500
_DO_NOT_RETRY: Final = "Do not retry: the answer stays the same while the facts and policy do."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledRule:
    """A rule. ``kinds`` are the kinds of event that it can apply to.

    ``actions`` are the words it names, empty for all that its kinds have. ``answer`` is what
    it says when it holds. ``names_connect``: its policy writes ``tcp.connect`` out.
    """

    policy_id: str
    source: str
    effect: Effect
    selectors: tuple[Selector, ...]
    actions: frozenset[str]
    kinds: frozenset[str]
    condition: Condition
    answer: Answer
    parameters: Mapping[str, str] = field(default_factory=dict)
    names_connect: bool = False

    def names(self, action: str) -> bool:
        """Tell whether the rule speaks of an action."""
        return names_action(self.actions, action)


def compile_rule(item: RuleItem) -> CompiledRule:
    """Compile a rule of a policy; raises ``ConfigError`` with its place."""
    selectors = tuple(map(parse_selector, item.applies_to))
    actions = expand_actions(item.actions)
    kinds = _kinds(item, selectors, actions)
    wide = _known_in(_all_facts_of(kinds))
    asked: dict[str, bool | None] = {}

    def noted(name: str) -> bool | None:
        return asked.setdefault(name, wide(name))

    condition = compile_condition(item.condition, noted)
    implied = kinds if actions else _implied(item, condition, kinds)
    _check_actions(item, condition, actions, implied)
    narrow = _known_in(implied)
    if any(narrow(name) is not known for name, known in asked.items()):
        # In fewer kinds of event more facts are always known, and has() is more often plain.
        condition = compile_condition(item.condition, narrow)
    parameters = dict(item.parameters)
    return CompiledRule(
        policy_id=item.policy_id.value,
        source=item.source,
        effect=item.effect,
        selectors=selectors,
        actions=actions,
        kinds=implied,
        condition=condition,
        answer=_answer(item, parameters),
        parameters=parameters,
        names_connect=any(word.value == "tcp.connect" for word in item.actions),
    )


def answer_of(rule: CompiledRule, result: bool | Failed) -> Answer | None:  # noqa: FBT001 - a result
    """Return the answer of a rule that holds or has no value; None where it says nothing."""
    if not isinstance(result, Failed):
        return rule.answer
    why = f"{rule.policy_id} cannot be evaluated: {result.why}"
    match rule.effect:
        case Effect.ALLOW:
            return None
        case Effect.DENY:
            reason = Reason.RULE_FAILED
        case Effect.ASK | Effect.AUDIT:
            reason = rule.answer.reason
    return Answer(
        verdict=rule.answer.verdict,
        reason=reason,
        severity=rule.answer.severity,
        message=why,
        source=rule.source,
        remediation=("A rule that cannot be evaluated counts as matched: tell the owner.",),
    )


def _kinds(
    item: RuleItem, selectors: tuple[Selector, ...], actions: frozenset[str]
) -> frozenset[str]:
    """Return the kinds of event that actions and resources leave."""
    kinds = frozenset(EVENTS)
    if selectors:
        kinds &= frozenset().union(*(_KINDS_OF_SELECTOR[each.kind] for each in selectors))
    if actions:
        kinds &= frozenset(kind for word in actions for kind in KINDS_OF_ACTION.get(word, ()))
        made = any(word in KINDS_OF_ACTION for word in actions)
        if not kinds and made:
            raise ConfigError(
                f"{item.policy_id.value}: its actions and applies_to never meet",
                where=item.policy_id.where,
            )
    return kinds


def _all_facts_of(kinds: frozenset[str]) -> frozenset[str]:
    return kinds or frozenset(EVENTS)


def _known_in(kinds: frozenset[str]) -> Known:
    """Tell of facts how they are known over some kinds of event."""

    def known(name: str) -> bool | None:
        fact = FACTS[name]
        if kinds.issubset(fact.always):
            return True
        return None if kinds & {*fact.always, *fact.sometimes} else False

    return known


def _implied(item: RuleItem, condition: Condition, kinds: frozenset[str]) -> frozenset[str]:
    """Leave the kinds of event in which every fact that is read can be known."""
    for name in facts_of(condition.term):
        fact = FACTS[name]
        kinds &= {*fact.always, *fact.sometimes}
    if not kinds:
        names = ", ".join(sorted(facts_of(condition.term)))
        raise ConfigError(
            f"{item.policy_id.value}: no action knows all of {names}",
            where=item.condition.where,
        )
    return kinds


def _check_actions(
    item: RuleItem, condition: Condition, actions: frozenset[str], kinds: frozenset[str]
) -> None:
    """Refuse an action that is named and for which a fact that is read is never known."""
    for word in sorted(actions):
        of_word = frozenset(KINDS_OF_ACTION.get(word, ())) & kinds
        for name in sorted(facts_of(condition.term)):
            if of_word and _known_in(of_word)(name) is False:
                raise ConfigError(
                    f"{item.policy_id.value}: {name} is never known for {word}",
                    where=item.condition.where,
                    remedy="take the action out, or ask has() first in a rule of its own",
                )


def _answer(item: RuleItem, parameters: Mapping[str, str]) -> Answer:
    told = parameters.get("message", "")[:_TEXT_CHARS_MAX] or item.description[:_TEXT_CHARS_MAX]
    policy_id = item.policy_id.value
    file, _, line = item.source.rpartition(":")
    ask_owner = f"Ask the owner of {file} about the rule {policy_id} (line {line})."
    remediation: tuple[str, ...] = ()
    match item.effect:
        case Effect.DENY:
            verdict, reason, word = Verdict.DENY, Reason.RULE_DENIED, "denies it"
            severity, remediation = Severity.ERROR, (_DO_NOT_RETRY, ask_owner)
        case Effect.ASK:
            verdict, reason = Verdict.ASK, Reason.RULE_NEEDS_CONFIRMATION
            word = "needs a person's confirmation, and there is nobody to ask yet"
            severity, remediation = Severity.WARNING, (_DO_NOT_RETRY, ask_owner)
        case Effect.AUDIT:
            verdict, reason, word = Verdict.AUDIT, Reason.ALLOWED, "has it recorded"
            severity = Severity.INFO
        case Effect.ALLOW:
            verdict, reason, word = Verdict.ALLOW, Reason.ALLOWED, "allows it"
            severity = Severity.INFO
    if "severity" in parameters:
        severity = _severity(item, parameters["severity"])
    return Answer(
        verdict=verdict,
        reason=reason,
        severity=severity,
        message=f"the rule {policy_id} {word}" + (f": {told}" if told else ""),
        source=item.source,
        remediation=remediation,
    )


def _severity(item: RuleItem, word: str) -> Severity:
    try:
        return Severity[word.upper()]
    except KeyError:
        words = ", ".join(each.word for each in Severity)
        raise ConfigError(
            f"{item.policy_id.value}: {word[:40]!a} is no severity",
            where=item.policy_id.where,
            remedy=f"severities: {words}",
        ) from None

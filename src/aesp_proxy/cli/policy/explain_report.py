"""What ``policy explain`` tells: for people with marks and colours, and as JSON.

A line is a mark and a text; colours stand for marks, on a terminal only. Everything that
an event or a policy says goes out through ``printable``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.cli.policy.subject import level_of
from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.explain import Explanation, GuardTrace, Standing
from aesp_proxy.decide.near_misses import NearMiss
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.witness_event import stated
from aesp_proxy.decide.trace import ConjunctTrace, RuleTrace
from aesp_proxy.model.decision import Decision, Verdict

YES: Final = "✓"
NO: Final = "✗"
NOTE: Final = "!"
NOTHING: Final = "·"
_CONTENT: Final = ("content", "patch", "tool.arguments", "request.query")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One line: a mark or none, the text, how deep it stands."""

    text: str
    mark: str = ""
    depth: int = 0
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is told of one event under one policy."""

    policy: Policy
    explanation: Explanation
    near: tuple[NearMiss, ...]


def lines_of(report: Report) -> Iterator[Told]:
    """Yield the lines for a person."""
    explanation, policy = report.explanation, report.policy
    decision = explanation.decision
    yield Told(text=_facts(explanation), bold=True)
    yield Told(text=_headline(decision), mark=_mark(decision.verdict), bold=True)
    yield Told(text=decision.message, depth=1)
    source = _place(decision.source, policy)
    yield Told(text=f"decided by {decision.guard}{f', {source}' if source else ''}", depth=1)
    for why in explanation.why:
        yield Told(text=why, depth=1)
    yield Told(text="Guards", bold=True)
    for guard in explanation.guards:
        yield from _guard(guard, policy)
    if explanation.rules or explanation.rules_silent:
        yield from _rules(explanation, policy)
    if report.near:
        yield Told(text="Near misses", bold=True)
        for near in report.near:
            text = f"{near.what}: {near.lacks} ({_place(near.source, policy)})"
            yield Told(text=text, mark=NOTE, depth=1)
    if decision.remediation:
        yield Told(text="What can be done", bold=True)
        for sentence in decision.remediation:
            yield Told(text=sentence, depth=1)


def _known(explanation: Explanation) -> dict[str, object]:
    """Return the facts of the attempt without what may hold a secret: that is only named."""
    facts = stated(explanation.event, explanation.context)
    in_url = any(f.location == "url" for f in explanation.decision.findings)
    for name in (*_CONTENT, *(("request.path",) if in_url else ())):
        if name in facts:
            facts[name] = "[masked]"
    headers = facts.get("request.headers")
    if isinstance(headers, dict):
        facts["request.headers"] = sorted(headers)
    return facts


def _facts(explanation: Explanation) -> str:
    facts = _known(explanation)
    told = (f"{name.removeprefix('request.')}={_value(value)}" for name, value in facts.items())
    return " ".join(told)


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _headline(decision: Decision) -> str:
    return f"{decision.verdict.value}  {decision.reason.value}  ({decision.severity.word})"


def _mark(verdict: Verdict) -> str:
    match verdict:
        case Verdict.ALLOW:
            return YES
        case Verdict.AUDIT:
            return NOTE
        case _:
            return NO


def _place(source: str, policy: Policy) -> str:
    level = level_of(source, policy)
    return f"{source} [{level}]" if level and level != "policy" else source


def _guard(guard: GuardTrace, policy: Policy) -> Iterator[Told]:
    if guard.answer is None:
        word = guard.standing.value
        if guard.standing is Standing.NOT_ASKED:
            word += ": fail_fast stops at the first refusal"
        yield Told(text=f"{guard.name}: {word}", mark=NOTHING, depth=1)
        return
    yield _answer(guard.name, guard.answer, policy, depth=1)
    if guard.lifted is not None:
        yield _answer("instead", guard.lifted, policy, depth=2)


def _answer(name: str, answer: Answer, policy: Policy, *, depth: int) -> Told:
    place = f" ({_place(answer.source, policy)})" if answer.source else ""
    implicit = ", for want of an entry" if answer.implicit else ""
    text = f"{name}: {answer.verdict.value}{implicit}: {answer.message}{place}"
    return Told(text=text, mark=_mark(answer.verdict), depth=depth)


def _rules(explanation: Explanation, policy: Policy) -> Iterator[Told]:
    yield Told(text="Rules", bold=True)
    for rule in explanation.rules:
        word = "matches" if rule.matched else "does not match"
        if rule.value is None:
            word += ": its condition has no value" if rule.matched else ", it has no value"
        place = _place(rule.source, policy)
        text = f"{rule.policy_id} ({rule.effect.value}) {word} ({place})"
        yield Told(text=text, mark=YES if rule.matched else NOTHING, depth=1)
        for conjunct in rule.conjuncts:
            yield _conjunct(conjunct)
    if explanation.rules_silent:
        count = explanation.rules_silent
        text = f"{count} more that {'does' if count == 1 else 'do'} not speak of this event"
        yield Told(text=text, mark=NOTHING, depth=1)


def _conjunct(conjunct: ConjunctTrace) -> Told:
    match conjunct.value:
        case True:
            return Told(text=conjunct.text, mark=YES, depth=2)
        case False:
            return Told(text=conjunct.text, mark=NO, depth=2)
        case None:
            return Told(text=f"{conjunct.text}: {conjunct.error}", mark=NOTE, depth=2)


def json_of(report: Report) -> dict[str, object]:
    """Return everything as one object for JSON."""
    explanation, policy = report.explanation, report.policy
    decision = explanation.decision
    return {
        "event": _known(explanation),
        "policy": {"where": policy.where, "name": policy.name, "hash": policy.hash},
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "severity": decision.severity.word,
        "message": decision.message,
        "decidedBy": decision.guard,
        "source": decision.source,
        "level": level_of(decision.source, policy),
        "why": list(explanation.why),
        "guards": [_guard_json(guard, policy) for guard in explanation.guards],
        "rules": [_rule_json(rule, policy) for rule in explanation.rules],
        "rulesSilent": explanation.rules_silent,
        "nearMisses": _near_json(report.near),
        "findings": sorted({finding.rule for finding in decision.findings}),
        "remediation": list(decision.remediation),
    }


def _near_json(near: Sequence[NearMiss]) -> list[dict[str, str]]:
    return [{"what": each.what, "lacks": each.lacks, "source": each.source} for each in near]


def _guard_json(guard: GuardTrace, policy: Policy) -> dict[str, object]:
    made: dict[str, object] = {"guard": guard.name, "standing": guard.standing.value}
    if guard.answer is not None:
        made.update(_answer_json(guard.answer, policy))
    if guard.lifted is not None:
        made["lifted"] = _answer_json(guard.lifted, policy)
    return made


def _answer_json(answer: Answer, policy: Policy) -> dict[str, object]:
    return {
        "verdict": answer.verdict.value,
        "reason": answer.reason.value,
        "message": answer.message,
        "source": answer.source,
        "level": level_of(answer.source, policy),
        "implicit": answer.implicit,
    }


def _rule_json(rule: RuleTrace, policy: Policy) -> dict[str, object]:
    return {
        "id": rule.policy_id,
        "effect": rule.effect.value,
        "source": rule.source,
        "level": level_of(rule.source, policy),
        "matched": rule.matched,
        "value": rule.value,
        "conjuncts": [
            {"text": each.text, "value": each.value, "error": each.error} for each in rule.conjuncts
        ],
    }

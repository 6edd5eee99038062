"""Cases against a snapshot: what was decided, and in what it is not what was expected."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aesp_proxy.decide.engine import content_decision, decide
from aesp_proxy.decide.policy.suite import Expect
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Decision
from aesp_proxy.model.event import EgressRequest, Event

BODY = "body"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An event, what surrounds it, and the body of a request, which no event holds."""

    event: Event
    context: Context
    body: bytes | None = None


def decide_attempt(attempt: Attempt, snapshot: Snapshot) -> Decision:
    """Decide an attempt; a request that passes is decided once more by its body's findings."""
    head = decide(attempt.event, snapshot, attempt.context)
    body = attempt.body
    if not body or not head.verdict.passes or not isinstance(attempt.event, EgressRequest):
        return head
    found = snapshot.scanner.scan(body, BODY) if snapshot.scanner is not None else ()
    if not found:
        return head
    content = content_decision(found, snapshot)
    if content.verdict.strictness <= head.verdict.strictness:
        return replace(head, findings=head.findings + found)
    return replace(content, rules=head.rules, rule_errors=head.rule_errors)


def mismatches(expect: Expect, decision: Decision) -> tuple[str, ...]:
    """Return ``NAME: expected A, got B`` for each stated expectation that does not hold."""
    found = []
    if decision.verdict is not expect.verdict:
        found.append(_told("verdict", expect.verdict.value, decision.verdict.value))
    if expect.reason is not None and decision.reason is not expect.reason:
        found.append(_told("reason", expect.reason.value, decision.reason.value))
    if expect.guard and decision.guard != expect.guard:
        found.append(_told("guard", expect.guard, decision.guard))
    if expect.rule and expect.rule not in decision.rules:
        found.append(_told("rule", expect.rule, ", ".join(decision.rules) or "none"))
    names = sorted({finding.rule for finding in decision.findings})
    if expect.finding and expect.finding not in names:
        found.append(_told("finding", expect.finding, ", ".join(names) or "none"))
    return tuple(found)


def _told(what: str, expected: str, got: str) -> str:
    return f"{what}: expected {expected}, got {got}"

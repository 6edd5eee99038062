"""Why an event gets its verdict: every guard and rule with its answer, and which one won.

The same guards in the same order as ``engine.decide``, asked one by one, and the same law
of the strictest answer, worked out a second time: tests hold the two to each other. Slower
than deciding; a decision never waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aesp_proxy.decide.answer import NO_RULES, Answer, Guard, RuleMatches
from aesp_proxy.decide.engine import ENGINE, ask_guard, decide
from aesp_proxy.decide.rules import Rules
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.decide.trace import RuleTrace, explain
from aesp_proxy.model.context import NO_CONTEXT, Context
from aesp_proxy.model.decision import Decision, Finding
from aesp_proxy.model.event import EgressConnect, Event

GUARD_NAMES: Final = (
    "egress_allowlist", "forbidden_path", "path_allowlist", "mcp_tool", "patch_integrity",
    "secret_leak",
)  # fmt: skip
"""Every guard there is, in the order they are asked in."""


class Standing(StrEnum):
    """What a guard had to do with an event."""

    OFF = "off"
    SILENT = "nothing to say"
    ANSWERED = "answered"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardTrace:
    """One guard. ``lifted`` is what an exception made of its answer, where one did."""

    name: str
    standing: Standing
    answer: Answer | None = None
    lifted: Answer | None = None
    grants: bool = False

    @property
    def counted(self) -> Answer | None:
        """The answer that counts."""
        return self.lifted or self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision and all that led to it.

    ``rules`` are those that speak of the event, ``rules_silent`` counts the others.
    ``decider`` is who the law says decides: the decision's guard. ``why`` says it, a
    sentence each.
    """

    event: Event
    context: Context
    decision: Decision
    guards: tuple[GuardTrace, ...]
    rules: tuple[RuleTrace, ...]
    rules_silent: int
    decider: str
    why: tuple[str, ...]


def explain_event(event: Event, snapshot: Snapshot, context: Context = NO_CONTEXT) -> Explanation:
    """Return how the decision on one event comes about. Never decides otherwise than ``decide``."""
    guards = tuple(_guards(event, snapshot))
    findings = _findings(guards)
    traces: tuple[RuleTrace, ...] = ()
    matches, opened = NO_RULES, ""
    if snapshot.rules is not None:
        traces = explain(snapshot.rules, event, context, findings)
        if not _fails_fast(guards, snapshot):
            matches = snapshot.rules.matches(event, context, findings)
            if isinstance(event, EgressConnect) and not matches.allows:
                matches, opened = _opened(snapshot.rules, event, matches)
    decider, why = _verdict(guards, matches)
    if opened:
        why = (*why, opened)
    if _fails_fast(guards, snapshot):
        why = (*why, "fail_fast: nothing is asked behind the first refusal")
    speaking = tuple(trace for trace in traces if trace.applies)
    return Explanation(
        event=event,
        context=context,
        decision=decide(event, snapshot, context),
        guards=guards,
        rules=speaking,
        rules_silent=len(traces) - len(speaking),
        decider=decider,
        why=why,
    )


def _opened(rules: Rules, event: EgressConnect, matches: RuleMatches) -> tuple[RuleMatches, str]:
    """Let a tunnel be opened as the engine does; with a sentence where it is."""
    made = rules.opened(event, matches)
    if not made.allows:
        return made, ""
    return made, "a rule may allow a request in the tunnel; each request in it is decided by itself"


def _guards(event: Event, snapshot: Snapshot) -> Iterable[GuardTrace]:
    on = {guard.name: guard for guard in snapshot.guards}
    stopped = False
    for name in (*GUARD_NAMES, *(name for name in on if name not in GUARD_NAMES)):
        guard = on.get(name)
        if guard is None:
            yield GuardTrace(name=name, standing=Standing.OFF)
        elif stopped:
            yield GuardTrace(name=name, standing=Standing.NOT_ASKED, grants=guard.grants)
        else:
            trace = _guard(guard, event, snapshot)
            stopped = snapshot.settings.fail_fast and _ends(trace)
            yield trace


def _guard(guard: Guard, event: Event, snapshot: Snapshot) -> GuardTrace:
    answer = ask_guard(guard, event)
    if answer is None:
        return GuardTrace(name=guard.name, standing=Standing.SILENT, grants=guard.grants)
    lifted = None
    if snapshot.grants is not None and not answer.verdict.passes:
        lifted = snapshot.grants.lifted(answer, event)
    return GuardTrace(
        name=guard.name,
        standing=Standing.ANSWERED,
        answer=answer,
        lifted=lifted,
        grants=guard.grants,
    )


def _ends(trace: GuardTrace) -> bool:
    counted = trace.counted
    return counted is not None and not counted.verdict.passes and not counted.implicit


def _fails_fast(guards: Sequence[GuardTrace], snapshot: Snapshot) -> bool:
    return snapshot.settings.fail_fast and any(map(_ends, guards))


def _findings(guards: Iterable[GuardTrace]) -> tuple[Finding, ...]:
    return tuple(
        finding
        for guard in guards
        if guard.counted is not None
        for finding in guard.counted.findings
    )


def _verdict(guards: Sequence[GuardTrace], matches: RuleMatches) -> tuple[str, tuple[str, ...]]:
    """Work out who decides: the strictest answer that counts, of equals the first."""
    why = [
        f"{guard.name}: the refusal is {guard.lifted.message}"
        for guard in guards
        if guard.lifted is not None and guard.lifted.verdict.passes
    ]
    lifters = [name for answer, name in matches.answers if answer.verdict.value == "allow"]
    counted: list[tuple[Answer, str]] = []
    implicit = False
    granted = matches.allows
    for guard in guards:
        answer = guard.counted
        if answer is None:
            continue
        if not answer.implicit:
            granted = granted or guard.grants
        elif matches.allows or implicit:
            if matches.allows:
                why.append(_lifted(guard.name, lifters))
            continue
        implicit = implicit or answer.implicit
        counted.append((answer, guard.name))
    counted += [(answer, f"rule:{name}") for answer, name in matches.answers]
    best = max(counted, key=lambda pair: pair[0].verdict.strictness, default=None)
    if best is None or (best[0].verdict.passes and not granted):
        return ENGINE, (*why, "no guard and no rule lets an event of this kind pass: refused")
    return best[1], (*why, *_won(best, counted))


def _lifted(guard: str, rules: Sequence[str]) -> str:
    told = f"the rule {rules[0]}" if rules else "a rule that allows"
    return f"{guard}: the refusal for want of an entry is lifted by {told}"


def _won(best: tuple[Answer, str], counted: Sequence[tuple[Answer, str]]) -> Iterable[str]:
    answer, name = best
    word = answer.verdict.value
    equals = [other for each, other in counted if each.verdict is answer.verdict and other != name]
    weaker = [
        f"{other} ({each.verdict.value})"
        for each, other in counted
        if each.verdict.strictness < answer.verdict.strictness
    ]
    if not equals and not weaker:
        yield f"{name} answers {word}, and nobody else answers"
    if equals:
        yield f"{name} answers {word} first; as strict: {', '.join(equals)}"
    if weaker:
        yield f"{word} is stricter than {', '.join(weaker)}"
    if answer.implicit:
        yield "nothing on a list names it; a rule that allows could lift this, and none does"

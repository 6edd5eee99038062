"""Rules on facts that nothing sets for traffic: what they come to where the fact is unknown.

A condition is followed with those facts unknown and everything else open: the outcomes that
are left (true, false, no value) say whether the rule can still do what it is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from aesp_proxy.decide.policy.cel.terms import Term, facts_of
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.rule import CompiledRule

NEVER_ON_THE_WIRE: Final = frozenset({
    "request.user.permissions", "request.user.mfa_verified", "request.user.spending_limit",
    "request.resource.classification", "request.resource.labels",
    "request.resource.estimated_cost", "organization.approved_cost_centers", "agent.executable",
    "session.labels", "session.risk_score", "session.spend",
})  # fmt: skip
"""Facts that only an announced event can state: the proxy itself knows none of them yet."""

_WIRE: Final = frozenset({"request", "connect", "dns"})


class _Outcome(Enum):
    TRUE = 1
    FALSE = 2
    NONE = 3


_T, _F, _E = _Outcome.TRUE, _Outcome.FALSE, _Outcome.NONE
_OPEN: Final = frozenset({_T, _F})


def look_at_facts(rule: CompiledRule) -> Iterator[LintFinding]:
    """Yield a finding for a rule on traffic that an unknown fact keeps from its purpose."""
    unknown = facts_of(rule.condition.term) & NEVER_ON_THE_WIRE
    if not unknown or rule.kinds.isdisjoint(_WIRE):
        return
    outcomes = _outcomes(rule.condition.term)
    if _E not in outcomes:
        return
    names = ", ".join(sorted(unknown))
    where = rule.condition.text.where
    match rule.effect:
        case Effect.ALLOW if _T not in outcomes:
            message = f"{rule.policy_id} never allows traffic: nothing sets {names} there"
            yield told("rule-fact-never-known", message, where)
        case Effect.ALLOW | Effect.AUDIT:
            return
        case Effect.DENY | Effect.ASK if outcomes == {_E}:
            message = (
                f"{rule.policy_id} refuses all traffic that it applies to:"
                f" nothing sets {names} there, and the condition does not ask has() first"
            )
            yield told("rule-fact-never-known", message, where)
        case Effect.DENY | Effect.ASK:
            message = (
                f"{rule.policy_id} refuses traffic for want of {names}, which nothing sets"
                f" there, wherever the rest of the condition does not decide"
            )
            yield told("rule-fact-never-known", message, where, level=FindingLevel.NOTE)


def _outcomes(term: Term) -> frozenset[_Outcome]:
    """Return what a condition may come to; a value that is no flag stands as true or false."""
    match term.op:
        case "const":
            return frozenset({_T}) if term.value is True else (
                frozenset({_F}) if term.value is False else _OPEN
            )  # fmt: skip
        case "fact":
            return frozenset({_E}) if term.value in NEVER_ON_THE_WIRE else _OPEN
        case "has":
            return frozenset({_F}) if term.value in NEVER_ON_THE_WIRE else _OPEN
        case "not":
            return frozenset(_NOT[each] for each in _outcomes(term.args[0]))
        case "and":
            return _joined(term, decides=_F, otherwise=_T)
        case "or":
            return _joined(term, decides=_T, otherwise=_F)
        case "if":
            return _chosen(*term.args)
        case _:
            return _strict(term)


_NOT: Final = {_T: _F, _F: _T, _E: _E}


def _joined(term: Term, *, decides: _Outcome, otherwise: _Outcome) -> frozenset[_Outcome]:
    """Join as ``&&`` and ``||`` do: what decides makes good what has no value."""
    sides = [_outcomes(arg) for arg in term.args]
    found: set[_Outcome] = set()
    if any(decides in side for side in sides):
        found.add(decides)
    free = [side - {decides} for side in sides]
    if all(free):
        if any(_E in side for side in free):
            found.add(_E)
        if all(otherwise in side for side in free):
            found.add(otherwise)
    return frozenset(found)


def _chosen(asked: Term, yes: Term, no: Term) -> frozenset[_Outcome]:
    outcomes = _outcomes(asked)
    found: set[_Outcome] = set(outcomes & {_E})
    found |= _outcomes(yes) if _T in outcomes else frozenset()
    found |= _outcomes(no) if _F in outcomes else frozenset()
    return frozenset(found)


def _strict(term: Term) -> frozenset[_Outcome]:
    """An operation has no value where an argument has none; a loop asks its body of items only."""
    sides = [_outcomes(arg) for arg in term.args]
    if term.op in ("all", "exists", "exists_one", "filter", "transform"):
        first, bodies = sides[0], sides[1:]
        may_fail = _E in first or any(_E in body for body in bodies)
        return frozenset({_E}) if first == {_E} else _OPEN | ({_E} if may_fail else frozenset())
    if any(side == {_E} for side in sides):
        return frozenset({_E})
    return _OPEN | ({_E} if any(_E in side for side in sides) else frozenset())

"""Rules one by one: conditions that are never or always true, that allow or refuse everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aesp_proxy.decide.policy.cel.atoms import Ask, alternatives, atom_of
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.lint.atoms import bounds_meet, read
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.constant import constant_of
from aesp_proxy.decide.policy.lint.finding import LintFinding
from aesp_proxy.decide.policy.lint.reach import is_empty
from aesp_proxy.decide.policy.lint.subject import Subject
from aesp_proxy.decide.policy.lint.unknown import look_at_facts
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.policy.selectors import SelectorKind
from aesp_proxy.decide.rule import CompiledRule

_NOT_MADE: Final = frozenset({"llm.call"})


def look_at_rules(subject: Subject) -> Iterator[LintFinding]:
    """Yield what is wrong with each rule by itself."""
    for rule in subject.rules.rules:
        yield from _condition(rule)
        yield from _breadth(subject, rule)
        yield from _actions(subject, rule)
        yield from look_at_facts(rule)
        yield from _not_indexed(rule)


def place_of(subject: Subject, rule: CompiledRule) -> str:
    """Return FILE:LINE:COL of a rule."""
    return subject.at(rule.source, rule.policy_id)


def _is_true(term: Term) -> bool:
    return constant_of(term) is True


def _condition(rule: CompiledRule) -> Iterator[LintFinding]:
    where = rule.condition.text.where
    rows = alternatives(rule.condition.term)
    if all(map(is_empty, rows)):
        message = f"the condition of {rule.policy_id} can never be true"
        yield told("rule-unreachable", message, where)
    elif any(map(is_empty, rows)):
        message = f"a part of the condition of {rule.policy_id}, between ||, can never be true"
        yield told("rule-unreachable", message, where)
    written = rule.condition.text.value.strip()
    if written != "true" and (_is_true(rule.condition.term) or _always(rows)):
        message = f"the condition of {rule.policy_id} can never be false"
        yield told("rule-always-true", message, where)


def _always(rows: tuple[tuple[Term, ...], ...]) -> bool:
    """Tell whether single parts, joined by ``||``, leave no value out."""
    single = [row[0] for row in rows if len(row) == 1]
    return any(map(_is_true, single)) or any(
        _complement(one, other) for at, one in enumerate(single) for other in single[at + 1 :]
    )


def _complement(one: Term, other: Term) -> bool:
    """Tell whether of two parts, where they have values, one always holds."""
    if (one.op == "not" and one.args[0] == other) or (other.op == "not" and other.args[0] == one):
        return True
    mine, theirs = read(one), read(other)
    if mine is None or theirs is None or mine.subject != theirs.subject:
        return False
    if {mine.ask, theirs.ask} == {Ask.ABOVE, Ask.BELOW}:
        return bounds_meet(mine, theirs)
    plain, negated = (theirs, mine) if mine.negated else (mine, theirs)
    if mine.ask is not theirs.ask or plain.negated or not negated.negated:
        return False
    return set(plain.keys) >= set(negated.keys)


def _breadth(subject: Subject, rule: CompiledRule) -> Iterator[LintFinding]:
    where = place_of(subject, rule)
    every = not rule.selectors or any(each.kind is SelectorKind.ANY for each in rule.selectors)
    unconditional = _is_true(rule.condition.term)
    if rule.effect is Effect.ALLOW:
        if every:
            message = f"{rule.policy_id} allows every resource that its condition lets through"
            if unconditional:
                message = f"{rule.policy_id} allows everything that is on no list"
            yield told("rule-allows-anything", message, where)
        elif unconditional and not rule.actions:
            message = f"{rule.policy_id} allows what it applies to, whatever is done"
            yield told("rule-unconditional", message, where)
    elif rule.effect is not Effect.AUDIT and every and unconditional and not rule.actions:
        message = f"{rule.policy_id} refuses every event"
        yield told("rule-refuses-everything", message, where)


def _actions(subject: Subject, rule: CompiledRule) -> Iterator[LintFinding]:
    if rule.actions and rule.actions <= _NOT_MADE:
        words = " and ".join(sorted(rule.actions))
        message = f"{rule.policy_id} speaks only of {words}, and no event is that in this version"
        yield told("rule-action-not-made", message, place_of(subject, rule))


def _not_indexed(rule: CompiledRule) -> Iterator[LintFinding]:
    """Find alternatives that are evaluated as a whole, and say what that costs."""
    rows = alternatives(rule.condition.term)
    whole = [row for row in rows if all(atom_of(part) is None for part in row) and not _free(row)]
    if not whole:
        return
    cost = sum(part.cost for row in whole for part in row)
    count = sum(map(len, whole))
    of = "" if len(whole) == len(rows) else f" of {len(whole)} of {len(rows)} alternatives"
    noun = "part" if count == 1 else "parts"
    message = (
        f"the index decides no part{of} of {rule.policy_id}: {count} {noun},"
        f" {cost} steps at most, for every event that it applies to"
    )
    yield told("rule-not-indexed", message, rule.condition.text.where)


def _free(row: tuple[Term, ...]) -> bool:
    return all(constant_of(part) is not None for part in row)

"""What rules speak of, compared: resources, actions and conditions of one within another.

Yes is always right. Rules that restrict name resources as a list that refuses does, rules
that allow as one that allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.cel.atoms import alternatives
from aesp_proxy.decide.policy.cel.terms import Term, asked_of
from aesp_proxy.decide.policy.facts import KINDS_OF_ACTION
from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.lint.atoms import contradict, implies
from aesp_proxy.decide.policy.lint.constant import constant_of
from aesp_proxy.decide.policy.lint.hosts import covers_host, hosts_may_meet
from aesp_proxy.decide.policy.lint.meeting import globs_meet
from aesp_proxy.decide.policy.lint.paths import covers_glob
from aesp_proxy.decide.policy.lint.tools import covers_tool
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.policy.selectors import Selector, SelectorKind
from aesp_proxy.decide.rule import CompiledRule

_EVERY_FILE: Final = frozenset({"**", "/**"})
_KIND_OF: Final = {
    "request": SelectorKind.EGRESS, "connect": SelectorKind.EGRESS,
    "dns": SelectorKind.EGRESS,
    "network": SelectorKind.EGRESS, "file": SelectorKind.FILE, "patch": SelectorKind.FILE,
    "tool": SelectorKind.TOOL,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reach:
    """A rule with its condition as alternatives of parts, those that are never true left out.

    ``facts`` are those that each alternative asks.
    """

    rule: CompiledRule
    rows: tuple[tuple[Term, ...], ...]
    facts: tuple[frozenset[str], ...]
    actions: frozenset[str]


def reach_of(rule: CompiledRule) -> Reach:
    """Return what a rule speaks of."""
    rows = alternatives(rule.condition.term)
    actions = frozenset(
        word
        for word, kinds in KINDS_OF_ACTION.items()
        if not rule.kinds.isdisjoint(kinds) and rule.names(word)
    )
    left = tuple(row for row in rows if not is_empty(row))
    facts = tuple(frozenset[str]().union(*map(asked_of, row)) for row in left)
    return Reach(rule=rule, rows=left, facts=facts, actions=actions)


def is_empty(row: tuple[Term, ...]) -> bool:
    """Tell whether parts can never hold together."""
    if any(constant_of(part) is False for part in row):
        return True
    pairs = ((one, other) for at, one in enumerate(row) for other in row[at + 1 :])
    return any(contradict(one, other) for one, other in pairs)


def lies_within(inner: Reach, outer: Reach) -> bool:
    """Tell whether ``outer`` matches every event that ``inner`` matches."""
    return (
        bool(inner.rule.kinds)
        and inner.rule.kinds <= outer.rule.kinds
        and inner.actions <= outer.actions
        and any(facts <= inner.rule.condition.facts for facts in outer.facts)
        and names_all(inner.rule, outer.rule)
        and bool(inner.rows)
        and all(any(_row_implies(row, other) for other in outer.rows) for row in inner.rows)
    )


def _row_implies(given: tuple[Term, ...], wanted: tuple[Term, ...]) -> bool:
    return all(
        constant_of(part) is True or any(implies(each, part) for each in given) for part in wanted
    )


def names_all(inner: CompiledRule, outer: CompiledRule) -> bool:
    """Tell whether ``outer`` names every resource that ``inner`` names."""
    if _is_every(outer.selectors):
        return True
    if _is_every(inner.selectors):
        kinds = {_KIND_OF.get(kind) for kind in inner.kinds}
        return all(any(_every_of(kind, each) for each in outer.selectors) for kind in kinds)
    fold = outer.effect is not Effect.ALLOW
    mixed = fold and inner.effect is Effect.ALLOW
    return all(
        any(_covers(one, other, fold=fold, mixed=mixed) for one in outer.selectors)
        for other in inner.selectors
    )


def _is_every(selectors: tuple[Selector, ...]) -> bool:
    return not selectors or any(each.kind is SelectorKind.ANY for each in selectors)


def _every_of(kind: SelectorKind | None, selector: Selector) -> bool:
    if kind is not selector.kind:
        return False
    if selector.host is not None:
        return _is_every_host(selector.host)
    if selector.glob is not None:
        return selector.glob.value in _EVERY_FILE
    return selector.tool is not None and selector.tool.value == "*"


def _is_every_host(rule: HostRule) -> bool:
    named = rule.name or rule.suffix or rule.labels or rule.network
    return rule.port in (None, 0) and not named


def _covers(outer: Selector, inner: Selector, *, fold: bool, mixed: bool) -> bool:
    """Compare two resources; ``mixed`` where only the outer is matched without case."""
    if outer.host is not None and inner.host is not None:
        return covers_host(outer.host, inner.host)
    if outer.glob is not None and inner.glob is not None:
        one, other = outer.glob.value, inner.glob.value
        if mixed and ("[" in one or "[" in other):
            return False  # a class and its letters without case are not one inside the other
        return covers_glob(one, other, fold=fold)
    if outer.tool is not None and inner.tool is not None:
        return covers_tool(outer.tool.value, inner.tool.value, refuses=fold)
    return False


Pair = tuple[Selector | None, Selector | None]
"""Two resources that may have something in common; None stands for every resource."""


def may_meet(one: Reach, other: Reach) -> bool:
    """Tell whether two rules could match one event; no is always right."""
    return (
        not one.rule.kinds.isdisjoint(other.rule.kinds)
        and not one.actions.isdisjoint(other.actions)
        and bool(resources_of(one.rule, other.rule))
    )


def resources_of(one: CompiledRule, other: CompiledRule) -> list[Pair]:
    """Return the resources of two rules that may have something in common."""
    mine: tuple[Selector | None, ...] = (None,) if _is_every(one.selectors) else one.selectors
    theirs: tuple[Selector | None, ...] = (None,) if _is_every(other.selectors) else other.selectors
    return [(first, second) for first in mine for second in theirs if _meet(first, second)]


def _meet(one: Selector | None, other: Selector | None) -> bool:
    if one is None or other is None:
        return True
    if one.kind is not other.kind:
        return False
    if one.host is not None and other.host is not None:
        return hosts_may_meet(one.host, other.host)
    if one.glob is not None and other.glob is not None:
        return globs_meet(one.glob.value, other.glob.value)
    return True

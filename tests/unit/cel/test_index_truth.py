"""The index never changes what a rule says: rules asked together are rules asked one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import cel_rules
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.policy.cel.emit import emit
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.facts import EVENTS, FACTS
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostIndex
from aesp_proxy.decide.policy.policy import Effect, RuleItem
from aesp_proxy.decide.policy.selectors import SelectorKind
from aesp_proxy.decide.policy.tools import ToolIndex
from aesp_proxy.decide.rule import CompiledRule, compile_rule
from aesp_proxy.decide.rules import Rules
from aesp_proxy.decide.trace import explain
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import (
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    ToolCall,
)

_SLOTS = {name: at for at, name in enumerate(sorted(FACTS), start=1)}
_KINDS = {event: kind for kind, event in EVENTS.items()}


def _usable(items: list[RuleItem]) -> list[RuleItem]:
    kept = []
    for item in items:
        try:
            compile_rule(item)
        except ConfigError:
            continue
        kept.append(item)
    return kept


def _applies(rule: CompiledRule, event: Event) -> bool:
    if _KINDS[type(event)] not in rule.kinds or not rule.names(event.action):
        return False
    return not rule.selectors or any(_selects(rule, index, event)
                                     for index in range(len(rule.selectors)))  # fmt: skip


def _selects(rule: CompiledRule, index: int, event: Event) -> bool:
    selector, allows = rule.selectors[index], rule.effect is Effect.ALLOW
    if selector.kind is SelectorKind.ANY:
        return True
    if selector.host is not None and isinstance(event, EgressRequest | EgressConnect):
        hosts = HostIndex([selector.host], ports_without=None, any_is_address=True)
        return hosts.find(event.host, event.port) is not None
    if selector.host is not None and isinstance(event, DnsQuery):
        hosts = HostIndex([selector.host], ports_without=None, any_is_address=True)
        of_names = allows or selector.host.port in (None, 0)
        return of_names and next(hosts.naming(event.host), None) is not None
    if selector.glob is not None and isinstance(event, FileAccess):
        globs = PathGlobs([selector.glob], fold=not allows)
        found = [globs.find(path) is not None for path in (event.path, event.resolved)]
        return all(found) if allows else any(found)
    if selector.tool is not None and isinstance(event, ToolCall):
        return (
            ToolIndex([selector.tool], refuses=not allows).find(event.server, event.name)
            is not None
        )
    return False


def _value(rule: CompiledRule, known: dict[str, object]) -> bool | None:
    slots = [[STEPS_MAX], *(known.get(name) for name in sorted(FACTS))]
    try:
        return emit(rule.condition.term, _SLOTS)(slots) is True
    except EvaluationError:
        return None


def _naive(
    rules: Rules, event: Event, context: Context, found: tuple[Finding, ...]
) -> tuple[dict[str, bool | None], list[str], list[str]]:
    known = cel_rules.facts(event, context, found)
    values: dict[str, bool | None] = {}
    for rule in rules.rules:
        if _applies(rule, event):
            values[rule.policy_id] = _value(rule, known)
    effects = {rule.policy_id: rule.effect for rule in rules.rules}
    errors = [each for each, value in values.items() if value is None]
    matched = [each for each, value in values.items()
               if value or (value is None and effects[each] is not Effect.ALLOW)]  # fmt: skip
    return values, matched, errors


def _told(items: list[RuleItem]) -> str:
    return "\n".join(
        f"{item.policy_id.value} {item.effect} {[each.value for each in item.actions]} "
        f"{[each.value for each in item.applies_to]} {item.condition.value}"
        for item in items
    )


def _check(seed: int, *, rules_max: int, events: int) -> int:
    chance = random.Random(seed)
    items = _usable([cel_rules.rule(chance, n) for n in range(chance.randrange(1, rules_max))])
    return _compare(items, chance, seed=seed, events=events)


def _compare(items: list[RuleItem], chance: random.Random, *, seed: int, events: int) -> int:
    rules = Rules(items)
    shuffled = Rules(chance.sample(items, len(items)))
    for _ in range(events):
        event, context = cel_rules.event(chance), cel_rules.context(chance)
        found = cel_rules.findings(chance)
        values, matched, errors = _naive(rules, event, context, found)
        says = rules.matches(event, context, found)
        about = f"seed {seed}\n{event}\n{context}\n{_told(items)}"
        assert list(says.rules) == matched, about
        assert list(says.errors) == errors, about
        allowing = {r.policy_id for r in rules.rules if r.effect is Effect.ALLOW}
        assert says.allows == bool(allowing & set(matched)), about
        for trace in explain(rules, event, context, found):
            assert trace.applies == (trace.policy_id in values), about
            if trace.applies:
                assert trace.value == values[trace.policy_id], (trace.policy_id, about)
            assert trace.matched == (trace.policy_id in matched), (trace.policy_id, about)
        again = shuffled.matches(event, context, found)
        assert sorted(again.rules) == sorted(matched), about
        assert sorted(again.errors) == sorted(errors), about
    return len(items) * events


@given(st.integers(0, 2**40))
@settings(max_examples=40)
def test_rules_asked_together_answer_as_each_alone(seed: int):
    _check(seed, rules_max=14, events=12)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_rules_asked_together_answer_as_each_alone(seed: int):
    assert _check(seed, rules_max=120, events=15)


def test_rules_of_one_question_each_answer_as_each_alone():
    chance = random.Random(3)
    drawn = [cel_rules.rule(chance, number) for number in range(400)]
    plain = [
        replace(item, condition=item.condition.of(cel_rules.atom(chance)), actions=(),
                applies_to=item.applies_to[:1])
        for item in drawn
    ]  # fmt: skip
    assert _compare(_usable(plain), chance, seed=3, events=40) > 10_000


def test_the_random_rules_reach_every_table_and_every_way_out():
    chance = random.Random(5)
    rules = Rules(_usable([cel_rules.rule(chance, n) for n in range(250)]))
    values: set[bool | None] = set()
    for _ in range(40):
        event, context = cel_rules.event(chance), cel_rules.context(chance)
        told, _, _ = _naive(rules, event, context, ())
        values |= set(told.values())
    assert values == {True, False, None}

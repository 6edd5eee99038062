"""Engines that rules are measured beside get the same rules, and say so when they differ."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks import policy
from benchmarks.rule_peers import ENGINES
from benchmarks.rule_set import events_of, rules_of

from aesp_proxy.decide.engine import decide

SEED = 7
RULES = 48


def test_the_rules_of_a_larger_set_begin_with_those_of_a_smaller_one() -> None:
    assert rules_of(RULES, SEED)[:8] == rules_of(8, SEED)


def test_events_of_the_benchmark_know_all_that_its_rules_read() -> None:
    snapshot, _ = policy.load(RULES, SEED)
    decisions = [decide(event, snapshot, context) for event, context in events_of(100, SEED)]
    assert not any(decision.rule_errors for decision in decisions)
    assert {bool(decision.rules) for decision in decisions} == {True, False}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_names_the_same_rules_and_one_that_does_not_is_found(name: str) -> None:
    engine = ENGINES[name](rules_of(RULES, SEED))
    if engine is None:
        pytest.skip(f"{name} is not installed")
    snapshot, _ = policy.load(RULES, SEED)
    events = events_of(30, SEED)
    policy.agree(name, engine, snapshot, events)
    with pytest.raises(RuntimeError, match="disagree"):
        policy.agree(name, lambda _: frozenset({"r999"}), snapshot, events)


def test_a_call_is_timed_and_its_cpu_told() -> None:
    figures = policy.timed(lambda _: sum(range(100)), events_of(3, SEED), 0.01)
    assert figures["cpu_us"] > 0

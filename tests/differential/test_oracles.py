"""Random conditions have the value that Google's engine and cel-python's interpreter give."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from cel_random import Expressions, ours, values
from known import GOOGLE, PYTHON, Known, reason
from oracles import Asked, Facts, google, own, python

_REFUSED_MAX = 0.05
# Another seed tries other expressions: DIFFERENTIAL_SEED=7 make long.
_SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))


class _Tally:
    """Counts what was compared; keeps the first differences that no line of ``known`` names."""

    def __init__(self) -> None:
        self.agreed = 0
        self.expected: Counter[str] = Counter()
        self.refused: list[str] = []
        self.faults: list[str] = []

    @property
    def all(self) -> int:
        return self.agreed + sum(self.expected.values()) + len(self.faults)

    def add(
        self, text: str, mine: Asked, other: Asked, known: tuple[Known, ...], facts: Facts
    ) -> None:
        a, b = mine(facts), other(facts)
        if a.value == b.value:
            self.agreed += 1
            return
        why = reason(known, text, a, b)
        if why is None:
            read = {k: v for k, v in facts.values.items() if f"{k}>>" in text}
            self.faults.append(f"{ours(text)}\n  ours {a}\n  theirs {b}\n  facts {read}")
        else:
            self.expected[why] += 1

    def tell(self, name: str, expressions: int) -> None:
        print(f"\n{name}: {self.all} evaluations of {expressions} expressions")
        print(f"  {self.agreed} agreed, {len(self.faults)} unexplained differences")
        for why, count in self.expected.most_common():
            print(f"  {count} differ: {why}")
        print(f"  {len(self.refused)} expressions refused, as too costly")
        assert not self.faults, "\n".join(self.faults[:5])
        assert len(self.refused) <= expressions * _REFUSED_MAX, "\n".join(self.refused[:20])


def _against_google(expressions: int, situations: int, seed: int) -> _Tally:
    chance = random.Random(seed)
    draw = Expressions(chance)
    around = [Facts(values(chance)) for _ in range(situations)]
    tally = _Tally()
    for _ in range(expressions):
        text = draw.condition(chance.randrange(1, 5))
        mine, theirs = own(text), google(text)
        if mine is None or theirs is None:
            tally.refused.append(ours(text))
            continue
        for facts in around:
            tally.add(text, mine, theirs, GOOGLE, facts)
    tally.tell("Google's cel-expr-python", expressions)
    return tally


def _against_python(expressions: int, situations: int, seed: int) -> _Tally:
    chance = random.Random(seed)
    draw = Expressions(chance, plain=True)
    around = [Facts(values(chance)) for _ in range(situations)]
    tally = _Tally()
    for _ in range(expressions):
        text = draw.condition(chance.randrange(1, 4))
        mine, theirs, third = own(text), google(text), python(text)
        if mine is None or theirs is None or third is None:
            tally.refused.append(ours(text))
            continue
        for facts in around:
            if mine(facts).value == theirs(facts).value:
                tally.add(text, mine, third, PYTHON, facts)
    tally.tell("cel-python's interpreter", expressions)
    return tally


def test_a_few_thousand_evaluations_agree_with_google():
    assert _against_google(expressions=250, situations=10, seed=20_240_229).all > 2_200


def test_some_hundred_evaluations_agree_with_cel_python():
    assert _against_python(expressions=125, situations=5, seed=20_240_301).all > 500


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_thousand_evaluations_agree_with_google():
    assert _against_google(expressions=4_400, situations=25, seed=_SEED).all >= 100_000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_fifty_thousand_evaluations_agree_with_cel_python():
    assert _against_python(expressions=2_600, situations=20, seed=_SEED).all >= 50_000

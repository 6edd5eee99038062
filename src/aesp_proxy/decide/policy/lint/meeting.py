"""Can two path patterns match one path? No is always right; without regard to case."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from aesp_proxy.decide.policy.cover_names import glob_components
from aesp_proxy.decide.policy.wild import MANY, Token, Word, glob_words

_DEEP: Final = "**"


def globs_meet(one: str, other: str) -> bool:
    """Tell whether some path may be matched by both."""
    if not (one.isascii() and other.isascii()):
        return True
    mine, theirs = glob_components(one.lower()), glob_components(other.lower())
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        at, to = waiting.pop()
        for step in _steps(mine, theirs, at, to):
            if step not in reached:
                reached.add(step)
                waiting.append(step)
    return (len(mine), len(theirs)) in reached


def _steps(mine: Sequence[str], theirs: Sequence[str], at: int, to: int) -> list[tuple[int, int]]:
    """Return where one name of a path, or none at ``**``, leads from a pair of places."""
    steps = []
    first = mine[at] if at < len(mine) else None
    second = theirs[to] if to < len(theirs) else None
    if first == _DEEP:
        steps.append((at + 1, to))
        if second is not None and second != _DEEP:
            steps.append((at, to + 1))
    if second == _DEEP:
        steps.append((at, to + 1))
        if first is not None and first != _DEEP:
            steps.append((at + 1, to))
    if first is None or second is None or _DEEP in (first, second):
        return steps
    if _names_meet(first, second):
        steps.append((at + 1, to + 1))
    return steps


@cache
def _names_meet(one: str, other: str) -> bool:
    mine, theirs = glob_words(one), glob_words(other)
    if mine is None or theirs is None:
        return True
    return any(_words_meet(first, second) for first in mine for second in theirs)


def _words_meet(one: Word, other: Word) -> bool:
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        at, to = waiting.pop()
        first = one[at] if at < len(one) else None
        second = other[to] if to < len(other) else None
        steps = []
        if first == MANY:
            steps += [(at + 1, to), *([(at, to + 1)] if second is not None else [])]
        if second == MANY:
            steps += [(at, to + 1), *([(at + 1, to)] if first is not None else [])]
        if first is not None and second is not None and _tokens_meet(first, second):
            steps.append((at + 1, to + 1))
        fresh = [step for step in steps if step not in reached]
        reached.update(fresh)
        waiting.extend(fresh)
    return (len(one), len(other)) in reached


def _tokens_meet(one: Token, other: Token) -> bool:
    """A class that is negated is taken for any character: without case it is not exact."""
    if one.chars is None or other.chars is None or one.negated or other.negated:
        return True
    return bool(one.chars & other.chars)

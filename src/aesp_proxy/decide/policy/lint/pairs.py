"""Rules two by two: one that makes another useless, two that say the same, two that disagree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding, Related
from aesp_proxy.decide.policy.lint.reach import Reach, lies_within, may_meet, names_all, reach_of
from aesp_proxy.decide.policy.lint.rules import place_of
from aesp_proxy.decide.policy.lint.subject import Describe, Subject
from aesp_proxy.decide.policy.lint.witness import witness_of
from aesp_proxy.decide.policy.policy import Effect

_STRICTNESS: Final = (Effect.ALLOW, Effect.AUDIT, Effect.ASK, Effect.DENY)
_WITNESSES_MAX: Final = 400


def look_at_pairs(subject: Subject, describe: Describe) -> Iterator[LintFinding]:
    """Yield what is wrong with rules beside each other.

    Conflicts are told with a request that both match; without one they are not told. Of
    very many pairs that may meet, only the first are tried.
    """
    reaches = [reach_of(rule) for rule in subject.rules.rules]
    useless: set[str] = set()
    for reach in reaches:
        finding = _useless(subject, reach, reaches, useless)
        if finding is not None:
            useless.add(reach.rule.policy_id)
            yield finding
    left = [reach for reach in reaches if reach.rule.policy_id not in useless and reach.rows]
    yield from _conflicts(subject, left, describe)


def _useless(
    subject: Subject, reach: Reach, reaches: Sequence[Reach], useless: set[str]
) -> LintFinding | None:
    """Find a rule that always matches too and is as strict; of two that say the same, the first."""
    mine = reach.rule
    for other in reaches:
        rule = other.rule
        if other is reach or rule.policy_id in useless:
            continue
        if _STRICTNESS.index(rule.effect) < _STRICTNESS.index(mine.effect):
            continue
        if not lies_within(reach, other):
            continue
        same = rule.effect is mine.effect and lies_within(other, reach)
        related = Related(source=rule.source, text=rule.policy_id)
        if same:
            if _position(subject, other) > _position(subject, reach):
                continue  # told of the later one
            message = f"{mine.policy_id} says the same as {rule.policy_id}"
            return told("rule-duplicate", message, place_of(subject, mine), related)
        if mine.effect is Effect.ALLOW and rule.effect is not Effect.ALLOW:
            if rule.effect is Effect.AUDIT:
                continue  # it lets pass as well
            message = (
                f"{mine.policy_id} never allows anything: {rule.policy_id} ({rule.effect.value})"
                f" matches whenever it does"
            )
        elif rule.effect is mine.effect:
            message = f"{rule.policy_id} matches whenever {mine.policy_id} does"
        else:
            message = (
                f"{rule.policy_id} matches whenever {mine.policy_id} does, and"
                f" {rule.effect.value} is stricter than {mine.effect.value}"
            )
        return told("rule-shadowed", message, place_of(subject, mine), related)
    return None


def _position(subject: Subject, reach: Reach) -> int:
    ids = [item.policy_id.value for item in subject.policy.rules]
    return ids.index(reach.rule.policy_id)


def _conflicts(
    subject: Subject, reaches: Sequence[Reach], describe: Describe
) -> Iterator[LintFinding]:
    tried = 0
    allows = [reach for reach in reaches if reach.rule.effect is Effect.ALLOW]
    denies = [reach for reach in reaches if reach.rule.effect is Effect.DENY]
    for allow in allows:
        for deny in denies:
            if tried == _WITNESSES_MAX or not may_meet(allow, deny):
                continue
            tried += 1
            witness = witness_of(subject, allow, deny, describe)
            if witness is None:
                continue
            one, other = allow.rule, deny.rule
            same = bool(other.selectors) and names_all(one, other) and names_all(other, one)
            message = (
                f"{one.policy_id} allows what {other.policy_id} denies, as this request; DENY wins"
            )
            yield told("rule-conflict", message, place_of(subject, one),
                       Related(source=other.source, text=f"denied by {other.policy_id}"),
                       witness=witness,
                       level=FindingLevel.WARNING if same else None)  # fmt: skip

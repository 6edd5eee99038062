"""What is told of ``secret_leak.actions``: entries that can never change what becomes of a find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import LintFinding, Related
from aesp_proxy.decide.policy.lint.hosts import covers_host
from aesp_proxy.decide.policy.lint.subject import Subject
from aesp_proxy.decide.policy.policy import LeakAction, SecretSection
from aesp_proxy.model.decision import Verdict

_WILD: Final = frozenset("*?[")


def look_at_actions(subject: Subject) -> Iterator[LintFinding]:
    """Yield actions below the threshold, behind a milder one, or as mild as the section itself."""
    section = subject.policy.secrets
    for number, action in enumerate(section.actions):
        where, said = action.rule.where, f"the action for {action.rule.value[:80]}"
        if action.severity_max < section.severity_threshold:
            message = (
                f"{said} is for {action.severity_max.word} at most, and what is below "
                f"{section.severity_threshold.word} is only recorded anyway"
            )
            yield told("action-without-effect", message, where)
        elif section.redact and action.verdict is Verdict.REDACT:
            yield told("action-without-effect", f"{said} masks what redact masks anyway", where)
        else:
            yield from _covered(section, number, said)


def _covered(section: SecretSection, number: int, said: str) -> Iterator[LintFinding]:
    action = section.actions[number]
    for at, other in enumerate(section.actions):
        # Of two that say the same the second is told.
        if at == number or (at > number and _covers(action, other)):
            continue
        if _covers(other, action):
            message = (
                f"{said} never decides: {other.rule.value[:80]} is as mild wherever it applies"
            )
            first = Related(source=other.rule.where, text="decides here")
            yield told("action-without-effect", message, action.rule.where, first)
            return


def _covers(outer: LeakAction, inner: LeakAction) -> bool:
    """Tell whether ``outer`` is at least as mild wherever ``inner`` applies; no is always right."""
    return (
        outer.verdict.strictness <= inner.verdict.strictness
        and outer.severity_max >= inner.severity_max
        and _names(outer.rule.value, inner.rule.value)
        and (not outer.hosts or (bool(inner.hosts) and _reaches(outer.hosts, inner.hosts)))
    )


def _names(outer: str, inner: str) -> bool:
    if outer in (inner, "*"):
        return True
    return not _WILD & set(inner) and fnmatchcase(inner, outer)


def _reaches(outer: Sequence[HostRule], inner: Sequence[HostRule]) -> bool:
    return all(any(covers_host(one, other) for one in outer) for other in inner)

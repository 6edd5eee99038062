"""All checks on one policy, the findings in the order of files and lines, each once."""

from __future__ import annotations

from collections.abc import Iterable

from aesp_proxy.decide.policy.lint.finding import LintFinding
from aesp_proxy.decide.policy.lint.hosts import look_at_hosts
from aesp_proxy.decide.policy.lint.leaks import look_at_actions
from aesp_proxy.decide.policy.lint.pairs import look_at_pairs
from aesp_proxy.decide.policy.lint.paths import look_at_paths
from aesp_proxy.decide.policy.lint.rules import look_at_rules
from aesp_proxy.decide.policy.lint.sections import look_at_sections
from aesp_proxy.decide.policy.lint.subject import Describe, Subject
from aesp_proxy.decide.policy.lint.tools import look_at_tools


def lint(subject: Subject, describe: Describe) -> tuple[LintFinding, ...]:
    """Return what all checks find. ``describe`` makes events of facts, to confirm witnesses."""
    return ordered((
        *look_at_sections(subject),
        *look_at_hosts(subject),
        *look_at_actions(subject),
        *look_at_paths(subject),
        *look_at_tools(subject),
        *look_at_rules(subject),
        *look_at_pairs(subject, describe),
    ))  # fmt: skip


def ordered(findings: Iterable[LintFinding]) -> tuple[LintFinding, ...]:
    """Return findings by file, line and column, each once."""
    found = {(each.check, each.source, each.message): each for each in findings}
    # An entry that stands twice is not told a second time as covered by itself.
    twice = {each.place[:2] for each in found.values() if each.check == "entry-duplicate"}
    kept = (
        each
        for each in found.values()
        if not (each.check.endswith("-redundant") and each.place[:2] in twice)
    )
    return tuple(sorted(kept, key=lambda each: (each.place, each.check, each.message)))

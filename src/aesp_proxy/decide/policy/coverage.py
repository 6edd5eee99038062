"""What the cases of a suite have tried of a policy: rules, their conjuncts, entries of lists.

A rule is covered when one case matches it and one does not; a conjunct of its condition
when it was seen true and seen false (an error is neither). An entry of a list is covered
when it has decided a case. What was never seen either way is what a change could break
without anybody noticing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.trace import RuleTrace

_CONSTANTS = frozenset({"true", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that no case has tried. ``source`` is FILE:LINE."""

    source: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Counts of what there is and what was tried, and each thing that was not."""

    rules: int
    rules_covered: int
    conjuncts: int
    conjuncts_covered: int
    entries: int
    entries_covered: int
    rule_gaps: tuple[Gap, ...]
    conjunct_gaps: tuple[Gap, ...]
    entry_gaps: tuple[Gap, ...]

    @property
    def rules_percent(self) -> float:
        """Share of the rules that are covered; 100 where there are none."""
        return percent(self.rules_covered, self.rules)

    @property
    def conjuncts_percent(self) -> float:
        """Share of the conjuncts that are covered; 100 where there are none."""
        return percent(self.conjuncts_covered, self.conjuncts)


def percent(part: int, whole: int) -> float:
    """Return a share in percent; nothing of nothing is all of it."""
    return 100.0 * part / whole if whole else 100.0


def coverage(
    policy: Policy, traces: Sequence[Sequence[RuleTrace]], deciders: Iterable[str]
) -> Coverage:
    """Return what was covered.

    ``traces`` are those of the rules, one sequence a case; ``deciders`` the sources of all
    the answers of guards.
    """
    seen = _seen(traces)
    rules = {item.policy_id.value: item.source for item in policy.rules if item.enabled}
    rule_gaps = [gap for name, source in rules.items() if (gap := _rule_gap(name, source, seen))]
    conjuncts = seen.conjuncts
    conjunct_gaps = [gap for key in conjuncts if (gap := _conjunct_gap(key, conjuncts[key]))]
    used = frozenset(deciders)
    entries = list(_entries(policy))
    entry_gaps = [gap for gap in entries if gap.source not in used]
    return Coverage(
        rules=len(rules),
        rules_covered=len(rules) - len(rule_gaps),
        conjuncts=len(conjuncts),
        conjuncts_covered=len(conjuncts) - len(conjunct_gaps),
        entries=len(entries),
        entries_covered=len(entries) - len(entry_gaps),
        rule_gaps=tuple(rule_gaps),
        conjunct_gaps=tuple(conjunct_gaps),
        entry_gaps=tuple(entry_gaps),
    )


_ConjunctKey = tuple[str, str, int, str]


class _Seen:
    """Which outcomes each rule and each conjunct has had."""

    def __init__(self) -> None:
        self.rules: dict[str, set[bool]] = {}
        self.conjuncts: dict[_ConjunctKey, set[bool]] = {}


def _seen(traces: Sequence[Sequence[RuleTrace]]) -> _Seen:
    seen = _Seen()
    for case in traces:
        for trace in case:
            seen.rules.setdefault(trace.policy_id, set()).add(trace.matched)
            for number, conjunct in enumerate(trace.conjuncts):
                if conjunct.text in _CONSTANTS:
                    continue
                key = (trace.source, trace.policy_id, number, conjunct.text)
                values = seen.conjuncts.setdefault(key, set())
                if trace.applies and conjunct.value is not None:
                    values.add(conjunct.value)
    return seen


def _rule_gap(name: str, source: str, seen: _Seen) -> Gap | None:
    outcomes = seen.rules.get(name, set())
    if len(outcomes) == len((True, False)):
        return None
    missing = "matched by no case" if True not in outcomes else "matched by every case"
    return Gap(source=source, what=f"rule {name}: {missing}")


def _conjunct_gap(key: _ConjunctKey, values: set[bool]) -> Gap | None:
    missing = [word for word, value in (("true", True), ("false", False)) if value not in values]
    if not missing:
        return None
    source, name, _, text = key
    return Gap(source=source, what=f"rule {name}: {text} was never {' nor '.join(missing)}")


def _entries(policy: Policy) -> Iterator[Gap]:
    if policy.egress is not None:
        yield from _listed("egress_allowlist.allow", policy.egress.allow)
        yield from _listed("egress_allowlist.block", policy.egress.block)
    if policy.paths is not None:
        yield from _listed("forbidden_path.patterns", policy.paths.patterns)
    if policy.path_allow is not None:
        yield from _listed("path_allowlist.file_access_allow", policy.path_allow.access)
        yield from _listed("path_allowlist.file_write_allow", policy.path_allow.write)
        yield from _listed("path_allowlist.patch_allow", policy.path_allow.patch)
    if policy.patch is not None:
        yield from _listed("patch_integrity.forbidden_patterns", policy.patch.forbidden_patterns)
    if policy.tools is not None:
        yield from _listed("mcp_tool.allow", policy.tools.allow)
        yield from _listed("mcp_tool.block", policy.tools.block)
        yield from _listed("mcp_tool.require_confirmation", policy.tools.require_confirmation)


def _listed(name: str, items: Iterable[Sourced[str] | HostRule]) -> Iterator[Gap]:
    for item in items:
        if item.source.endswith(")"):
            continue  # of a list that no file writes out: nobody's to try
        text = item.text if isinstance(item, HostRule) else item.value
        yield Gap(source=item.source, what=f"{name}: {text} has decided no case")

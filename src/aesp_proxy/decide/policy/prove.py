"""A second opinion on two policies, one above the other: nothing refused above passes below.

It knows nothing of files and levels: it compares what the two policies mean, list by
list and value by value, and confirms each witness by deciding it under both. Events that
try every entry of both are decided as well, so that what the comparison does not see is
seen there. Grants are not compared: an exception is what may widen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.cover_hosts import covers
from aesp_proxy.decide.policy.cover_names import GlobCover
from aesp_proxy.decide.policy.policy import (
    Effect,
    LeakAction,
    PatchSection,
    Policy,
    RuleItem,
    SecretSection,
    Settings,
    rule_meaning,
)
from aesp_proxy.decide.policy.prove_events import Trial, events_of, told
from aesp_proxy.model.event import Event

_SHOWN_CHARS_MAX: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that is weaker below. ``above`` and ``below`` are FILE:LINE that decide."""

    what: str
    above: str
    below: str

    def __str__(self) -> str:
        return f"{self.what}: refused by {self.above}, passes by {self.below}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found; nothing found is the proof. ``events`` is how many were decided."""

    doubts: tuple[Doubt, ...]
    events: int


def prove(above: Policy, below: Policy) -> Proof:
    """Compare two policies; the lower one may only be stricter."""
    doubts = list(_by_meaning(above, below))
    events = 0
    upper, lower = Trial(above), Trial(below)
    for event in events_of(above, below):
        events += 1
        doubt = _tried(event, upper, lower)
        if doubt is not None:
            doubts.append(doubt)
    return Proof(doubts=tuple(doubts), events=events)


def _tried(event: Event, upper: Trial, lower: Trial) -> Doubt | None:
    held = upper.decided(event)
    if held.verdict.passes:
        return None
    got = lower.decided(event)
    if not got.verdict.passes:
        return None
    return Doubt(what=told(event), above=held.source, below=got.source)


def _by_meaning(above: Policy, below: Policy) -> Iterator[Doubt]:
    yield from _ended(above, below)
    yield from _required(above, below)
    yield from _secrets(above.secrets, below.secrets)
    yield from _patch(above.patch, below)
    yield from _settings(above, below)
    yield from _rules(above, below)
    if above.tools is not None and below.tools is not None:
        held, got = above.tools.args_bytes_max, below.tools.args_bytes_max
        if held is not None and (got is None or got > held):
            yield Doubt(
                what=f"a call with {held + 1} bytes of arguments",
                above=above.tools.source,
                below=below.tools.source,
            )


def _required(above: Policy, below: Policy) -> Iterator[Doubt]:
    """Doubt a run that nothing guards files in, where above there is none."""
    if above.paths is None or not above.paths.requires:
        return
    if below.paths is None or not below.paths.requires:
        source = below.where if below.paths is None else below.paths.source
        yield Doubt(what="a run without a guard of files", above=above.paths.source, below=source)


def _ended(above: Policy, below: Policy) -> Iterator[Doubt]:
    """Find guards that ended where a rule may allow what no guard answers for."""
    if not any(rule.enabled and rule.effect is Effect.ALLOW for rule in below.rules):
        return
    pairs = (
        ("egress_allowlist", above.egress, below.egress),
        ("forbidden_path", above.paths, below.paths),
        ("path_allowlist", above.path_allow, below.path_allow),
        ("mcp_tool", above.tools, below.tools),
    )
    for name, held, got in pairs:
        if held is not None and got is None:
            yield Doubt(what=f"what {name} refuses", above=held.source, below=below.where)


def _secrets(above: SecretSection, below: SecretSection) -> Iterator[Doubt]:
    if not above.enabled:
        return
    if not below.enabled:
        yield Doubt(what="a secret in a request", above=above.source, below=below.source)
        return
    if below.severity_threshold > above.severity_threshold:
        what = f"a finding of severity {above.severity_threshold.word}"
        yield Doubt(what=what, above=above.source, below=below.source)
    kept = {pattern.name: pattern for pattern in below.patterns}
    for pattern in above.patterns:
        other = kept.get(pattern.name)
        same = other is not None and (
            other.pattern.value == pattern.pattern.value
            and other.severity >= pattern.severity
            and other.limits in ((), pattern.limits)
        )
        if not same:
            what = f"a secret of the kind {pattern.name[:_SHOWN_CHARS_MAX]!a}"
            yield Doubt(what=what, above=pattern.pattern.source, below=below.source)
    packs = {pack.value for pack in below.packs}
    for pack in above.packs:
        if pack.value not in packs:
            what = f"a secret of the pack {pack.value[:_SHOWN_CHARS_MAX]!a}"
            yield Doubt(what=what, above=pack.source, below=below.source)
    skipped = GlobCover(above.skip_paths)
    for path in below.skip_paths:
        witness = skipped.uncovered(path)
        if witness is not None:
            what = f"a secret in the file {witness!a}"
            yield Doubt(what=what, above=above.source, below=path.source)
    yield from _credentials(above, below)
    yield from _leak_actions(above, below)


def _credentials(above: SecretSection, below: SecretSection) -> Iterator[Doubt]:
    for got in below.credentials:
        for host in got.hosts:
            for header in got.headers:
                if not any(
                    held.rule.value == got.rule.value
                    and header in held.headers
                    and any(covers(outer, host) for outer in held.hosts)
                    for held in above.credentials
                ) and not _named_wider(got.rule.value, above):
                    what = f"the secret {got.rule.value[:_SHOWN_CHARS_MAX]!a} to {host.text}"
                    yield Doubt(what=what, above=above.source, below=got.rule.source)


def _leak_actions(above: SecretSection, below: SecretSection) -> Iterator[Doubt]:
    """Doubt what is masked or recorded below and refused above."""
    if below.records_unscannable and not above.records_unscannable:
        yield Doubt(what="content that cannot be scanned", above=above.source, below=below.source)
    if below.redact and not above.redact:
        yield Doubt(what="a secret in a body, masked", above=above.source, below=below.source)
    for got in below.actions:
        if not any(_covers_action(held, got) for held in above.actions):
            what = f"a finding of {got.rule.value[:_SHOWN_CHARS_MAX]!a}"
            yield Doubt(what=what, above=above.source, below=got.rule.source)


def _covers_action(held: LeakAction, got: LeakAction) -> bool:
    return (
        held.rule.value == got.rule.value
        and held.verdict.strictness <= got.verdict.strictness
        and held.severity_max >= got.severity_max
        and (
            not held.hosts
            or (
                bool(got.hosts)
                and all(any(covers(outer, host) for outer in held.hosts) for host in got.hosts)
            )
        )
    )


def _named_wider(rule: str, above: SecretSection) -> bool:
    """Tell whether a pattern of rule ids above stands for this one; then samples decide."""
    return any(
        "*" in held.rule.value and rule.startswith(held.rule.value.partition("*")[0])
        for held in above.credentials
    )


def _patch(above: PatchSection | None, below: Policy) -> Iterator[Doubt]:
    if above is None:
        return
    got = below.patch
    if got is None:
        yield Doubt(
            what=f"a patch that adds {above.additions_max + 1} lines",
            above=above.source,
            below=below.where,
        )
        return
    limits = (
        ("adds", above.additions_max, got.additions_max),
        ("deletes", above.deletions_max, got.deletions_max),
    )
    for does, held, most in limits:
        if most > held:
            what = f"a patch that {does} {held + 1} lines"
            yield Doubt(what=what, above=above.source, below=got.source)
    loose = above.require_balance and not got.require_balance
    if loose or (above.require_balance and got.imbalance_ratio_max > above.imbalance_ratio_max):
        what = f"a patch with more than {above.imbalance_ratio_max:g} additions a deletion"
        yield Doubt(what=what, above=above.source, below=got.source)
    kept = {pattern.value for pattern in got.forbidden_patterns}
    for pattern in above.forbidden_patterns:
        if pattern.value not in kept:
            what = f"an added line that matches {pattern.value[:_SHOWN_CHARS_MAX]!a}"
            yield Doubt(what=what, above=pattern.source, below=got.source)


def _settings(above: Policy, below: Policy) -> Iterator[Doubt]:
    held, got = above.settings, below.settings
    if held.verbose_logging and not got.verbose_logging:
        yield Doubt(what="a record without detail", above=above.where, below=below.where)
    if _longer(held, got):
        what = f"a session of {(held.session_timeout_s or 0) + 1} seconds"
        yield Doubt(what=what, above=above.where, below=below.where)


def _longer(held: Settings, got: Settings) -> bool:
    if held.session_timeout_s is None:
        return False
    return got.session_timeout_s is None or got.session_timeout_s > held.session_timeout_s


def _rules(above: Policy, below: Policy) -> Iterator[Doubt]:
    """Compare rules by what they say: those that restrict stay, none that allows is new."""
    held = [rule for rule in above.rules if rule.enabled]
    got = [rule for rule in below.rules if rule.enabled]
    for rule in held:
        if rule.effect is not Effect.ALLOW and not _among(rule, got):
            what = f"an event that the rule {rule.policy_id.value[:_SHOWN_CHARS_MAX]!a} stops"
            yield Doubt(what=what, above=rule.source, below=below.where)
    for rule in got:
        if rule.effect is Effect.ALLOW and not _among(rule, held):
            what = f"an event that the rule {rule.policy_id.value[:_SHOWN_CHARS_MAX]!a} allows"
            yield Doubt(what=what, above=above.where, below=rule.source)


def _among(rule: RuleItem, rules: list[RuleItem]) -> bool:
    said = rule_meaning(rule)
    return any(rule_meaning(other) == said for other in rules)

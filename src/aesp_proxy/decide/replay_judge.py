"""What a policy would have answered for recorded decisions, and where that cannot be told.

The engine decides, with the policy's own guards; the findings of the record stand for the
secret scan. Where a fact that the record does not hold could change the verdict, the answer
is that nobody knows, and why: never "the same".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from aesp_proxy.decide.answer import NO_RULES, RuleMatches
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.guards import build_guards
from aesp_proxy.decide.policy.policy import Effect, Policy, canonical, rule_meaning
from aesp_proxy.decide.replay import Replayed, Unjudgeable, replayed
from aesp_proxy.decide.replay_rules import PartialRules, PartlyMatched, StatedRules
from aesp_proxy.decide.rules import Rules
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.context import NO_CONTEXT
from aesp_proxy.model.decision import Decision, Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import Event, PatchApply, ToolCall
from aesp_proxy.model.record import Record

_RULES_TOLD_MAX: Final = 32
_PASSES: Final = frozenset({Verdict.ALLOW, Verdict.AUDIT})


class Standing(StrEnum):
    """What became of a record under a policy."""

    JUDGED = "judged"
    BEYOND = "beyond"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """``verdict``, ``reason``, ``decider`` and ``source`` hold where it is judged; else ``why``."""

    standing: Standing
    verdict: str = ""
    reason: str = ""
    decider: str = ""
    source: str = ""
    why: str = ""


class _RecordedFindings:
    """Stands for the scanner: finds what the record says was found."""

    def __init__(self) -> None:
        self.now: tuple[Finding, ...] = ()

    def scan(self, data: bytes, location: str) -> tuple[Finding, ...]:  # noqa: ARG002 - a Scanner
        return self.now

    def scan_head(
        self,
        target: bytes,  # noqa: ARG002 - a Scanner
        headers: Sequence[tuple[bytes, bytes]],  # noqa: ARG002 - the same
    ) -> tuple[Finding, ...]:
        return self.now


class Judge:
    """Judges records by one policy; raises ``ConfigError`` for one that cannot be compiled.

    ``secrets`` are the kinds of secret that the policy looks for, with their severities.
    ``before`` is the policy that records were made by, where it is known: what it has
    decided of a rule that both have is then known too.
    """

    def __init__(
        self, policy: Policy, secrets: Mapping[str, Severity], before: Policy | None = None
    ) -> None:
        self.policy = policy
        self._hash = policy.hash
        self._secrets = secrets
        self._scanner = _RecordedFindings()
        self._rules = Rules(policy.rules) if policy.rules else None
        self._stated = StatedRules(self._rules)
        self._snapshot = self._compiled()
        self._partial: dict[frozenset[str], PartialRules] = {}
        self._before_hash = "" if before is None else before.hash
        self._kept = frozenset() if before is None else _kept_rules(before, policy)
        self._limits_kept = before is not None and _limits(before) == _limits(policy)

    def _compiled(self) -> Snapshot:
        policy = self.policy
        off = replace(policy, rules=(), secrets=replace(policy.secrets, enabled=False))
        made = build_snapshot(off, (), fingerprint_key=b"", serial=0)
        on = policy.secrets.enabled
        guards = build_guards(policy, self._scanner if on else None)
        return replace(
            made,
            guards=guards,
            policy_hash=self._hash,
            rules=self._stated if policy.rules else None,
        )

    def judge(self, record: Record) -> Judgement:
        """Return what the policy would have answered."""
        if record.policy_hash == self._hash and record.policy_hash:
            return Judgement(
                standing=Standing.JUDGED,
                verdict=record.verdict,
                reason=record.reason,
                decider=record.guard,
                source=record.policy_source,
            )
        attempt = replayed(record)
        if isinstance(attempt, Unjudgeable):
            standing = Standing.BEYOND if attempt.beyond else Standing.UNDECIDED
            return Judgement(standing=standing, why=attempt.why)
        findings = attempt.findings
        self._scanner.now = tuple(self._known_findings(findings)) if findings else ()
        if len(attempt.events) == 1 and not attempt.hidden:
            plain = self._plain(attempt.events[0], attempt, record)
            if plain is not None:
                return plain
        decisions: list[Decision] = []
        whys: list[str] = []
        for event in attempt.events:
            made, why = self._possible(event, attempt, record)
            decisions += made
            whys += why
        return self._judged(decisions, whys, attempt)

    def _plain(self, event: Event, attempt: Replayed, record: Record) -> Judgement | None:
        """Return the answer where nothing unknown has a say, which is nearly always; else None."""
        found = self._partly(event, attempt, record)
        if found.maybe:
            return None
        decision = self._decide(event, found.sure)
        return None if self._limited(event, decision, record) else _of_decision(decision)

    def _known_findings(self, findings: Sequence[Finding]) -> list[Finding]:
        """Return the findings that the policy would have had, as grave as it takes them."""
        return [
            replace(finding, severity=self._secrets[finding.rule])
            for finding in findings
            if finding.rule in self._secrets
        ]

    def _possible(
        self, event: Event, attempt: Replayed, record: Record
    ) -> tuple[list[Decision], list[str]]:
        """Return the decisions that are possible, and what they depend on."""
        found = self._partly(event, attempt, record)
        loosest = [rule for rule in found.maybe if rule.effect is Effect.ALLOW]
        strictest = [rule for rule in found.maybe if rule.effect in (Effect.DENY, Effect.ASK)]
        low = self._decide(event, found.with_rules(loosest))
        if not loosest and not strictest:
            return [low], self._limited(event, low, record)
        high = self._decide(event, found.with_rules(strictest))
        names = sorted({name for rule in (*loosest, *strictest)
                        for name in rule.condition.facts & attempt.unknown})  # fmt: skip
        why = f"not recorded: {', '.join(names)}"
        return [low, high], [why, *self._limited(event, low, record)]

    def _decide(self, event: Event, matches: RuleMatches) -> Decision:
        self._stated.stated = matches
        return decide(event, self._snapshot)

    def _partly(self, event: Event, attempt: Replayed, record: Record) -> PartlyMatched:
        if self._rules is None:
            return PartlyMatched(sure=NO_RULES)
        partial = self._partial.get(attempt.unknown)
        if partial is None:
            partial = PartialRules(self._rules, self.policy.rules, attempt.unknown)
            self._partial[attempt.unknown] = partial
        found = partial.matches(event, NO_CONTEXT, self._scanner.now)
        return self._remembered(found, record) if found.maybe else found

    def _remembered(self, found: PartlyMatched, record: Record) -> PartlyMatched:
        """Decide rules that the policy of the record had too by what it says of them."""
        matched = _matched_then(record) if record.policy_hash == self._before_hash else None
        if matched is None:
            return found
        known = [rule for rule in found.maybe if rule.policy_id in self._kept]
        held = [rule for rule in known if rule.policy_id in matched]
        return PartlyMatched(
            sure=found.with_rules(held),
            maybe=tuple(rule for rule in found.maybe if rule not in known),
        )

    def _limited(self, event: Event, decision: Decision, record: Record) -> list[str]:
        """Say what limit may refuse besides, of which the record does not tell."""
        if not decision.verdict.passes:
            return []
        kept = self._limits_kept and record.policy_hash == self._before_hash
        if kept and record.verdict in _PASSES:
            return []
        tools = self.policy.tools
        if isinstance(event, ToolCall) and tools is not None and tools.args_bytes_max is not None:
            return ["hidden: the size of the arguments is not recorded"]
        if isinstance(event, PatchApply) and self.policy.patch is not None:
            return ["hidden: the patch is not recorded"]
        return []

    def _judged(
        self, decisions: Sequence[Decision], whys: Sequence[str], attempt: Replayed
    ) -> Judgement:
        first = decisions[0]
        hidden = [why.removeprefix("hidden: ") for why in whys if why.startswith("hidden: ")]
        if first.verdict.passes and attempt.hidden:
            hidden.append(attempt.hidden)
        verdicts = {_word(decision.verdict) for decision in decisions}
        if len(verdicts) == 1 and not hidden:
            return _of_decision(first)
        told = hidden or [why for why in whys if not why.startswith("hidden: ")]
        why = told[0] if told else "a write and a patch have one action in a record"
        return Judgement(standing=Standing.UNDECIDED, why=why)


def _of_decision(decision: Decision) -> Judgement:
    return Judgement(
        standing=Standing.JUDGED,
        verdict=decision.verdict.value,
        reason=decision.reason.value,
        decider=decision.guard,
        source=decision.source,
    )


def _word(verdict: Verdict) -> str:
    """Return a verdict; allow and audit are one where it is about what is unknown."""
    return "passes" if verdict.passes else verdict.value


def _kept_rules(before: Policy, after: Policy) -> frozenset[str]:
    """Return the ids of rules that both policies have and that say the same in both."""
    if before.settings.fail_fast:
        return frozenset()  # then a rule that is not told may not have been asked
    said = {rule.policy_id.value: rule_meaning(rule) for rule in before.rules if rule.enabled}
    return frozenset(
        rule.policy_id.value
        for rule in after.rules
        if rule.enabled and said.get(rule.policy_id.value) == rule_meaning(rule)
    )


def _matched_then(record: Record) -> frozenset[str] | None:
    """Return the rules that matched by the record; None where it does not tell them all."""
    applied = record.applied_policies
    named = applied[1:] if record.policy_name and applied[:1] == (record.policy_name,) else applied
    if record.reason == Reason.NO_GUARD or len(named) > _RULES_TOLD_MAX:
        return None
    return frozenset(named)


def _limits(policy: Policy) -> object:
    size = None if policy.tools is None else policy.tools.args_bytes_max
    return size, canonical(replace(policy, egress=None, paths=None, path_allow=None, tools=None,
                                   rules=(), grants=(), name="", description="",
                                   secrets=replace(policy.secrets, patterns=(), skip_paths=(),
                                                   credentials=())))  # fmt: skip

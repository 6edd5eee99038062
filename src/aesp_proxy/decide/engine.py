"""Decide: every guard is asked, the strictest answer wins, and every failure refuses.

Two of the four nets are here. A guard that raises answers deny ``guard_failed``. An
engine that raises, or an event that no access guard answers for, is deny
``engine_failed`` or ``no_guard``. A failure is told by its type and the place in our
code, never by its text: the text may hold what the event holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import assert_never

from aesp_proxy.decide.answer import NO_RULES, Answer, Guard, RuleMatches
from aesp_proxy.decide.guards.secret_leak import Place, SecretLeak
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.context import NO_CONTEXT, Context
from aesp_proxy.model.decision import Decision, Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import (
    CustomEvent,
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host

ENGINE = "engine"


def decide(event: Event, snapshot: Snapshot, context: Context = NO_CONTEXT) -> Decision:
    """Return the decision on one event. Never raises; every doubt is deny.

    ``context`` is what is known beyond the event; what is not known is an error to the
    rules that read it.
    """
    try:
        return _decide(event, snapshot, context)
    except Exception as failure:  # noqa: BLE001 - net 2: an engine that fails denies
        return failed(failure, snapshot)


def address_decision(
    host: Host, port: int | None, addresses: Sequence[IPv4Address | IPv6Address], snapshot: Snapshot
) -> Decision | None:
    """Refuse what a host has resolved to; None when every address may be dialled.

    Without a port the addresses are about to be told to whoever asked for the name.

    ``addresses`` are the ones about to be dialled, all of them. Anything but a public
    address needs a rule of the policy that names addresses (threat rows 5 to 8). Never
    raises.
    """
    try:
        if snapshot.egress is None:
            return _no_guard(snapshot, "guards.egress_allowlist", "tcp.connect", ())
        if not addresses:
            return _decision(_no_address(host), snapshot.egress.name, (), snapshot)
        answer = snapshot.egress.answer_addresses(host, port, addresses)
        return None if answer is None else _decision(answer, snapshot.egress.name, (), snapshot)
    except Exception as failure:  # noqa: BLE001 - net 2: an engine that fails denies
        return failed(failure, snapshot)


def content_decision(
    findings: tuple[Finding, ...],
    snapshot: Snapshot,
    place: Place | None = None,
    *,
    redacts: bool = False,
) -> Decision:
    """Return the decision on findings in content that flows: a body, a frame, trailers.

    The same answer as for a request's head, without credentials: a secret has no home
    in a body. ``place`` is where it goes, ``redacts`` whether it can be masked. Never raises.
    """
    try:
        guard = leak_guard(snapshot)
        if guard is not None:
            answer = guard.answer(findings, findings, place, redacts=redacts)
            return _decision(answer, guard.name, findings, snapshot)
        return _no_guard(snapshot, "secret_leak", "content", findings)
    except Exception as failure:  # noqa: BLE001 - net 2: an engine that fails denies
        return failed(failure, snapshot)


def leak_guard(snapshot: Snapshot) -> SecretLeak | None:
    """Return the guard of contents, None where the policy has it off."""
    for guard in snapshot.guards:
        if isinstance(guard, SecretLeak):
            return guard
    return None


def failed(failure: BaseException, snapshot: Snapshot) -> Decision:
    """Return the decision of an engine that has failed."""
    return Decision(
        verdict=Verdict.DENY,
        reason=Reason.ENGINE_FAILED,
        guard=ENGINE,
        severity=Severity.CRITICAL,
        message=f"the engine failed: {_told(failure)}",
        policy_name=snapshot.policy_name,
        policy_hash=snapshot.policy_hash,
        remediation=("Nothing passes while this lasts: tell the owner of the proxy.",),
    )


def _decide(event: Event, snapshot: Snapshot, context: Context) -> Decision:
    """Ask the guards, then the rules; of equally strict answers the first is told.

    A refusal for want of an entry (``implicit``) falls where a rule allows; one that an
    entry states stands. A grant lifts what it names before anything is compared.
    """
    best = _Strictest()
    fail_fast = snapshot.settings.fail_fast
    for guard in snapshot.guards:
        answer = ask_guard(guard, event)
        if answer is None:
            continue
        if snapshot.grants is not None and not answer.verdict.passes:
            answer = snapshot.grants.lifted(answer, event) or answer
        best.take(answer, guard.name, grants=guard.grants)
        if fail_fast and not answer.verdict.passes and not answer.implicit:
            return best.decision(event, snapshot, NO_RULES)
    if snapshot.rules is None:
        return best.decision(event, snapshot, NO_RULES)
    matches = snapshot.rules.matches(event, context, best.findings)
    if isinstance(event, DnsQuery) and not matches.allows:
        matches = snapshot.rules.named(event, matches)
    elif isinstance(event, EgressConnect) and not (matches.allows or event.unread):
        # What flows in the tunnel is decided request by request; nothing is dialled before.
        matches = snapshot.rules.opened(event, matches)
    return best.decision(event, snapshot, matches)


class _Strictest:
    """The strictest answer so far; refusals for want of an entry are kept apart."""

    __slots__ = ("_decider", "_granted", "_implicit", "_rank", "_told", "findings")

    def __init__(self) -> None:
        self._told: Answer | None = None
        self._decider = ENGINE
        self._rank = -1
        self._granted = False
        self._implicit: tuple[Answer, str, int] | None = None
        self.findings: tuple[Finding, ...] = ()

    def take(self, answer: Answer, name: str, *, grants: bool) -> None:
        if answer.findings:
            self.findings += answer.findings
        if answer.implicit:
            self._implicit = self._implicit or (answer, name, self._rank)
            return
        self._granted = self._granted or grants
        strictness = answer.verdict.strictness
        # Of equal answers the access guard is told: a note does not speak for the gate.
        if strictness > self._rank:
            self._told, self._decider, self._rank = answer, name, strictness

    def _let_implicit_stand(self) -> None:
        """Take the refusal for want of an entry in the turn in which it was given."""
        if self._implicit is None:
            return
        answer, name, rank_before = self._implicit
        strictness = answer.verdict.strictness
        if rank_before < strictness >= self._rank:
            self._told, self._decider, self._rank = answer, name, strictness

    def decision(self, event: Event, snapshot: Snapshot, matches: RuleMatches) -> Decision:
        if not matches.allows:
            self._let_implicit_stand()
        for answer, policy_id in matches.answers:
            self.take(answer, f"rule:{policy_id}", grants=answer.verdict is Verdict.ALLOW)
        told = self._told
        if told is None or (told.verdict.passes and not self._granted):
            refused = _no_guard(snapshot, _section_for(event), event.action, self.findings)
            return replace(refused, rules=matches.rules, rule_errors=matches.errors)
        return _decision(told, self._decider, self.findings, snapshot, matches)


def ask_guard(guard: Guard, event: Event) -> Answer | None:
    """Ask one guard; a guard that raises refuses."""
    try:
        return guard.check(event)
    except Exception as failure:  # noqa: BLE001 - net 1: a guard that fails denies
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.GUARD_FAILED,
            severity=Severity.CRITICAL,
            message=f"the guard {guard.name} failed: {_told(failure)}",
            remediation=("Nothing of this kind passes while this lasts: tell the owner.",),
        )


def _decision(
    answer: Answer,
    guard: str,
    findings: tuple[Finding, ...],
    snapshot: Snapshot,
    matches: RuleMatches = NO_RULES,
) -> Decision:
    return Decision(
        verdict=answer.verdict,
        reason=answer.reason,
        guard=guard,
        severity=answer.severity,
        message=answer.message,
        source=answer.source,
        findings=findings,
        policy_name=snapshot.policy_name,
        policy_hash=snapshot.policy_hash,
        remediation=answer.remediation,
        rules=matches.rules,
        rule_errors=matches.errors,
    )


def _no_guard(
    snapshot: Snapshot, section: str, action: str, findings: tuple[Finding, ...]
) -> Decision:
    ask = f"Ask the owner of {snapshot.policy_where} to switch on {section}."
    return Decision(
        verdict=Verdict.DENY,
        reason=Reason.NO_GUARD,
        guard=ENGINE,
        severity=Severity.WARNING,
        message=f"no guard answers for {action}",
        source=snapshot.policy_where,
        findings=findings,
        policy_name=snapshot.policy_name,
        policy_hash=snapshot.policy_hash,
        remediation=(
            "Do not retry: the answer stays the same until the policy changes.",
            ask if section else "No guard knows this kind of event.",
        ),
    )


def _section_for(event: Event) -> str:
    match event:
        case EgressConnect() | EgressRequest() | NetworkAccess() | DnsQuery():
            return "guards.egress_allowlist"
        case FileAccess() | PatchApply():
            return "guards.forbidden_path"
        case ToolCall():
            return "guards.mcp_tool"
        case CustomEvent():
            return ""
        case _:
            assert_never(event)


def _no_address(host: Host) -> Answer:
    return Answer(
        verdict=Verdict.DENY,
        reason=Reason.ADDRESS_FORBIDDEN,
        severity=Severity.WARNING,
        message=f"{host} has resolved to no address",
    )


def _told(failure: BaseException) -> str:
    """Return the type of a failure and the innermost place, without its text."""
    trace: TracebackType | None = failure.__traceback__
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(failure).__name__}{place}"

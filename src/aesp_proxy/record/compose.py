"""Records made from events and decisions: what is told of an attempt, and what never is.

A query string, a header value or a body is never recorded; a path in which a
secret was found is not either, nor the labels of such a name before the last two: it may
be spread over them. Pure: times come with the event.
"""

from __future__ import annotations

from typing import assert_never

from aesp_proxy.model.decision import Decision, Finding, Reason, Verdict
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
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import (
    CONTENT_KEY,
    NOT_READ_RAW,
    NOT_READ_SEALED,
    Ending,
    Outcome,
    Record,
    RecordKind,
)

_TEXT_CHARS_MAX = 1_024
_RULES_MAX = 32
_MASKED = "[masked]"
_LABELS_SHOWN = 2
_CUT = "…"
_IN_PATH = frozenset(("url", "pieces"))
_IN_NAME = frozenset(("host", "pieces"))
# An attempt that ends so was not refused: it did not come off.
_MISFORTUNES = frozenset((Reason.UPSTREAM_FAILED, Reason.UPSTREAM_UNTRUSTED, Reason.CLIENT_GONE))


def decision_record(
    event: Event,
    decision: Decision,
    *,
    time_ns: int,
    principal_id: str = "",
    notes: tuple[tuple[str, str], ...] = (),
) -> Record:
    """Compose the record of a decision, to be written before its effect.

    ``time_ns`` is when it was made: a finding in a body comes after its event.
    ``principal_id`` is who acted where that is not the event's principal, ``notes`` are
    metadata besides, of keys that nothing else has.
    """
    target_type, host, port, path = _target(event, decision)
    passes = decision.verdict.passes
    who = event.principal
    return Record(
        kind=RecordKind.DECISION,
        time_ns=time_ns,
        event_type="authorization" if passes else "policy_violation",
        action=event.action,
        outcome=Outcome.SUCCESS if passes else Outcome.DENIED,
        verdict=decision.verdict.value,
        reason=decision.reason.value,
        guard=decision.guard,
        severity=decision.severity.word,
        message=clip(_without_name(decision.message, event, host)),
        resource=_resource(event, host, port, path),
        target_type=target_type,
        target_host=host,
        target_port=port,
        target_path=path,
        principal_id=principal_id or who.principal_id,
        tenant_id=who.tenant_id,
        session_id=who.session_id,
        agent_id=who.agent_id,
        agent_type=who.agent_type,
        source_ip=who.source_ip,
        user_agent=_user_agent(event, decision),
        policy_name=decision.policy_name,
        policy_hash=decision.policy_hash,
        policy_source=decision.source,
        policy_violations=() if passes else (decision.reason.value,),
        applied_policies=_applied(decision),
        findings=decision.findings,
        event_id=event.event_id,
        metadata=tuple(sorted((*_content_note(event), *_rule_errors(decision), *notes))),
    )


def refusal_record(
    principal: Principal,
    decision: Decision,
    *,
    target: str,
    time_ns: int,
    action: str = "tcp.connect",
) -> Record:
    """Compose the record of a refusal that came before there was an event."""
    return Record(
        kind=RecordKind.DECISION,
        time_ns=time_ns,
        event_type="policy_violation",
        action=action,
        outcome=Outcome.DENIED,
        verdict=decision.verdict.value,
        reason=decision.reason.value,
        guard=decision.guard,
        severity=decision.severity.word,
        message=clip(decision.message),
        resource=clip(target),
        target_type="name" if action == "dns.query" else "network",
        principal_id=principal.principal_id,
        tenant_id=principal.tenant_id,
        session_id=principal.session_id,
        agent_id=principal.agent_id,
        agent_type=principal.agent_type,
        source_ip=principal.source_ip,
        policy_name=decision.policy_name,
        policy_hash=decision.policy_hash,
        policy_violations=(decision.reason.value,),
    )


def outcome_record(
    decided: Record,
    *,
    ending: Ending,
    time_ns: int,
    correlates_seq: int,
    duration_us: int,
    findings: tuple[Finding, ...] = (),
) -> Record:
    """Compose the record of how an allowed attempt came off, from its decision's record.

    ``findings`` are those of the body that were below the threshold.
    """
    came_off = ending.reason is Reason.ALLOWED
    refused = not came_off and ending.reason not in _MISFORTUNES
    return Record(
        kind=RecordKind.OUTCOME,
        time_ns=time_ns,
        event_type="data_access",
        action=decided.action,
        outcome=Outcome.DENIED if refused else Outcome.SUCCESS if came_off else Outcome.FAILURE,
        verdict=(Verdict.DENY if refused else Verdict.ALLOW).value,
        reason=ending.reason.value,
        guard=decided.guard,
        severity="info" if came_off else "warning",
        message=clip(ending.detail),
        resource=decided.resource,
        target_type=decided.target_type,
        target_host=decided.target_host,
        target_port=decided.target_port,
        target_path=decided.target_path,
        principal_id=decided.principal_id,
        tenant_id=decided.tenant_id,
        session_id=decided.session_id,
        agent_id=decided.agent_id,
        agent_type=decided.agent_type,
        source_ip=decided.source_ip,
        policy_name=decided.policy_name,
        policy_hash=decided.policy_hash,
        findings=findings,
        correlates_seq=correlates_seq,
        status=ending.status,
        bytes_out=ending.bytes_out,
        bytes_in=ending.bytes_in,
        duration_us=duration_us,
        upstream_address=ending.upstream_address,
        metadata=tuple(pair for pair in decided.metadata if pair[0] == CONTENT_KEY),
    )


def clip(text: str) -> str:
    """Shorten a text to what a record may hold, saying so."""
    return text if len(text) <= _TEXT_CHARS_MAX else text[: _TEXT_CHARS_MAX - 1] + _CUT


def is_clipped(text: str) -> bool:
    """Tell whether ``clip`` has shortened a text, or may have."""
    return len(text) >= _TEXT_CHARS_MAX and text.endswith(_CUT)


def _applied(decision: Decision) -> tuple[str, ...]:
    """Name the policy and the rules of it that matched, so many that a record can hold them."""
    policy = (decision.policy_name,) if decision.policy_name else ()
    more = len(decision.rules) - _RULES_MAX
    told = tuple(clip(rule) for rule in decision.rules[:_RULES_MAX])
    return (*policy, *told, f"and {more} more") if more > 0 else (*policy, *told)


def _content_note(event: Event) -> tuple[tuple[str, str], ...]:
    """Say of a connection that what flows in it is not read, and why."""
    if not isinstance(event, EgressConnect) or not event.unread:
        return ()
    return ((CONTENT_KEY, NOT_READ_RAW if event.raw else NOT_READ_SEALED),)


def _rule_errors(decision: Decision) -> tuple[tuple[str, str], ...]:
    if not decision.rule_errors:
        return ()
    return (("rule_errors", clip(",".join(decision.rule_errors))),)


def _target(event: Event, decision: Decision) -> tuple[str, str, int, str]:
    places = {finding.location for finding in decision.findings}
    match event:
        case EgressRequest():
            path = f"/{_MASKED}" if places & _IN_PATH else clip(event.path)
            return "network", event.host.name, event.port, path
        case EgressConnect() | NetworkAccess():
            return "network", _name(event.host.name, places), event.port, ""
        case DnsQuery():
            return "name", _name(event.host.name, places), 0, event.record_type
        case FileAccess() | PatchApply():
            return "file", "", 0, clip(event.resolved)
        case ToolCall():
            return "tool", clip(event.server), 0, clip(event.name)
        case CustomEvent():
            return "custom", "", 0, clip(event.kind)
        case _ as never:
            assert_never(never)


def _name(name: str, places: set[str]) -> str:
    """Return the name of a host, of one that a secret was found in the end alone."""
    if not places & _IN_NAME:
        return name
    labels = name.split(".")
    return ".".join((_MASKED, *labels[-_LABELS_SHOWN:])) if len(labels) > _LABELS_SHOWN else _MASKED


def _without_name(message: str, event: Event, host: str) -> str:
    """Return a message that shows the name of a host no more than its record does."""
    if isinstance(event, EgressConnect | NetworkAccess | DnsQuery) and host != event.host.name:
        return message.replace(event.host.name, host)
    return message


def _resource(event: Event, host: str, port: int, path: str) -> str:
    if isinstance(event, EgressRequest):
        shown = f"[{host}]" if ":" in host else host
        return f"{event.scheme}://{shown}:{port}{path}"
    if isinstance(event, DnsQuery):
        return f"dns:{host}?type={path}"  # RFC 4501
    if isinstance(event, ToolCall):
        return f"{host}/{path}" if host else path
    return path or f"{host}:{port}"


def _user_agent(event: Event, decision: Decision) -> str:
    if not isinstance(event, EgressRequest):
        return ""
    if any(f.location == "header:user-agent" for f in decision.findings):
        return _MASKED
    for name, value in event.headers:
        if name == b"user-agent":
            return clip(value.decode("latin-1"))
    return ""

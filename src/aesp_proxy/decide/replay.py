"""A recorded decision as the attempt that it was about, as far as a record tells.

A record never holds headers, queries, contents, what was said of a person, or what a
session had done. What it does not hold is named (``unknown``), so that nobody takes a guess
for a fact; what cannot be an attempt again says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aesp_proxy.decide.policy.facts import FACTS
from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import Finding, Reason
from aesp_proxy.model.event import (
    CustomEvent,
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    FileOperation,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host, parse_host
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import (
    CONTENT_KEY,
    NOT_READ_RAW,
    NOT_READ_SEALED,
    Record,
    RecordKind,
)

MASKED: Final = "/[masked]"
_CLIPPED: Final = "…"
_CLIPPED_CHARS: Final = 1_024
_PRINCIPALS_KEPT: Final = 4_096
_HTTP: Final = "http."
_WHO: Final = frozenset({
    "request.action", "request.time", "request.source_ip", "request.user.id",
    "request.tenant.id", "agent.id", "agent.type", "agent.session_id", "findings",
})  # fmt: skip
_OF_HOST: Final = frozenset({"request.host", "request.port", "request.destination_ip"})
_OF_REQUEST: Final = _OF_HOST | {"request.scheme", "request.method", "request.path"}
_KNOWN: Final[Mapping[type, frozenset[str]]] = {
    EgressRequest: _WHO | _OF_REQUEST,
    EgressConnect: _WHO | _OF_HOST,
    DnsQuery: _WHO | {"request.host"},
    FileAccess: _WHO | {"request.resource.path"},
    PatchApply: _WHO | {"request.resource.path"},
    ToolCall: _WHO | {"tool.server", "tool.name"},
    CustomEvent: _WHO,
}
_UNKNOWN: Final = {kind: frozenset(FACTS) - known for kind, known in _KNOWN.items()}
_BEYOND: Final = frozenset({
    Reason.MALFORMED, Reason.NAME_MISMATCH, Reason.LIMIT_EXCEEDED, Reason.UNSUPPORTED,
    Reason.RECORD_FAILED, Reason.INTERCEPTOR_FAILED,
})  # fmt: skip
_FAULTS: Final = frozenset({Reason.GUARD_FAILED, Reason.ENGINE_FAILED, Reason.UNSCANNABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a record says was attempted.

    ``events`` are all that it may have been: a write and a patch have one action.
    ``unknown`` are facts that it does not hold. ``hidden`` says what may refuse besides and
    is not told, empty where nothing is.
    """

    events: tuple[Event, ...]
    findings: tuple[Finding, ...]
    unknown: frozenset[str]
    hidden: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudgeable:
    """Why a record is no attempt again. ``beyond``: it is refused whatever a policy says."""

    why: str
    beyond: bool = False


def replayed(record: Record) -> Replayed | Unjudgeable:
    """Return what a decision was about, or why that cannot be told."""
    if record.kind is not RecordKind.DECISION:
        return Unjudgeable(why="it is no decision")
    if record.reason in _BEYOND:
        return Unjudgeable(why="it was refused before any policy was asked", beyond=True)
    if record.reason in _FAULTS:
        return Unjudgeable(why=f"something failed then ({record.reason})")
    try:
        return _attempt(record)
    except InputError:
        return Unjudgeable(why="its target is not one that is decided")


def _attempt(record: Record) -> Replayed | Unjudgeable:
    match record.target_type:
        case "file":
            return _file(record)
        case "tool":
            return _tool(record)
        case "name":
            return _query(record)
        case "custom":
            event: Event = CustomEvent(
                event_id="", time_ns=record.time_ns, principal=_principal(record), kind=""
            )
            return _replayed(record, (event,))
        case _ if record.target_host and record.target_port:
            return _network(record)
        case _:
            return Unjudgeable(why="its target is not recorded")


def _network(record: Record) -> Replayed:
    host = _host(record.target_host)
    hidden = ""
    if record.reason == Reason.ADDRESS_FORBIDDEN and host.address is None:
        hidden = "the address that the host resolved to is not recorded"
    if record.reason == Reason.HOST_BLOCKED and "(it resolves to " in record.message:
        hidden = "the address that the host resolved to is not recorded"
    if not record.action.startswith(_HTTP):
        event: Event = EgressConnect(
            event_id="",
            time_ns=record.time_ns,
            principal=_principal(record),
            host=host,
            port=record.target_port,
            raw=(CONTENT_KEY, NOT_READ_RAW) in record.metadata,
            sealed=(CONTENT_KEY, NOT_READ_SEALED) in record.metadata,
        )
        return _replayed(record, (event,), hidden=hidden)
    path = record.target_path or "/"
    masked = path == MASKED or _is_clipped(path)
    request = EgressRequest(
        event_id="",
        time_ns=record.time_ns,
        principal=_principal(record),
        scheme=record.resource.partition("://")[0],
        method=record.action.removeprefix(_HTTP).upper(),
        host=host,
        port=record.target_port,
        target=path,
        path=path,
        query="",
        headers=(),
        http_version="1.1",
    )
    missing = frozenset({"request.path"}) if masked else frozenset()
    return _replayed(record, (request,), missing=missing, hidden=hidden)


def _query(record: Record) -> Replayed | Unjudgeable:
    if not record.target_host:
        return Unjudgeable(why="its target is not recorded")
    hidden = ""
    if record.reason in (Reason.ADDRESS_FORBIDDEN, Reason.HOST_BLOCKED) and (
        "resolves to " in record.message
    ):
        hidden = "the address that the host resolved to is not recorded"
    event = DnsQuery(
        event_id="",
        time_ns=record.time_ns,
        principal=_principal(record),
        host=_host(record.target_host),
        record_type=record.target_path,
    )
    return _replayed(record, (event,), hidden=hidden)


def _host(text: str) -> Host:
    host = parse_host(text)
    if host.name != text:
        raise InputError("is no canonical host")
    return host


def _file(record: Record) -> Replayed | Unjudgeable:
    path = record.target_path
    if not path.startswith("/") or _is_clipped(path):
        return Unjudgeable(why="the path is not recorded whole")
    if "(it resolves to " in record.message:
        return Unjudgeable(why="it went through a link, and the path as given is not recorded")
    try:
        operation = FileOperation(record.action)
    except ValueError:
        return Unjudgeable(why="what was done to the file is not recorded")
    access = FileAccess(
        event_id="",
        time_ns=record.time_ns,
        principal=_principal(record),
        operation=operation,
        path=path,
        resolved=path,
        content=b"",
    )
    patch = PatchApply(
        event_id="",
        time_ns=record.time_ns,
        principal=_principal(record),
        path=path,
        resolved=path,
        patch=b"",
    )
    return _replayed(record, _written(record, access, patch))


def _written(record: Record, access: FileAccess, patch: PatchApply) -> tuple[Event, ...]:
    """Return what a write was: a patch where the record shows it, else either."""
    locations = {finding.location.partition(":")[0] for finding in record.findings}
    if record.guard == "patch_integrity" or "patch" in locations:
        return (patch,)
    if access.operation is not FileOperation.WRITE or "content" in locations:
        return (access,)
    return (access, patch)


def _tool(record: Record) -> Replayed | Unjudgeable:
    if _is_clipped(record.target_path) or _is_clipped(record.target_host):
        return Unjudgeable(why="the tool is not recorded whole")
    call = ToolCall(
        event_id="",
        time_ns=record.time_ns,
        principal=_principal(record),
        server=record.target_host,
        name=record.target_path,
        arguments=b"",
    )
    return _replayed(record, (call,))


def _replayed(
    record: Record,
    events: tuple[Event, ...],
    *,
    missing: frozenset[str] = frozenset(),
    hidden: str = "",
) -> Replayed:
    unknown = _UNKNOWN[type(events[0])]
    return Replayed(
        events=events,
        findings=record.findings,
        unknown=unknown | missing if missing else unknown,
        hidden=hidden,
    )


def _principal(record: Record) -> Principal:
    return _named(
        record.principal_id,
        record.agent_id,
        record.agent_type,
        record.session_id,
        record.tenant_id,
        record.source_ip,
    )


@lru_cache(maxsize=_PRINCIPALS_KEPT)
def _named(
    principal: str, agent: str, agent_type: str, session: str, tenant: str, source_ip: str
) -> Principal:
    return Principal(
        principal_id=principal,
        agent_id=agent,
        agent_type=agent_type,
        session_id=session,
        tenant_id=tenant,
        source_ip=source_ip,
    )


def _is_clipped(text: str) -> bool:
    return len(text) >= _CLIPPED_CHARS and text.endswith(_CLIPPED)

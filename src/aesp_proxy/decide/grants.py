"""What approved exceptions lift, in force or not at the time of the event.

A grant lifts one guard's refusal of what it names, and nothing else: the host by its
name, the path under both of its names, the tool. Addresses, secrets, patches, limits,
malformed input and rules are beyond it; so is a raw address, whatever the grant says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostIndex, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import ToolIndex, check_tool_rule
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import (
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.grant import Grant, GrantKind

_WEB_PORTS = frozenset({80, 443})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIFTS = {
    Reason.HOST_NOT_ALLOWED: GrantKind.EGRESS,
    Reason.HOST_BLOCKED: GrantKind.EGRESS,
    Reason.PATH_NOT_ALLOWED: GrantKind.PATH,
    Reason.PATH_FORBIDDEN: GrantKind.PATH,
    Reason.TOOL_NOT_ALLOWED: GrantKind.TOOL,
    Reason.TOOL_BLOCKED: GrantKind.TOOL,
}


class Grants:
    """The grants of a policy, by kind; ``ConfigError`` where one cannot be read."""

    __slots__ = ("_by_kind", "exact_names")

    def __init__(self, grants: Iterable[Grant]) -> None:
        compiled = [_Compiled(grant, _index(grant), _passes(grant)) for grant in grants]
        self._by_kind = {
            kind: tuple(each for each in compiled if each.grant.kind is kind) for kind in GrantKind
        }

        rules = (parse_host_rule(Sourced(each.pattern, each.source)) for each in self._egress())
        self.exact_names = frozenset(rule.name for rule in rules if rule.name)

    def _egress(self) -> Iterable[Grant]:
        return (each.grant for each in self._by_kind[GrantKind.EGRESS])

    def lifted(self, answer: Answer, event: Event) -> Answer | None:
        """Return the answer instead of a refusal that a grant lifts; None where none does.

        What the guard refuses besides (``behind``) stands.
        """
        kind = _LIFTS.get(answer.reason)
        if kind is None:
            return None
        for each in self._by_kind[kind]:
            in_force = each.grant.from_ns <= event.time_ns < each.grant.until_ns
            if in_force and _names(each.index, event):
                return answer.behind or each.passes
        return None


_Index = HostIndex | PathGlobs | ToolIndex


@dataclass(frozen=True, slots=True)
class _Compiled:
    grant: Grant
    index: _Index
    passes: Answer


def _index(grant: Grant) -> _Index:
    """Read the pattern as the guard of its kind reads an entry that allows."""
    pattern = Sourced(grant.pattern, grant.source)
    match grant.kind:
        case GrantKind.EGRESS:
            rules = (parse_host_rule(pattern),)
            return HostIndex(rules, ports_without=_WEB_PORTS, any_is_address=False)
        case GrantKind.PATH:
            return PathGlobs((pattern,), fold=False)
        case GrantKind.TOOL:
            check_tool_rule(pattern)
            return ToolIndex((pattern,), refuses=False)
        case _:
            assert_never(grant.kind)


def _names(index: _Index, event: Event) -> bool:
    match index, event:
        case HostIndex(), EgressRequest() | EgressConnect() | NetworkAccess():
            if event.host.address is not None:
                return False
            if isinstance(event, EgressConnect) and event.raw:
                named = index.naming(event.host)
                return any(rule.covers_raw(event.port, _WEB_PORTS) for rule in named)
            return index.find(event.host, event.port) is not None
        case HostIndex(), DnsQuery():
            return next(index.naming(event.host), None) is not None
        case PathGlobs(), FileAccess() | PatchApply():
            both = {event.resolved, event.path}
            return all(index.find(path) is not None for path in both)
        case ToolIndex(), ToolCall():
            return bool(event.name) and index.find(event.server, event.name) is not None
        case _:
            return False


def _passes(grant: Grant) -> Answer:
    shown = grant.grant_id if grant.grant_id.isprintable() else ascii(grant.grant_id)
    try:
        until = _EPOCH + timedelta(microseconds=grant.until_ns // 1000)
    except OverflowError:
        raise ConfigError(f"the end of {shown[:80]} is no date", where=grant.source) from None
    stamp = until.isoformat().replace("+00:00", "Z")
    return Answer(
        verdict=Verdict.AUDIT,
        reason=Reason.ALLOWED,
        severity=Severity.INFO,
        message=f"lifted by exception {shown} until {stamp}",
        source=grant.source,
    )

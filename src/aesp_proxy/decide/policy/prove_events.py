"""Events that try a policy: one or more for each entry of its lists, and a few of nobody's.

They are what a proof is confirmed with: decided under two policies, without the scanner
of secrets and without rules, whose difference is shown by comparing what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.guards import EgressAllowlist, build_guards
from aesp_proxy.decide.policy.cover_hosts import hosts_of, ports_of
from aesp_proxy.decide.policy.cover_names import paths_of, tools_of
from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.decision import Decision
from aesp_proxy.model.event import (
    Event,
    FileAccess,
    FileOperation,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host, parse_host
from aesp_proxy.model.principal import Principal

_WHO: Final = Principal(principal_id="", agent_id="", agent_type="", session_id="")
_PATHS: Final = ("/witness", "/srv/witness.txt", "/root/.ssh/id_rsa", "/home/w/.env")
_HOSTS: Final = ("witness.example", "127.0.0.1", "8.8.8.8", "10.0.0.1", "fd00::1")
_TOOLS: Final = (("", "witness"), ("server", "witness"))
_OPERATIONS: Final = (FileOperation.OPEN, FileOperation.WRITE)
_SIZES_MAX: Final = 4096


class Trial:
    """A policy as a thing to ask: its guards without a scanner, without rules and grants."""

    def __init__(self, policy: Policy) -> None:
        guards = build_guards(policy, None)
        egress = next((guard for guard in guards if isinstance(guard, EgressAllowlist)), None)
        self._snapshot = Snapshot(
            policy_name=policy.name,
            policy_version=policy.version,
            policy_hash="",
            policy_where=policy.where,
            serial=0,
            guards=guards,
            egress=egress,
            scanner=None,
            severity_threshold=policy.secrets.severity_threshold,
            settings=policy.settings,
        )

    def decided(self, event: Event) -> Decision:
        """Return the decision on one event."""
        return decide(event, self._snapshot)


def events_of(*policies: Policy) -> Iterator[Event]:
    """Yield events that try every entry of the policies, each once."""
    seen: set[Event] = set()
    for policy in policies:
        for event in _events(policy):
            if event not in seen:
                seen.add(event)
                yield event


def told(event: Event) -> str:
    """Return an event as a witness is told."""
    match event:
        case NetworkAccess():
            return f"a connection to {event.host}:{event.port}"
        case FileAccess():
            return f"{event.operation.value} of {event.path!a}"
        case PatchApply():
            return f"a patch of {event.path!a}"
        case ToolCall():
            server = f" of the server {event.server!a}" if event.server else ""
            return f"a call of the tool {event.name!a}{server}"
        case _:
            return event.action


def _events(policy: Policy) -> Iterator[Event]:
    for entry in _host_rules(policy):
        for host in hosts_of(entry):
            yield from (connection(host, port) for port in dict.fromkeys((*ports_of(entry), 443)))
    yield from (connection(parse_host(host), 443) for host in _HOSTS)
    for glob in _globs(policy):
        for path in paths_of(glob.value):
            yield from accesses(path)
    for path in _PATHS:
        yield from accesses(path)
    for rule in _tool_rules(policy):
        yield from (call(server, name) for server, name in tools_of(rule.value))
    yield from (call(server, name) for server, name in _TOOLS)
    if policy.tools is not None and policy.tools.args_bytes_max is not None:
        size = min(policy.tools.args_bytes_max + 1, _SIZES_MAX)
        for rule in policy.tools.allow:
            yield from (call(server, name, size) for server, name in tools_of(rule.value))


def connection(host: Host, port: int) -> NetworkAccess:
    """Return an announced connection."""
    return NetworkAccess(event_id="", time_ns=0, principal=_WHO, host=host, port=port)


def accesses(path: str) -> Iterator[Event]:
    """Yield reading, writing and patching of a path."""
    for operation in _OPERATIONS:
        yield FileAccess(
            event_id="",
            time_ns=0,
            principal=_WHO,
            operation=operation,
            path=path,
            resolved=path,
        )
    yield PatchApply(event_id="", time_ns=0, principal=_WHO, path=path, resolved=path, patch=b"")


def call(server: str, name: str, size: int = 2) -> ToolCall:
    """Return a call of a tool with so many bytes of arguments."""
    return ToolCall(
        event_id="",
        time_ns=0,
        principal=_WHO,
        server=server,
        name=name,
        arguments=b"{}".ljust(size),
    )


def _host_rules(policy: Policy) -> Iterable[HostRule]:
    return () if policy.egress is None else (*policy.egress.allow, *policy.egress.block)


def _globs(policy: Policy) -> Iterator[Sourced[str]]:
    if policy.paths is not None:
        yield from (*policy.paths.patterns, *policy.paths.exceptions)
    if policy.path_allow is not None:
        section = policy.path_allow
        yield from (*section.access, *section.write, *section.patch)


def _tool_rules(policy: Policy) -> Iterator[Sourced[str]]:
    if policy.tools is not None:
        section = policy.tools
        yield from (*section.allow, *section.block, *section.require_confirmation)

"""Near misses: entries and rules that would have answered, had one thing been otherwise.

For people who ask why: advice, never a decision. Each tells what is lacking; what an owner
would have to write is in the decision's remediation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostIndex, HostRule
from aesp_proxy.decide.policy.policy import Effect, Policy, ToolSection
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import ToolIndex
from aesp_proxy.decide.rules import Rules
from aesp_proxy.decide.trace import RuleTrace
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Decision
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
from aesp_proxy.model.host import Host

_TOLD_MAX: Final = 8
_WEB_PORTS: Final = frozenset({80, 443})
_TYPING_ERRORS_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """``what`` came near; ``lacks`` is the one thing; ``source`` its FILE:LINE."""

    what: str
    lacks: str
    source: str


def near_misses(
    event: Event,
    context: Context,
    policy: Policy,
    rules: Rules | None,
    traces: Sequence[RuleTrace],
    decision: Decision,
) -> tuple[NearMiss, ...]:
    """Return what nearly answered otherwise, at most a few: rules first, then entries."""
    passes = decision.verdict.passes
    found = [*_rules(traces, passes=passes)]
    if not passes:
        if rules is not None:
            found.extend(_elsewhere(event, context, rules, decision))
        found.extend(islice(_entries(event, policy), _TOLD_MAX))
    return tuple(found[: 2 * _TOLD_MAX])


def _rules(traces: Sequence[RuleTrace], *, passes: bool) -> Iterator[NearMiss]:
    """Rules that speak of the event and lack one conjunct, of the effect that would matter."""
    matters = (Effect.DENY, Effect.ASK) if passes else (Effect.ALLOW,)
    for trace in traces:
        if trace.matched or trace.lacking != 1 or trace.effect not in matters:
            continue
        lacking = next(each for each in trace.conjuncts if each.value is not True)
        why = lacking.error or "false"
        yield NearMiss(
            what=f"rule {trace.policy_id} ({trace.effect.value})",
            lacks=f"only {lacking.text} ({why})",
            source=trace.source,
        )


def _elsewhere(
    event: Event, context: Context, rules: Rules, decision: Decision
) -> Iterator[NearMiss]:
    """Rules that allow and whose condition holds, but that speak of something else."""
    plan = rules.plan_of(event)
    if plan is None:
        return
    speaking = plan.speaking(event)
    slots = plan.slots(event, context, decision.findings)
    for rule in plan.rules:
        if rule.effect is not Effect.ALLOW or rule.policy_id in speaking:
            continue
        try:
            holds = rule.condition.evaluator(plan.slot_of)(slots) is True
        except EvaluationError:
            continue
        if holds:
            of = ", ".join(selector.text.value for selector in rule.selectors[:3])
            actions = ", ".join(sorted(rule.actions)[:3]) or "every action"
            yield NearMiss(
                what=f"rule {rule.policy_id} (ALLOW)",
                lacks=f"its condition holds, but it speaks of {actions} on {of}",
                source=rule.source,
            )


def _entries(event: Event, policy: Policy) -> Iterator[NearMiss]:
    match event:
        case EgressRequest() | EgressConnect() | NetworkAccess():
            if policy.egress is not None:
                yield from _hosts(event.host, event.port, policy.egress.allow)
        case DnsQuery():
            if policy.egress is not None:
                yield from _hosts(event.host, None, policy.egress.allow)
        case FileAccess() | PatchApply():
            yield from _paths(event, policy)
        case ToolCall():
            if policy.tools is not None:
                yield from _tools(event, policy.tools)
        case _:
            return


def _hosts(host: Host, port: int | None, allow: Iterable[HostRule]) -> Iterator[NearMiss]:
    for rule in allow:
        lacks = _host_lacks(host, port, rule)
        if lacks:
            yield NearMiss(what=f"allow entry {rule.text}", lacks=lacks, source=rule.source)


def _host_lacks(host: Host, port: int | None, rule: HostRule) -> str:
    index = HostIndex((rule,), ports_without=None, any_is_address=False)
    if next(index.naming(host), None) is not None:
        return (
            ""
            if port is None or rule.covers(port, _WEB_PORTS)
            else f"it does not speak of port {port}"
        )
    if host.address is not None:
        return ""
    name = host.name
    if rule.name:
        if name.endswith(f".{rule.name}"):
            return f"the host is a sub-domain of it; *.{rule.name} would name it"
        return _differing(rule.name, name)
    if rule.suffix == name:
        return "the host is the apex, which a wildcard does not name"
    if rule.suffix:
        return _differing(rule.suffix, ".".join(name.split(".")[1:]))
    return ""


def _differing(entry: str, name: str) -> str:
    """Say how two names differ, when they differ by one label or a typing error."""
    mine, theirs = entry.split("."), name.split(".")
    if len(mine) != len(theirs) or len(mine) < 2:
        return ""
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a != b]
    if len(pairs) != 1:
        return ""
    (wanted, given) = pairs[0]
    at_front = mine[0] != theirs[0]
    if not at_front and _distance(wanted, given) > _TYPING_ERRORS_MAX:
        return ""
    return f"the host differs by the label {given} for {wanted}"


def _distance(one: str, other: str) -> int:
    """Return how many characters must be changed, put in or left out."""
    row = list(range(len(other) + 1))
    for at, character in enumerate(one, start=1):
        last, row[0] = row[0], at
        for place, each in enumerate(other, start=1):
            change = last + (character != each)
            last, row[place] = row[place], min(change, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def _paths(event: FileAccess | PatchApply, policy: Policy) -> Iterator[NearMiss]:
    section = policy.path_allow
    if section is None:
        return
    lists = (
        ("file_access_allow", section.access),
        ("file_write_allow", section.write),
        ("patch_allow", section.patch),
    )
    for key, entries in lists:
        for entry in entries:
            lacks = _path_lacks(event, entry, key)
            if lacks:
                yield NearMiss(what=f"{key} entry {entry.value}", lacks=lacks, source=entry.source)


def _path_lacks(event: FileAccess | PatchApply, entry: Sourced[str], key: str) -> str:
    both = {event.path, event.resolved}
    exact = _matched(entry, both, fold=False)
    if exact == both:
        return f"it is a list for other operations ({key})"
    if exact:
        return "it names the path as given or as resolved, and both must be named"
    if _matched(entry, both, fold=True) == both:
        return "the path differs by case only"
    folder, slash, last = entry.value.rpartition("/")
    if not slash or last in ("*", "**") or not folder.startswith("/"):
        return ""
    near = _matched(entry.of(f"{folder}/*"), both, fold=False)
    return "the path differs in its last name only" if near == both else ""


def _matched(entry: Sourced[str], paths: Iterable[str], *, fold: bool) -> set[str]:
    try:
        globs = PathGlobs((entry,), fold=fold)
    except ConfigError:
        return set()
    return {path for path in paths if globs.find(path) is not None}


def _tools(call: ToolCall, section: ToolSection) -> Iterator[NearMiss]:
    for entry in section.allow:
        lacks = _tool_lacks(call, entry)
        if lacks:
            yield NearMiss(what=f"allow entry {entry.value}", lacks=lacks, source=entry.source)


def _tool_lacks(call: ToolCall, entry: Sourced[str]) -> str:
    if ToolIndex((entry,), refuses=False).find(call.server, call.name) is not None:
        return ""
    server, slash, name = entry.value.rpartition("/")
    if ToolIndex((entry,), refuses=True).find(call.server, call.name) is not None:
        return "the tool differs by case, or in how its name holds a slash"
    if slash and name == call.name:
        return f"it names the tool of the server {server}"
    if server in ("", call.server) and 0 < _distance(name, call.name) <= _TYPING_ERRORS_MAX:
        return f"the tool differs by a typing error from {name}"
    return ""

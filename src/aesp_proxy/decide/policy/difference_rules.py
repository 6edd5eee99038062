"""Rules, exceptions and values that differ between two policies, with witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aesp_proxy.decide.guards.secret_leak import SecretLeak, secret_leak
from aesp_proxy.decide.policy.difference import Change, Direction, Pair, direction_of
from aesp_proxy.decide.policy.hosts import parse_host_rule
from aesp_proxy.decide.policy.policy import Effect, Policy, RuleItem, SecretSection, rule_meaning
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.witness import (
    Values,
    host_facts,
    path_facts,
    tool_facts,
    witness_for,
    witness_of_rules,
)
from aesp_proxy.decide.policy.witness_event import PLAIN_HOST, PLAIN_PATH, PLAIN_TEXT, Witness
from aesp_proxy.decide.rule import CompiledRule, compile_rule
from aesp_proxy.model.decision import Decision, Finding, Severity
from aesp_proxy.model.grant import Grant, GrantKind

_ENTRIES_TRIED: Final = 12
_RESTRICTING: Final = frozenset({Effect.DENY, Effect.ASK})
_NO_WITNESS: Final = "no event was found that it makes a difference to"
_PLACES: Final = frozenset({
    "request.action", "request.method", "request.host", "request.port", "request.resource.path",
    "tool.server", "tool.name",
})  # fmt: skip
_KINDS: Final = {GrantKind.EGRESS: ("connect",), GrantKind.PATH: ("file",),
                 GrantKind.TOOL: ("tool",)}  # fmt: skip


def places_of(*policies: Policy) -> Values:
    """Return hosts, ports, paths and tools that the lists of policies name, a few of each."""
    found: list[Values] = []
    for policy in policies:
        if policy.egress is not None:
            found += map(host_facts, policy.egress.allow[:_ENTRIES_TRIED])
        if policy.path_allow is not None:
            section = policy.path_allow
            globs = (*section.access[:_ENTRIES_TRIED], *section.write[:_ENTRIES_TRIED],
                     *section.patch[:_ENTRIES_TRIED])  # fmt: skip
            found += (path_facts(glob.value) for glob in globs)
        if policy.tools is not None:
            found += (tool_facts(tool.value) for tool in policy.tools.allow[:_ENTRIES_TRIED])
    made: dict[str, list[object]] = {
        "request.host": [PLAIN_HOST],
        "request.resource.path": [PLAIN_PATH],
        "tool.name": [PLAIN_TEXT],
    }
    for values in found:
        for name, each in values.items():
            made.setdefault(name, []).extend(each)
    return {name: list(dict.fromkeys(each)) for name, each in made.items()}


def rule_changes(pair: Pair) -> Iterator[Change]:
    """Yield rules that were added, removed or say something else."""
    old, new = _on(pair.before), _on(pair.after)
    places = places_of(pair.before, pair.after)
    for policy_id, item in new.items():
        if policy_id not in old:
            yield from _rule(pair, "added", None, item, places)
        elif rule_meaning(old[policy_id]) != rule_meaning(item):
            yield from _rule(pair, "changed", old[policy_id], item, places)
    for policy_id, item in old.items():
        if policy_id not in new:
            yield from _rule(pair, "removed", item, None, places)


def _on(policy: Policy) -> dict[str, RuleItem]:
    return {item.policy_id.value: item for item in policy.rules if item.enabled}


def _rule(
    pair: Pair, what: str, old: RuleItem | None, new: RuleItem | None, places: Values
) -> Iterator[Change]:
    item = new or old
    if item is None:
        return
    change = Change(
        key=f"rules.{item.policy_id.value}",
        what=what,
        item=f"{item.effect.value} {item.condition.value}",
        source=item.source,
        direction=Direction.UNPROVED,
        why=_NO_WITNESS,
    )
    was = None if old is None else compile_rule(old)
    now = None if new is None else compile_rule(new)
    decider = f"rule:{item.policy_id.value}"

    def search(direction: Direction | None) -> Witness | None:
        for rule in _tried(was, now, direction):
            differs = pair.differs(
                _PLACES | pair.facts | rule.condition.facts,
                direction=direction,
                owed_to=lambda decision: decision.guard == decider,
            )
            found = witness_of_rules([rule], demands=(differs,), values=places, beside=pair.terms)
            if found is not None:
                return found
        return None

    yield from pair.searched(change, search)


def _tried(
    was: CompiledRule | None, now: CompiledRule | None, direction: Direction | None
) -> Iterator[CompiledRule]:
    """Yield the rules that can make a change in a direction: who refused then, who allows now."""
    refusing, allowing = was, now
    if direction is Direction.STRICTER:
        refusing, allowing = now, was
    if refusing is not None and (direction is None or refusing.effect in _RESTRICTING):
        yield refusing
    if allowing is not None and (direction is None or allowing.effect is Effect.ALLOW):
        yield allowing


def grant_changes(pair: Pair) -> Iterator[Change]:
    """Yield exceptions that came or went."""
    was, now = (set(map(_meaning, policy.grants)) for policy in (pair.before, pair.after))
    for grants, others, what in ((pair.after.grants, was, "added"),
                                 (pair.before.grants, now, "removed")):  # fmt: skip
        for grant in grants:
            if _meaning(grant) not in others:
                yield _granted(pair, grant, what)


def _meaning(grant: Grant) -> tuple[object, ...]:
    return grant.grant_id, grant.kind, grant.pattern, grant.from_ns, grant.until_ns


def _granted(pair: Pair, grant: Grant, what: str) -> Change:
    change = Change(key=f"exceptions.{grant.grant_id}", what=what,
                    item=f"{grant.kind.value} {grant.pattern}", source=grant.source,
                    direction=Direction.UNPROVED, why=_NO_WITNESS)  # fmt: skip
    match grant.kind:
        case GrantKind.EGRESS:
            values = host_facts(parse_host_rule(Sourced(grant.pattern, grant.source)))
        case GrantKind.PATH:
            values = path_facts(grant.pattern)
        case GrantKind.TOOL:
            values = tool_facts(grant.pattern)
    timed = {**values, "request.time": [grant.from_ns]}
    differs = pair.differs(frozenset(timed))
    found = witness_for(kinds=_KINDS[grant.kind], demands=(differs,), values=timed)
    return pair.proved(change, found) or change


def secret_changes(pair: Pair) -> Iterator[Change]:
    """Yield changes of what is looked for in contents; patterns are told by name only."""
    old, new = pair.before.secrets, pair.after.secrets
    if old.enabled != new.enabled:
        direction = Direction.STRICTER if new.enabled else Direction.WEAKER
        yield Change(key="guards.secret_leak.enabled", what="changed",
                     item=f"{_flag(old.enabled)} -> {_flag(new.enabled)}", source=new.source,
                     direction=direction, why="contents are scanned, or not at all")  # fmt: skip
    if old.severity_threshold is not new.severity_threshold:
        yield _threshold(old, new)
    yield from _patterns(old, new)
    for key, was, now in (
        ("skip_paths", _texts(old.skip_paths), _texts(new.skip_paths)),
        ("credentials", _homes(old), _homes(new)),
        ("actions", _actions(old), _actions(new)),
    ):
        for text in sorted({*was, *now} - ({*was} & {*now})):
            added = text in now
            yield Change(key=f"guards.secret_leak.{key}", what="added" if added else "removed",
                         item=text, source=(now if added else was)[text],
                         direction=Direction.WEAKER if added else Direction.STRICTER,
                         why="an exception from the scan")  # fmt: skip
    if old.redact != new.redact:
        yield Change(key="guards.secret_leak.redact", what="changed",
                     item=f"{_flag(old.redact)} -> {_flag(new.redact)}", source=new.source,
                     direction=Direction.WEAKER if new.redact else Direction.STRICTER,
                     why="what is found in a body is masked, or refuses")  # fmt: skip
    if old.records_unscannable != new.records_unscannable:
        words = ("block", "record")
        yield Change(key="guards.secret_leak.unscannable", what="changed",
                     item=f"{words[old.records_unscannable]} -> {words[new.records_unscannable]}",
                     source=new.source,
                     direction=Direction.WEAKER if new.records_unscannable else Direction.STRICTER,
                     why="what cannot be scanned refuses, or is recorded")  # fmt: skip
    packs_were, packs_are = _texts(old.packs), _texts(new.packs)
    for name in sorted({*packs_were, *packs_are} - ({*packs_were} & {*packs_are})):
        added = name in packs_are
        yield Change(key="guards.secret_leak.packs", what="added" if added else "removed",
                     item=name, source=(packs_are if added else packs_were)[name],
                     direction=Direction.STRICTER if added else Direction.WEAKER,
                     why="kinds of secret that are looked for")  # fmt: skip


def _threshold(old: SecretSection, new: SecretSection) -> Change:
    change = Change(key="guards.secret_leak.severity_threshold", what="changed",
                    item=f"{old.severity_threshold.word} -> {new.severity_threshold.word}",
                    source=new.source, direction=Direction.UNPROVED)  # fmt: skip
    severity = min(old.severity_threshold, new.severity_threshold)
    before, after = _on_finding(old, severity), _on_finding(new, severity)
    return Change(key=change.key, what=change.what, item=change.item, source=change.source,
                  direction=direction_of(before, after), before=before, after=after,
                  why=f"a finding of severity {severity.word}")  # fmt: skip


def _on_finding(section: SecretSection, severity: Severity) -> Decision:
    """Return what a section answers for one finding."""
    guard: SecretLeak = secret_leak(section, _Nothing())
    found = (Finding(rule="witness", severity=severity, location="content", offset=0,
                     masked="", fingerprint=""),)  # fmt: skip
    answer = guard.answer(found, found)
    return Decision(verdict=answer.verdict, reason=answer.reason, guard=guard.name,
                    severity=answer.severity, message=answer.message,
                    source=answer.source)  # fmt: skip


class _Nothing:
    """A scanner that is never asked."""

    def scan(self, data: bytes, location: str) -> tuple[Finding, ...]:  # noqa: ARG002 - a Scanner
        return ()

    def scan_head(
        self,
        target: bytes,  # noqa: ARG002 - the same
        headers: Sequence[tuple[bytes, bytes]],  # noqa: ARG002 - the same
    ) -> tuple[Finding, ...]:
        return ()


def _patterns(old: SecretSection, new: SecretSection) -> Iterator[Change]:
    was, now = ({p.name: p for p in section.patterns} for section in (old, new))
    for name in sorted({*was, *now}):
        mine, theirs = was.get(name), now.get(name)
        if mine is None and theirs is not None:
            what, source, direction = "added", theirs.pattern.source, Direction.STRICTER
        elif theirs is None and mine is not None:
            what, source, direction = "removed", mine.pattern.source, Direction.WEAKER
        elif mine is not None and theirs is not None:
            if mine.shape == theirs.shape:
                continue
            what, source, direction = "changed", theirs.pattern.source, Direction.OTHER
        else:
            continue
        yield Change(key=f"guards.secret_leak.patterns.{name}", what=what, item=name,
                     source=source, direction=direction,
                     why="a kind of secret that is looked for")  # fmt: skip


def _texts(items: Sequence[Sourced[str]]) -> dict[str, str]:
    return {item.value: item.source for item in items}


def _homes(section: SecretSection) -> dict[str, str]:
    return {
        f"{each.rule.value} in {', '.join(sorted(each.headers))}"
        f" to {', '.join(sorted(host.text for host in each.hosts))}": each.rule.source
        for each in section.credentials
    }


def _actions(section: SecretSection) -> dict[str, str]:
    return {
        f"{each.verdict.value} {each.rule.value} up to {each.severity_max.word}"
        f" to {', '.join(sorted(host.text for host in each.hosts)) or 'anywhere'}": each.rule.source
        for each in section.actions
    }


def _flag(value: bool) -> str:  # noqa: FBT001 - a value to show
    return "true" if value else "false"

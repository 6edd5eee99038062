"""What an entry of a lower level would let pass beyond what stands above, in words."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from aesp_proxy.decide.policy.cover_hosts import WEB_PORTS, HostCover, covers, hosts_of
from aesp_proxy.decide.policy.cover_names import (
    GlobCover,
    ToolCover,
    paths_of,
    tools_of,
)
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar
from aesp_proxy.decide.policy.entries import said
from aesp_proxy.decide.policy.field import Field, Form
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostRule, parse_host_rule
from aesp_proxy.decide.policy.lists import identity, meaning
from aesp_proxy.decide.policy.schema import THRESHOLDS
from aesp_proxy.decide.policy.sourced import Sourced


class Permitted:
    """What a list permits above. ``default_passes`` tells that the rest passes as well."""

    __slots__ = ("_cover", "_default_passes")

    def __init__(self, above: Sequence[Node], form: Form, *, default_passes: bool) -> None:
        texts = [said(item) for item in above if isinstance(item, Scalar)]
        self._default_passes = default_passes
        self._cover: HostCover | ToolCover | GlobCover
        match form:
            case Form.HOST:
                anyone = [_ANY_NAME] if default_passes else []
                self._cover = HostCover(map(parse_host_rule, [*texts, *anyone]))
            case Form.TOOL:
                self._cover = ToolCover(texts)
            case _:
                self._cover = GlobCover(texts)

    def beyond(self, node: Node) -> str:
        """Return what an entry permits beyond it; empty for nothing."""
        if not isinstance(node, Scalar):
            return ""
        match self._cover:
            case HostCover() as cover:
                found = cover.uncovered(parse_host_rule(said(node)))
                return "" if found is None else f"a connection to {found[0]}:{found[1]}"
            case ToolCover() as cover:
                tool = None if self._default_passes else cover.uncovered(said(node))
                return "" if tool is None else f"a call of the tool {told_tool(*tool)}"
            case GlobCover() as cover:
                path = cover.uncovered(said(node))
                return "" if path is None else f"access to {path!a}"


_ANY_NAME: Final = Sourced("*", "default_action")


def told_tool(server: str, name: str) -> str:
    """Return a tool as it is told: with its server, if it has one."""
    return f"{name!a} of the server {server!a}" if server else ascii(name)


class Excepted:
    """What is excepted above. ``patterns`` are what is forbidden, to find what an entry lifts."""

    __slots__ = ("_above", "_cover", "_globs", "_lifted")

    def __init__(self, above: Sequence[Node], patterns: Sequence[Node]) -> None:
        texts = [said(item) for item in above if isinstance(item, Scalar)]
        forbidden = [said(item) for item in patterns if isinstance(item, Scalar)]
        self._above = above
        self._cover = GlobCover(texts)
        self._lifted = PathGlobs(texts, fold=False)
        self._globs = PathGlobs(forbidden, fold=True)

    def beyond(self, node: Node) -> str:
        """Return what an entry lifts beyond it; empty for nothing."""
        if not isinstance(node, Scalar):
            return _table_beyond(node, self._above)
        path = self._cover.uncovered(said(node))
        if path is None:
            return ""
        for candidate in paths_of(node.text):
            if self._globs.find(candidate) is not None and self._lifted.find(candidate) is None:
                return f"access to {candidate!a}"
        return f"access to {path!a}"


def _table_beyond(node: Node, above: Sequence[Node]) -> str:
    covers_it = _covers_action if _is_action(node) else _covers_credential
    if not isinstance(node, Mapping) or any(
        isinstance(other, Mapping) and covers_it(other, node) for other in above
    ):
        return ""
    if _is_action(node):
        return f"a finding of {node.word('rule')[:80]!a}"
    hosts = _hosts(node)
    host = next(hosts_of(hosts[0])) if hosts else "its hosts"
    return f"the secret {node.word('rule')[:80]!a} to {host}"


def _covers_credential(outer: Mapping, inner: Mapping) -> bool:
    if meaning(outer) == meaning(inner):
        return True
    if not _covers_rule(outer, inner):
        return False
    headers = {header.text.lower() for header in outer.texts("headers")}
    return all(header.text.lower() in headers for header in inner.texts("headers")) and all(
        any(covers(one, host) for one in _hosts(outer)) for host in _hosts(inner)
    )


def _covers_rule(outer: Mapping, inner: Mapping) -> bool:
    rule, mine = inner.word("rule"), outer.word("rule")
    return rule == mine or (not any(sign in rule for sign in "*?[") and fnmatchcase(rule, mine))


def _is_action(node: Node) -> bool:
    return isinstance(node, Mapping) and bool(node.word("action"))


def _covers_action(outer: Mapping, inner: Mapping) -> bool:
    """Tell whether what an action lets pass passes by another one too."""
    if not _covers_rule(outer, inner):
        return False
    if outer.word("action") == "redact" and inner.word("action") != "redact":
        return False
    gravest = [each.word("severity") or THRESHOLDS[0] for each in (outer, inner)]
    if not all(word in THRESHOLDS for word in gravest):
        return False  # told elsewhere
    if THRESHOLDS.index(gravest[1]) < THRESHOLDS.index(gravest[0]):
        return False
    mine, theirs = _hosts(outer), _hosts(inner)
    return not mine or (
        bool(theirs) and all(any(covers(one, host) for one in mine) for host in theirs)
    )


def _hosts(credential: Mapping) -> list[HostRule]:
    return [parse_host_rule(said(host)) for host in credential.texts("hosts")]


def forbidden_by(node: Node, spec: Field) -> str:
    """Return something that an entry of a list that forbids refuses."""
    if not isinstance(node, Scalar):
        return f"a secret of the kind {identity(node, spec.entry)[:80]!a}"
    match spec.form:
        case Form.GLOB:
            return f"access to {next(paths_of(node.text))!a}"
        case Form.HOST:
            rule = parse_host_rule(said(node))
            port = rule.port or min(WEB_PORTS, key=lambda port: -port)
            return f"a connection to {next(hosts_of(rule))}:{port}"
        case Form.TOOL:
            return f"a call of the tool {told_tool(*next(tools_of(node.text)))}"
        case Form.PACK:
            return f"a secret of the pack {node.text[:80]!a}"
        case _:
            return f"an added line that matches {node.text[:80]!a}"

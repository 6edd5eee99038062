"""Is an entry of a lower level covered by what stands above it? If not: a witness in words."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from aesp_proxy.decide.policy.cover_hosts import WEB_PORTS, covers, hosts_of, uncovered
from aesp_proxy.decide.policy.cover_names import (
    paths_of,
    tools_of,
    uncovered_path,
    uncovered_tool,
)
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar
from aesp_proxy.decide.policy.entries import said
from aesp_proxy.decide.policy.field import Field, Form, Kind
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostRule, parse_host_rule
from aesp_proxy.decide.policy.lists import identity, meaning


def permitted_beyond(node: Node, above: Sequence[Node], form: Form, *, default_passes: bool) -> str:
    """Return what an entry of an allow list permits beyond those above; empty for nothing.

    ``default_passes`` tells that above what is on no list passes as well.
    """
    if not isinstance(node, Scalar):
        return ""
    others = [said(item) for item in above if isinstance(item, Scalar)]
    match form:
        case Form.HOST:
            rule = parse_host_rule(said(node))
            rules = [parse_host_rule(other) for other in others]
            if default_passes:
                rules.append(parse_host_rule(said(node).of("*")))
            found = uncovered(rule, rules)
            return "" if found is None else f"a connection to {found[0]}:{found[1]}"
        case Form.TOOL:
            tool = None if default_passes else uncovered_tool(said(node), others)
            return "" if tool is None else f"a call of the tool {told_tool(*tool)}"
        case _:
            path = uncovered_path(said(node), others)
            return "" if path is None else f"access to {path!a}"


def told_tool(server: str, name: str) -> str:
    """Return a tool as it is told: with its server, if it has one."""
    return f"{name!a} of the server {server!a}" if server else ascii(name)


def excepted_beyond(
    node: Node, above: Sequence[Node], spec: Field, patterns: Sequence[Node]
) -> str:
    """Return what an entry of exceptions lifts beyond those above; empty for nothing.

    ``patterns`` are what is forbidden above, to find a path that the entry lifts.
    """
    if spec.kind is Kind.TABLES:
        return _credential_beyond(node, above)
    if not isinstance(node, Scalar):
        return ""
    others = [said(item) for item in above if isinstance(item, Scalar)]
    path = uncovered_path(said(node), others)
    if path is None:
        return ""
    globs = PathGlobs((said(item) for item in patterns if isinstance(item, Scalar)), fold=True)
    lifted = PathGlobs(others, fold=False)
    for candidate in paths_of(node.text):
        if globs.find(candidate) is not None and lifted.find(candidate) is None:
            return f"access to {candidate!a}"
    return f"access to {path!a}"


def _credential_beyond(node: Node, above: Sequence[Node]) -> str:
    if not isinstance(node, Mapping) or any(
        isinstance(other, Mapping) and _covers_credential(other, node) for other in above
    ):
        return ""
    hosts = _hosts(node)
    host = next(hosts_of(hosts[0])) if hosts else "its hosts"
    return f"the secret {node.word('rule')[:80]!a} to {host}"


def _covers_credential(outer: Mapping, inner: Mapping) -> bool:
    if meaning(outer) == meaning(inner):
        return True
    rule, mine = inner.word("rule"), outer.word("rule")
    if rule != mine and (any(sign in rule for sign in "*?[") or not fnmatchcase(rule, mine)):
        return False
    headers = {header.text.lower() for header in outer.texts("headers")}
    return all(header.text.lower() in headers for header in inner.texts("headers")) and all(
        any(covers(one, host) for one in _hosts(outer)) for host in _hosts(inner)
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
        case _:
            return f"an added line that matches {node.text[:80]!a}"

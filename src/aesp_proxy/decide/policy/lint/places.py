"""Hosts, paths and tools that two resources may have in common, as facts; to be confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from aesp_proxy.decide.policy.cover_hosts import hosts_of
from aesp_proxy.decide.policy.cover_names import glob_components, paths_of, tools_of
from aesp_proxy.decide.policy.lint.reach import Pair

_ANY_HOST: Final = "witness.example"
_ANY_FILE: Final = "/w/witness"
_DEEP: Final = "**"


def places(action: str, resource: Pair) -> Iterator[dict[str, object]]:
    """Yield facts that say where an action happens, by dotted name."""
    if action.startswith(("http.", "tcp.")):
        yield from _hosts(resource)
    elif action.startswith("file."):
        for path in _paths(resource):
            yield {"request.resource.path": path}
    elif action == "tool.call":
        yield from _tools(resource)
    else:
        yield {}


def _hosts(resource: Pair) -> Iterator[dict[str, object]]:
    rules = [each.host for each in resource if each is not None and each.host is not None]
    port = next((rule.port for rule in rules if rule.port), None)
    ports = {} if port is None else {"request.port": port}
    # What names fewer hosts first: its samples are likelier to be named by both.
    for rule in sorted(rules, key=lambda each: (not each.name, not each.labels, not each.suffix)):
        for host in hosts_of(rule):
            yield {"request.host": host.name, **ports}
    if not rules:
        yield {"request.host": _ANY_HOST}


def _paths(resource: Pair) -> Iterator[str]:
    globs = [each.glob.value for each in resource if each is not None and each.glob is not None]
    for glob in globs:
        yield from paths_of(glob)
    for one, other in ((globs[:1], globs[1:]), (globs[1:], globs[:1])):
        for first, second in product(one, other):
            yield from _joined(glob_components(first), glob_components(second))
    if not globs:
        yield _ANY_FILE


def _joined(one: list[str], other: list[str]) -> Iterator[str]:
    """Yield paths that begin as one pattern and end as another, where both are open there."""
    if _DEEP in one and other[:1] == [_DEEP]:
        yield from paths_of("/" + "/".join([*one[: one.index(_DEEP)], *other[1:]]))


def _tools(resource: Pair) -> Iterator[dict[str, object]]:
    rules = [each.tool.value for each in resource if each is not None and each.tool is not None]
    samples = [next(tools_of(rule)) for rule in rules] or [("", "witness")]
    servers = dict.fromkeys(server for server, _ in samples)
    names = dict.fromkeys(name for _, name in samples)
    for server, name in product(sorted(servers, reverse=True), names):
        yield {"tool.name": name, **({"tool.server": server} if server else {})}

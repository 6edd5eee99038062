"""A compiled policy for people: what holds, and the level and line that says it."""

from __future__ import annotations

from collections.abc import Iterator

from aesp_proxy.decide.policy.compile import Compiled
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, source_of
from aesp_proxy.decide.policy.policy import Layer

_VALUE_CHARS_MAX = 60
_KEPT = ("version", "description")


def table_of(made: Compiled) -> Iterator[str]:
    """Yield the lines of a table."""
    policy = made.policy
    scope = ",".join(f"{key}={name}" for key, name in policy.scope)
    yield f"policy   {policy.name}"
    yield f"scope    {scope or 'everything'}"
    yield f"version  {policy.stamp}"
    yield f"hash     {policy.hash}"
    yield ""
    yield from _layers(policy.layers)
    levels = {layer.path: layer.level for layer in policy.layers}
    rows = list(_rows(made.tree, "", levels))
    rows += [
        (
            f"exception {grant.grant_id}",
            f"{grant.kind.value} {grant.pattern}",
            "exception",
            grant.source,
        )
        for grant in policy.grants
    ]
    yield ""
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        yield "  ".join([*cells, row[3]]).rstrip()


def _layers(layers: tuple[Layer, ...]) -> Iterator[str]:
    width = max((len(layer.level) for layer in layers), default=0)
    for layer in layers:
        yield f"{layer.level.ljust(width)}  {layer.sha256[:12]}  {layer.path}"


def _rows(tree: Mapping, path: str, levels: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for key, node in tree.entries:
        place = f"{path}.{key.text}" if path else key.text
        if not path and key.text in _KEPT:
            continue
        if isinstance(node, Mapping):
            yield from _rows(node, place, levels)
        elif isinstance(node, Sequence):
            if not node.items:
                yield _row(place, key, "(nothing)", levels)
            for item in node.items:
                yield _row(place, item, _shown(item), levels)
        else:
            yield _row(place, node, _shown(node), levels)


def _row(path: str, node: Node, text: str, levels: dict[str, str]) -> tuple[str, str, str, str]:
    return path.removeprefix("guards."), text, levels.get(node.file, ""), source_of(node)


def _shown(node: Node) -> str:
    match node:
        case Scalar():
            text = node.text
        case Mapping():
            text = node.word("policy_id") or node.word("name") or node.word("rule")
        case Sequence():
            text = ""
    return text if len(text) <= _VALUE_CHARS_MAX else text[: _VALUE_CHARS_MAX - 3] + "..."

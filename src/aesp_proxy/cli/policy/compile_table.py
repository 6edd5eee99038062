"""A compiled policy for people: what holds, and the level and line that says it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aesp_proxy.decide.policy.compile import EXCEPTION_LEVEL, Compiled
from aesp_proxy.decide.policy.items import items_of
from aesp_proxy.decide.policy.policy import Layer

_VALUE_CHARS_MAX = 60


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
    rows = [
        (item.key, _cut(item.text), levels.get(item.file, ""), item.source)
        for item in items_of(made.tree)
    ]
    rows += [
        (
            f"exception {grant.grant_id}",
            f"{grant.kind.value} {grant.pattern}",
            EXCEPTION_LEVEL,
            grant.source,
        )
        for grant in policy.grants
    ]
    yield ""
    yield from columns(rows)


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows as lines, each column as wide as it needs."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _layers(layers: tuple[Layer, ...]) -> Iterator[str]:
    yield from columns([(layer.level, layer.sha256[:12], layer.path) for layer in layers])


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE_CHARS_MAX else text[: _VALUE_CHARS_MAX - 3] + "..."

"""A compiled policy as canonical JSON, and back: every value with its level, file and line.

Keys are sorted, text is UTF-8, one newline ends it: the same policy is the same bytes on
every machine. Reading checks the hash of the meaning, and gives the same policy again, so
that a decision names the line of the file that said it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping as MappingOf
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.compile import EXCEPTION_LEVEL, Compiled
from aesp_proxy.decide.policy.compiled_tree import Items, read_items, tree_of, written
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.policy import Layer, Policy
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.grant import Grant, GrantKind

FORMAT: Final = "aesp-compiled-policy/1"
BYTES_MAX: Final = 64 * 1024 * 1024
_HEAD_CHARS: Final = 4096


def is_compiled(text: str) -> bool:
    """Tell whether a text is a compiled policy, by its beginning; a policy in YAML is not."""
    head = text[:_HEAD_CHARS].lstrip()
    return head.startswith("{") and f'"{FORMAT.partition("/")[0]}/' in text


def to_json(compiled: Compiled) -> bytes:
    """Return a compiled policy as canonical JSON."""
    policy = compiled.policy
    levels = {layer.path: layer.level for layer in policy.layers}
    form = {
        "format": FORMAT,
        "scope": _scope(policy.scope),
        "version": policy.stamp,
        "serial": compiled.serial,
        "hash": policy.hash,
        "sources": [
            {"level": layer.level, "path": layer.path, "sha256": layer.sha256}
            for layer in policy.layers
        ],
        "policy": written(compiled.tree, schema.POLICY, levels),
        "grants": [_grant(grant) for grant in policy.grants],
    }
    text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        data = text.encode() + b"\n"
    except UnicodeEncodeError:
        raise ConfigError("a text is not valid Unicode", where=policy.where) from None
    if len(data) > BYTES_MAX:
        raise ConfigError(f"larger than {BYTES_MAX // 2**20} MiB", where=policy.where)
    return data


def from_json(text: str, where: str) -> Policy:
    """Read a compiled policy; ``ConfigError`` where it is none or its hash does not match."""
    top = read_items(text, where)
    if top.text("format") != FORMAT:
        raise ConfigError(
            f"not of the format {FORMAT}", where=where, remedy="compile it again: policy compile"
        )
    policy = policy_of(tree_of(top.items("policy"), schema.POLICY), where)
    policy = replace(
        policy,
        grants=tuple(_read_grant(item) for item in top.list("grants")),
        layers=tuple(
            Layer(level=item.text("level"), path=item.text("path"), sha256=item.text("sha256"))
            for item in top.list("sources")
        ),
        scope=_read_scope(top.items("scope")),
        stamp=top.text("version"),
    )
    if policy.hash != top.text("hash") or policy.stamp.partition(":")[2] != policy.hash[:8]:
        raise ConfigError(
            "the hash does not match: the file was changed after it was compiled",
            where=where,
            remedy="compile it again: policy compile",
        )
    return policy


def _scope(pairs: tuple[tuple[str, str], ...]) -> MappingOf[str, object]:
    frameworks = [name for key, name in pairs if key == "framework"]
    single = {key: name for key, name in pairs if key != "framework"}
    return {**single, "framework": frameworks} if frameworks else single


def _read_scope(items: Items) -> tuple[tuple[str, str], ...]:
    frameworks = items.texts("framework") if items.has("framework") else ()
    pairs = [("framework", name) for name in frameworks]
    return (*pairs, *((k, items.text(k)) for k in ("region", "unit", "team") if items.has(k)))


def _grant(grant: Grant) -> MappingOf[str, object]:
    path, _, line = grant.source.rpartition(":")
    return {
        "id": grant.grant_id,
        "kind": grant.kind.value,
        "pattern": grant.pattern,
        "from_ns": grant.from_ns,
        "until_ns": grant.until_ns,
        "level": EXCEPTION_LEVEL,
        "path": path,
        "line": int(line),
    }


def _read_grant(items: Items) -> Grant:
    try:
        kind = GrantKind(items.text("kind"))
    except ValueError:
        raise ConfigError("a grant of no known kind", where=items.where) from None
    return Grant(
        grant_id=items.text("id"),
        kind=kind,
        pattern=items.text("pattern"),
        from_ns=items.count("from_ns"),
        until_ns=items.count("until_ns"),
        source=f"{items.text('path')}:{items.count('line')}",
    )

"""Policy text to what the file states: types and entries checked, nothing joined yet.

The tree keeps the place of each value. What the format knows and nothing enforces is
refused here, by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.backslashes import undoubled
from aesp_proxy.decide.policy.document import (
    Mapping,
    Node,
    Scalar,
    Sequence,
    at,
    parse_document,
)
from aesp_proxy.decide.policy.entries import check_entries, said
from aesp_proxy.decide.policy.policy import Layer
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.errors import ConfigError

_REGEX_LISTS: Final = {
    "secret_leak": ("patterns", "additional_patterns"),
    "patch_integrity": ("forbidden_patterns",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One file as it is written. ``warnings`` are lines of FILE:LINE:COL and what to know."""

    where: str
    tree: Mapping
    sha256: str
    warnings: tuple[str, ...]

    @property
    def extends(self) -> Sourced[str] | None:
        """The parent it names, with the place."""
        node = self.tree.get("extends")
        return said(node) if isinstance(node, Scalar) else None

    @property
    def strategy(self) -> str:
        """How it joins its parent."""
        return self.tree.word("merge_strategy") or "deep_merge"

    def layer(self, level: str) -> Layer:
        """Return the file as a layer of a policy."""
        return Layer(level=level, path=self.where, sha256=self.sha256)


def read_stated(text: str, where: str) -> Stated:
    """Read one policy. ``where`` names the file; raises ``ConfigError``, whole or not at all."""
    document = parse_document(text, where)
    _check_version(document)
    warnings: list[str] = []
    tree = _undoubled(document, warnings)
    Table(tree, schema.POLICY, path="")
    check_entries(tree, schema.POLICY)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Stated(where=where, tree=tree, sha256=digest, warnings=tuple(warnings))


def _check_version(document: Mapping) -> None:
    """Read the version before the keys: another version has other keys."""
    value = document.get("version")
    if not isinstance(value, Scalar):
        raise ConfigError(
            "version is missing", where=at(document), remedy='begin with version: "1.2.0"'
        )
    if value.text == schema.HIERARCHY_VERSION:
        raise ConfigError(
            "version 1.0.0 is the hierarchy file (levels and override_rules), not a policy",
            where=at(value),
            remedy="give one of the policies that it names, or policy compile",
        )
    if value.text not in schema.VERSIONS:
        raise ConfigError(
            f"unsupported version {value.text[:40]!a}",
            where=at(value),
            remedy=f"this version reads {' and '.join(schema.VERSIONS)}",
        )


def _undoubled(tree: Mapping, warnings: list[str]) -> Mapping:
    """Return the tree with the regular expressions read as they were meant."""
    guards = tree.table("guards")
    if guards is None:
        return tree
    for section_name, names in _REGEX_LISTS.items():
        section = guards.table(section_name)
        for name in names:
            node = section.get(name) if section is not None else None
            if section is None or not isinstance(node, Sequence):
                continue
            items = tuple(_undoubled_item(item, warnings) for item in node.items)
            section = with_value(section, name, replace(node, items=items))
            guards = with_value(guards, section_name, section)
    return with_value(tree, "guards", guards)


def with_value(mapping: Mapping, name: str, value: Node) -> Mapping:
    """Return a mapping with another value under a key that it has."""
    entries = tuple((k, value if k.text == name else v) for k, v in mapping.entries)
    return replace(mapping, entries=entries)


def _undoubled_item(item: Node, warnings: list[str]) -> Node:
    match item:
        case Mapping():
            pattern = item.get("pattern")
            if not isinstance(pattern, Scalar):
                return item
            return with_value(item, "pattern", _undoubled_text(pattern, warnings))
        case Scalar():
            return _undoubled_text(item, warnings)
        case Sequence():
            return item


def _undoubled_text(pattern: Scalar, warnings: list[str]) -> Scalar:
    written = said(pattern)
    meant = undoubled(written, warnings)
    if meant is written:
        return pattern
    # In double quotes from here on, so that nothing reads it twice.
    return replace(pattern, text=meant.value, style="double")

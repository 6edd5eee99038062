"""The tree of a policy as JSON values with places, and back.

A leaf is ``{"value", "level", "path", "line", "column", "style"}``; a list has ``list``
for ``value``, a section ``keys``, both at the place of their key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping as MappingOf
from typing import Final, TypedDict

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence
from aesp_proxy.decide.policy.field import Field, Kind
from aesp_proxy.errors import ConfigError

_STYLES: Final = ("plain", "single", "double", "block")


class _Place(TypedDict):
    file: str
    line: int
    column: int


class Items:
    """A JSON object, read strictly; ``where`` names the file in errors."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ConfigError("not a compiled policy: an object is missing", where=where)
        self._value: dict[str, object] = value
        self.where = where

    def has(self, name: str) -> bool:
        """Tell whether a key is there."""
        return name in self._value

    def names(self) -> tuple[str, ...]:
        """Return the keys."""
        return tuple(self._value)

    def get(self, name: str) -> object:
        """Return a value; ``ConfigError`` where there is none."""
        if name not in self._value:
            raise ConfigError(f"not a compiled policy: no {name}", where=self.where)
        return self._value[name]

    def text(self, name: str) -> str:
        """Return a text."""
        value = self.get(name)
        if not isinstance(value, str):
            raise ConfigError(f"not a compiled policy: {name} is no text", where=self.where)
        return value

    def count(self, name: str) -> int:
        """Return a whole number."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"not a compiled policy: {name} is no number", where=self.where)
        return value

    def items(self, name: str) -> Items:
        """Return an object."""
        return Items(self.get(name), self.where)

    def list(self, name: str) -> tuple[Items, ...]:
        """Return a list of objects."""
        value = self.get(name)
        if not isinstance(value, list):
            raise ConfigError(f"not a compiled policy: {name} is no list", where=self.where)
        return tuple(Items(item, self.where) for item in value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"not a compiled policy: {name} is no list", where=self.where)
        return tuple(value)


def read_items(text: str, where: str) -> Items:
    """Read JSON whose top is an object; keys that stand twice and NaN are errors."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, ValueError) else "nested too deep"
        raise ConfigError(f"not valid JSON: {told[:120]!a}", where=where) from None
    return Items(value, where)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no number")


def written(
    tree: Mapping, keys: MappingOf[str, Field], levels: MappingOf[str, str]
) -> dict[str, object]:
    """Return the keys of a tree as JSON values; ``levels`` are the levels of files."""
    return {key.text: _value(key, node, keys[key.text], levels) for key, node in tree.entries}


def _value(key: Scalar, node: Node, spec: Field, levels: MappingOf[str, str]) -> dict[str, object]:
    match node:
        case Scalar():
            return _leaf(node, spec, levels)
        case Sequence():
            items = [_item(item, spec, levels) for item in node.items]
            return {"list": items, **_place(key, levels)}
        case Mapping() if spec.kind is Kind.PAIRS:
            pairs = {
                k.text: _leaf(v, spec, levels) for k, v in node.entries if isinstance(v, Scalar)
            }
            return {"keys": pairs, **_place(key, levels)}
        case Mapping():
            return {"keys": written(node, spec.keys, levels), **_place(key, levels)}


def _item(item: Node, spec: Field, levels: MappingOf[str, str]) -> dict[str, object]:
    if isinstance(item, Mapping):
        return {"keys": written(item, spec.keys, levels), **_place(item, levels)}
    return _leaf(item, spec, levels) if isinstance(item, Scalar) else {}


def _leaf(node: Scalar, spec: Field, levels: MappingOf[str, str]) -> dict[str, object]:
    value: object = node.text
    if spec.kind is Kind.FLAG:
        value = node.text.lower() == "true"
    elif spec.kind is Kind.COUNT:
        value = int(node.text)
    return {"value": value, "style": node.style, **_place(node, levels)}


def _place(node: Node, levels: MappingOf[str, str]) -> dict[str, object]:
    place: dict[str, object] = {
        "level": levels.get(node.file, ""),
        "path": node.file,
        "line": node.line,
        "column": node.column,
    }
    if isinstance(node, Scalar) and node.note:
        place["note"] = node.note
    return place


def tree_of(items: Items, keys: MappingOf[str, Field]) -> Mapping:
    """Return the tree of JSON values again; ``ConfigError`` for what was never written."""
    entries = []
    for name in items.names():
        spec = keys.get(name)
        if spec is None:
            raise ConfigError(f"not a compiled policy: {name[:60]!a}", where=items.where)
        value = items.items(name)
        entries.append((_scalar(value, name, "plain"), _node(value, spec)))
    return Mapping(entries=tuple(entries), file=items.where, line=1, column=1)


def _node(items: Items, spec: Field) -> Node:
    if items.has("keys") and spec.kind is Kind.PAIRS:
        inner = items.items("keys")
        pairs = tuple(
            (_scalar(inner.items(name), name, "plain"), _node(inner.items(name), spec))
            for name in inner.names()
        )
        return Mapping(entries=pairs, **_at(items))
    if items.has("keys"):
        tree = tree_of(items.items("keys"), spec.keys)
        return Mapping(entries=tree.entries, **_at(items))
    if items.has("list"):
        below = items.list("list")
        if any(item.has("list") for item in below):
            raise ConfigError("not a compiled policy: a list in a list", where=items.where)
        inner_items = tuple(_node(item, spec) for item in below)
        return Sequence(items=inner_items, **_at(items))
    value = items.get("value")
    if isinstance(value, bool):
        return _scalar(items, "true" if value else "false", "plain")
    if isinstance(value, int):
        return _scalar(items, str(value), "plain")
    style = items.text("style")
    return _scalar(items, items.text("value"), style if style in _STYLES else "double")


def _scalar(items: Items, text: str, style: str) -> Scalar:
    note = items.text("note") if items.has("note") else ""
    return Scalar(text=text, style=style, note=note, **_at(items))


def _at(items: Items) -> _Place:
    return {
        "file": items.text("path"),
        "line": items.count("line"),
        "column": items.count("column"),
    }

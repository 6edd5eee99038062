"""A chain of ``extends``, joined: what one owner says in several files.

``replace`` leaves the child alone, ``merge`` takes whole sections from it, ``deep_merge``
goes key by key: lists are the child's where it states them, else the parent's, then
``additional_*`` are added and ``remove_*`` taken out; exceptions are united; the rest is
the child's where stated. Rules replace those of the same id. What is locked above may not
be stated, whatever the strategy.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, source_of
from aesp_proxy.decide.policy.field import Field, Kind, Law
from aesp_proxy.decide.policy.lists import (
    built_in_patterns,
    identity,
    shown,
    still_allows,
    united,
    without,
)
from aesp_proxy.decide.policy.stated import Stated
from aesp_proxy.errors import ConfigError

Entries = dict[str, tuple[Scalar, Node]]
CHANGES: Final = (Law.ADDS, Law.REMOVES)
NOT_KEPT: Final = frozenset({"extends", "merge_strategy"})


def joined(above: Mapping | None, stated: Stated) -> tuple[Mapping, tuple[str, ...]]:
    """Return the effective tree of a file on top of what stands above it, and warnings.

    ``above`` is effective: it holds no ``additional_*`` and no ``remove_*`` any more.
    Raises ``ConfigError`` where a locked key is stated or a removal does not remove.
    """
    warnings: list[str] = list(stated.warnings)
    if above is not None:
        check_locks(above, stated)
    if above is None or stated.strategy == "replace":
        return _deep(None, stated.tree, schema.POLICY, "", warnings), tuple(warnings)
    if stated.strategy == "merge":
        return _shallow(above, stated.tree, warnings), tuple(warnings)
    return _deep(above, stated.tree, schema.POLICY, "", warnings), tuple(warnings)


def entries_of(mapping: Mapping | None) -> Entries:
    """Return keys and values by the text of the key."""
    return {} if mapping is None else {k.text: (k, v) for k, v in mapping.entries}


def mapping_of(entries: Entries, place: Mapping) -> Mapping:
    """Return a mapping of entries at the place of another."""
    return replace(place, entries=tuple(entries.values()))


def _shallow(above: Mapping, stated: Mapping, warnings: list[str]) -> Mapping:
    """Take whole sections of guards, and every other key, from the child where it has them."""
    alone = _deep(None, stated, schema.POLICY, "", warnings)
    entries = entries_of(above)
    for name, (key, node) in entries_of(alone).items():
        inner = above.table(name)
        if name == "guards" and inner is not None and isinstance(node, Mapping):
            entries[name] = key, mapping_of(entries_of(inner) | entries_of(node), inner)
        elif name == "locked" and name in entries:
            entries[name] = _locks(entries[name], node)
        else:
            entries[name] = key, node
    return mapping_of(entries, above)


def _deep(
    above: Mapping | None,
    stated: Mapping,
    keys: MappingOf[str, Field],
    path: str,
    warnings: list[str],
) -> Mapping:
    entries = entries_of(above)
    for key, node in stated.entries:
        spec = keys[key.text]
        name = key.text
        place = f"{path}.{name}" if path else name
        if spec.law in CHANGES or (not path and name in NOT_KEPT):
            continue
        first = entries.get(name)
        if spec.kind is Kind.TABLE and isinstance(node, Mapping):
            inner = None if first is None else first[1]
            table = inner if isinstance(inner, Mapping) else None
            below = _deep(table, node, spec.keys, place, warnings)
            entries[name] = (key if first is None else first[0], below)
        elif first is not None and spec.law in _UNITED:
            entries[name] = _united(first, node, spec)
        else:
            entries[name] = key, node
    for key, node in stated.entries:
        _change(entries, key, node, keys, path, warnings)
    return mapping_of(entries, above or stated)


_UNITED: Final = (Law.EXCEPTS, Law.RULES, Law.LOCKS)


def _united(first: tuple[Scalar, Node], node: Node, spec: Field) -> tuple[Scalar, Node]:
    key, above = first
    if not isinstance(above, Sequence) or not isinstance(node, Sequence):
        return key, node
    if spec.law is Law.LOCKS:
        return _locks(first, node)
    if spec.law is Law.RULES:
        below = {identity(item, spec.entry): item for item in node.items}
        kept = tuple(below.pop(identity(item, spec.entry), item) for item in above.items)
        return key, replace(above, items=(*kept, *below.values()))
    items, _ = united(above.items, node.items, spec.entry)
    return key, replace(above, items=items)


def _locks(first: tuple[Scalar, Node], node: Node) -> tuple[Scalar, Node]:
    key, above = first
    if not isinstance(above, Sequence) or not isinstance(node, Sequence):
        return key, node
    return key, replace(above, items=united(above.items, node.items, "")[0])


def _change(
    entries: Entries,
    key: Scalar,
    node: Node,
    keys: MappingOf[str, Field],
    path: str,
    warnings: list[str],
) -> None:
    """Add or take out what one ``additional_*`` or ``remove_*`` key says."""
    spec = keys[key.text]
    if spec.law not in CHANGES or not isinstance(node, Sequence):
        return
    target = keys[spec.of]
    list_key, above = target_list(entries, spec.of, key, path)
    if spec.law is Law.ADDS:
        above = replace(above, items=united(above.items, node.items, target.entry)[0])
    else:
        for item in node.items:
            if isinstance(item, Scalar):
                above = removed(above, item, target, entries, f"{path}.{key.text}", warnings)
    entries[spec.of] = list_key, above


def target_list(entries: Entries, name: str, key: Scalar, path: str) -> tuple[Scalar, Sequence]:
    """Return the list that a change is about; where none is stated, the one that holds."""
    if name in entries:
        list_key, node = entries[name]
        if isinstance(node, Sequence):
            return list_key, node
    built_in = path == "guards.forbidden_path" and name == "patterns"
    items: tuple[Node, ...] = built_in_patterns(key) if built_in else ()
    empty = Sequence(items=items, file=key.file, line=key.line, column=key.column)
    return replace(key, text=name), empty


def removed(
    above: Sequence,
    item: Scalar,
    target: Field,
    entries: Entries,
    place: str,
    warnings: list[str],
) -> Sequence:
    """Return a list without what one ``remove_*`` entry names; ``ConfigError`` if that stays."""
    kept, gone = without(above.items, item, target)
    if target.law is Law.PERMITS:
        section, _, key = place.rpartition(".")
        proposal = f"add it to additional_block, or remove that entry in {section}"
        left = still_allows(kept, item, target)
        if left is not None:
            raise ConfigError(
                f"{key} takes out {shown(item)}, but {shown(left)} at {source_of(left)} still"
                " allows it",
                where=at(item),
                remedy=proposal,
            )
        default = entries.get("default_action")
        if default is not None and isinstance(default[1], Scalar) and default[1].text != "block":
            raise ConfigError(
                f"{key} takes out {shown(item)}, but default_action at {source_of(default[1])}"
                " still lets it pass",
                where=at(item),
                remedy="add it to additional_block",
            )
    if not gone:
        warnings.append(f"{at(item)}: {place} removes {shown(item)}, which is not there")
    return replace(above, items=kept)


def check_locks(above: Mapping, stated: Stated) -> None:
    """Refuse a file that states what a file above it has locked; ``ConfigError``."""
    found = next(locked_statements(above, stated), None)
    if found is not None:
        lock, node, path = found
        raise ConfigError(
            f"{path} is locked by {shown(lock)} at {source_of(lock)}",
            where=at(node),
            remedy="take it out; nobody below may state it",
        )


def locked_statements(above: Mapping, stated: Stated) -> Iterator[tuple[Scalar, Node, str]]:
    """Yield (lock, where it is stated, path) for each lock of above that a file touches."""
    places = tuple(_statements(stated.tree, schema.POLICY, ""))
    for lock in above.texts("locked"):
        if stated.strategy == "replace":
            node = stated.tree.get("merge_strategy")
            yield lock, stated.tree if node is None else node, lock.text
            continue
        whole = stated.strategy == "merge"
        for path, node in places:
            if _touches(path, lock.text, whole=whole):
                yield lock, node, path
                break


def _touches(path: str, lock: str, *, whole: bool) -> bool:
    if path == lock:
        return True
    if path.startswith("rules.") or lock.startswith("rules."):
        # An id may hold dots; it is no path of its own.
        return lock == "rules" or (whole and path == "rules")
    return path.startswith(f"{lock}.") or (
        whole and path != "guards" and lock.startswith(f"{path}.")
    )


def _statements(
    tree: Mapping, keys: MappingOf[str, Field], path: str
) -> Iterator[tuple[str, Node]]:
    """Yield the dotted path of each key, rule, and list that an ``additional_*`` is about."""
    for key, node in tree.entries:
        spec = keys[key.text]
        place = f"{path}.{key.text}" if path else key.text
        yield place, key
        if spec.of:
            yield f"{path}.{spec.of}", key
        if spec.kind is Kind.TABLE and isinstance(node, Mapping):
            yield from _statements(node, spec.keys, place)
        if spec.law is Law.RULES and isinstance(node, Sequence):
            yield from ((f"rules.{identity(item, spec.entry)}", item) for item in node.items)

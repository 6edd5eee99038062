"""Lists of a policy as they are joined: united, added to, taken from, compared.

An entry of a list of texts is told apart by its text, an entry of a list of tables by the
key that the schema names; equal means equal in meaning, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aesp_proxy.decide.policy.built_in import BUILT_IN_PATHS
from aesp_proxy.decide.policy.cover_hosts import covers, overlaps
from aesp_proxy.decide.policy.cover_names import tool_covers
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, source_of
from aesp_proxy.decide.policy.entries import said
from aesp_proxy.decide.policy.field import Field, Form, Law
from aesp_proxy.decide.policy.hosts import parse_host_rule
from aesp_proxy.errors import ConfigError

_SHOWN_CHARS_MAX = 80


def identity(node: Node, entry: str) -> str:
    """Return what tells an entry from the others of its list."""
    match node:
        case Scalar():
            return node.text
        case Mapping() if entry:
            return node.word(entry)
        case _:
            return repr(meaning(node))


def meaning(node: Node) -> object:
    """Return the value of a node without places and quoting."""
    match node:
        case Scalar():
            return node.text
        case Sequence():
            return [meaning(item) for item in node.items]
        case Mapping():
            return sorted((key.text, meaning(value)) for key, value in node.entries)


def shown(node: Node, entry: str = "") -> str:
    """Return an entry fit for one line of a message."""
    name = node.word("rule") if isinstance(node, Mapping) and not entry else ""
    return ascii((name or identity(node, entry))[:_SHOWN_CHARS_MAX])


def united(
    above: tuple[Node, ...], below: tuple[Node, ...], entry: str
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """Return both lists as one, and of the lower what was not above yet.

    ``ConfigError`` where the same id stands for two things.
    """
    known = {identity(node, entry): node for node in above}
    new: dict[str, Node] = {}
    for node in below:
        name = identity(node, entry)
        first = known.get(name) or new.get(name)
        if first is None:
            new[name] = node
        elif meaning(first) != meaning(node):
            raise ConfigError(
                f"{shown(node, entry)} is another thing at {place_of(first, entry)}",
                where=at(node),
                remedy="give it a name of its own",
            )
    added = tuple(new.values())
    return (*above, *added), added


def place_of(node: Node, entry: str = "") -> str:
    """Return FILE:LINE of an entry: of its id where it has one."""
    if entry and isinstance(node, Mapping):
        named = node.get(entry)
        return source_of(node if named is None else named)
    return source_of(node)


def without(
    items: tuple[Node, ...], removed: Scalar, target: Field
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """Return the entries that stay and those that are taken out by one ``remove_*`` entry."""
    is_gone = _remover(removed, target)
    kept: list[Node] = []
    gone: list[Node] = []
    for item in items:
        (gone if is_gone(item) else kept).append(item)
    return tuple(kept), tuple(gone)


def _remover(removed: Scalar, target: Field) -> Callable[[Node], bool]:
    """Return what tells whether an entry is taken out: of lists that allow, what is covered."""
    if target.law is Law.PERMITS and target.form is Form.HOST:
        outer = parse_host_rule(said(removed))
        return lambda item: (
            isinstance(item, Scalar) and covers(outer, parse_host_rule(said(item)), every_port=True)
        )
    if target.law is Law.PERMITS:
        return lambda item: isinstance(item, Scalar) and tool_covers(removed.text, item.text)
    return lambda item: identity(item, target.entry) == removed.text


def still_allows(items: tuple[Node, ...], removed: Scalar, target: Field) -> Node | None:
    """Return an entry that still allows some of what a ``remove_*`` entry has taken out."""
    for item in items:
        if not isinstance(item, Scalar):
            continue
        if target.form is Form.HOST:
            outer, inner = parse_host_rule(said(item)), parse_host_rule(said(removed))
            if overlaps(outer, inner) and _ports_meet(outer.port, inner.port):
                return item
        elif tool_covers(item.text, removed.text):
            return item
    return None


def _ports_meet(one: int | None, other: int | None) -> bool:
    if other in (None, 0) or one == 0:
        return True
    return other in (80, 443) if one is None else one == other


def built_in_patterns(key: Scalar) -> tuple[Scalar, ...]:
    """Return the patterns of a ``forbidden_path`` that states none, placed at a key."""
    return tuple(
        replace(key, text=text, note=" (built-in patterns)", style="plain")
        for text in BUILT_IN_PATHS
    )

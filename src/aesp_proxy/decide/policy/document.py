"""YAML text to a tree of nodes with positions, under limits, with nothing resolved.

Rules: one document; keys are plain strings and stand once; no anchors, aliases,
merge keys or tags (an alias is how a small file becomes a huge one, a tag how it
becomes something else); depth, nodes and size are bounded while reading, before
anything recursive runs over the tree. A scalar keeps its text and whether it was
quoted: what ``yes`` or ``012`` means is decided by the schema, not by YAML 1.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from aesp_proxy.errors import ConfigError

TEXT_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 16
NODES_MAX = 400_000
ITEMS_MAX = 50_000
SCALAR_CHARS_MAX = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A leaf. ``style`` is ``plain``, ``single``, ``double`` or ``block``.

    ``note`` follows the place in sources, for what no file writes out.
    """

    text: str
    style: str
    file: str
    line: int
    column: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Keys, each once, in the order of the file."""

    entries: tuple[tuple[Scalar, Node], ...]
    file: str
    line: int
    column: int

    def get(self, name: str) -> Node | None:
        """Return the value under a key; None when it is not stated."""
        return next((value for key, value in self.entries if key.text == name), None)

    def key(self, name: str) -> Scalar | None:
        """Return the key itself, for its place; None when it is not stated."""
        return next((key for key, _ in self.entries if key.text == name), None)

    def table(self, name: str) -> Mapping | None:
        """Return the mapping under a key; None when there is none."""
        value = self.get(name)
        return value if isinstance(value, Mapping) else None

    def items(self, name: str) -> tuple[Node, ...]:
        """Return the items of the list under a key; empty when there is none."""
        value = self.get(name)
        return value.items if isinstance(value, Sequence) else ()

    def texts(self, name: str) -> tuple[Scalar, ...]:
        """Return the leaves of the list under a key."""
        return tuple(item for item in self.items(name) if isinstance(item, Scalar))

    def word(self, name: str) -> str:
        """Return the text of the leaf under a key; empty when there is none."""
        value = self.get(name)
        return value.text if isinstance(value, Scalar) else ""


Node = Scalar | Sequence | Mapping

_SIGNS = "*&!%@`[{"
_STYLES = {None: "plain", "": "plain", "'": "single", '"': "double", "|": "block", ">": "block"}


def parse_document(text: str, where: str) -> Mapping:
    """Read one YAML document whose top is a mapping.

    ``where`` names the file in errors. Raises ``ConfigError`` with FILE:LINE:COL.
    """
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        raise ConfigError(f"larger than {TEXT_BYTES_MAX // 2**20} MiB", where=where)
    try:
        return _Reader(text, where).document()
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(error, text, where) from None
    except (yaml.YAMLError, UnicodeError) as error:
        reason = getattr(error, "reason", "") or "characters that YAML does not allow"
        raise ConfigError(f"not valid YAML: {reason}", where=where) from None


def at(node: Node) -> str:
    """Return FILE:LINE:COL of a node, for errors."""
    return f"{node.file}:{node.line}:{node.column}"


def source_of(node: Node) -> str:
    """Return FILE:LINE of a node, for what is told of a decision."""
    note = node.note if isinstance(node, Scalar) else ""
    return f"{node.file}:{node.line}{note}"


def _yaml_error(error: yaml.MarkedYAMLError, text: str, where: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
    problem = " ".join(str(error.problem or error.context or "cannot be parsed").split())
    lines = text.splitlines()
    remedy = _quoting(lines[mark.line]) if mark and mark.line < len(lines) else ""
    return ConfigError(f"not valid YAML: {problem}", where=place, remedy=remedy)


def _quoting(line: str) -> str:
    """Return the usual remedy: a value that begins with a sign of YAML's own needs quotes."""
    value = line.partition(": ")[2] if ": " in line else line
    first = value.strip().removeprefix("- ").lstrip()[:1]
    if first and first in _SIGNS:
        return f"a value that begins with {first} stands in quotes"
    return ""


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


class _Reader:
    """Composes nodes from libyaml's events; every limit is counted here."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._nodes = 0
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=yaml.CSafeLoader))

    def document(self) -> Mapping:
        next(self._events)  # stream start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise ConfigError("the file is empty", where=self._where)
        top = self._node(next(self._events), 1)
        next(self._events)  # document end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refused(event, "a second document; one file holds one policy")
        if not isinstance(top, Mapping):
            raise ConfigError("expected keys and values at the top", where=at(top))
        return top

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._check(event, depth)
        line, column = _place(event)
        if isinstance(event, yaml.ScalarEvent):
            if len(event.value) > SCALAR_CHARS_MAX:
                raise self._refused(event, f"a value longer than {SCALAR_CHARS_MAX} characters")
            style = _STYLES[event.style]
            return Scalar(text=event.value, style=style, file=self._where, line=line, column=column)
        if isinstance(event, yaml.SequenceStartEvent):
            items = self._items(depth)
            return Sequence(items=items, file=self._where, line=line, column=column)
        entries = self._entries(depth)
        return Mapping(entries=entries, file=self._where, line=line, column=column)

    def _items(self, depth: int) -> tuple[Node, ...]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
            if len(items) > ITEMS_MAX:
                raise self._refused(event, f"a list of more than {ITEMS_MAX} items")
        return tuple(items)

    def _entries(self, depth: int) -> tuple[tuple[Scalar, Node], ...]:
        entries: list[tuple[Scalar, Node]] = []
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, depth, lines)
            entries.append((key, self._node(next(self._events), depth + 1)))
        return tuple(entries)

    def _key(self, event: yaml.Event, depth: int, lines: dict[str, int]) -> Scalar:
        key = self._node(event, depth + 1)
        if not isinstance(key, Scalar):
            raise self._refused(event, "a key that is not a word")
        if key.text == "<<" and key.style == "plain":
            raise self._refused(event, "merge keys (<<) are not accepted; write the keys out")
        if key.text in lines:
            raise self._refused(
                event, f"the key {key.text!r} stands twice (first on line {lines[key.text]})"
            )
        lines[key.text] = key.line
        return key

    def _check(self, event: yaml.Event, depth: int) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self._refused(event, f"more than {NODES_MAX} values")
        if depth > DEPTH_MAX:
            raise self._refused(event, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._refused(event, "anchors and aliases are not accepted; write the value out")
        if getattr(event, "tag", None) is not None:
            raise self._refused(event, "tags (!...) are not accepted")

    def _refused(self, event: yaml.Event, why: str) -> ConfigError:
        line, column = _place(event)
        return ConfigError(why, where=f"{self._where}:{line}:{column}")

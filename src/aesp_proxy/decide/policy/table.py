"""Typed, strict reading of a YAML mapping against the schema.

Everything is checked when a table is made, so the readers below it cannot meet a
wrong type. Null is an error everywhere: it says neither yes nor no. A plain ``yes`` or
``on`` is an error where a flag stands and a text where a text stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping as MappingOf

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, source_of
from aesp_proxy.decide.policy.field import Field, Kind
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SHOWN_CHARS_MAX = 60
_TOKEN_CHARS_MIN = 20
_TOKEN_CHARS_SHOWN = 4
_DIGITS_MAX = 16


class Table:
    """A checked mapping. ``path`` is the dotted key, empty at the top.

    ``source`` is FILE:LINE of the key it stands under (in a list: of its first key).
    """

    __slots__ = ("_entries", "_fields", "_node", "path", "source")

    def __init__(
        self,
        node: Mapping,
        fields: MappingOf[str, Field],
        *,
        path: str,
        key: Scalar | None = None,
    ) -> None:
        self.path = path
        self.source = source_of(key or node)
        self._node = node
        self._fields = fields
        self._entries = {key.text: value for key, value in node.entries}
        self._check_keys()
        for name, value in self._entries.items():
            _check(value, fields[name], self._path_of(name))

    def has(self, name: str) -> bool:
        """Tell whether the key is stated."""
        return name in self._entries

    def where(self, name: str) -> str:
        """Return FILE:LINE:COL of a key that is stated, of the table otherwise."""
        key = self._key(name)
        return at(self._node if key is None else key)

    def source_of(self, name: str) -> str:
        """Return FILE:LINE of a key that is stated, of the table's own key otherwise."""
        key = self._key(name)
        return self.source if key is None else source_of(key)

    def flag(self, name: str, *, default: bool) -> bool:
        """Read true or false."""
        node = self._entries.get(name)
        return default if node is None else _flag(node, self._path_of(name))

    def text(self, name: str) -> Sourced[str] | None:
        """Read a text or one of the choices; None when it is not stated."""
        node = self._entries.get(name)
        return None if node is None else self._text(node, self._path_of(name))

    def texts(self, name: str) -> tuple[Sourced[str], ...] | None:
        """Read a list of texts; None when it is not stated."""
        node = self._entries.get(name)
        if not isinstance(node, Sequence):
            return None
        return tuple(self._text(item, self._path_of(name)) for item in node.items)

    def style(self, name: str) -> str:
        """Return how a text is quoted: plain, single, double or block; empty when absent."""
        node = self._entries.get(name)
        return node.style if isinstance(node, Scalar) else ""

    def count(self, name: str) -> Sourced[int] | None:
        """Read a whole number; None when it is not stated."""
        node = self._entries.get(name)
        if node is None:
            return None
        value = _count(node, self._fields[name], self._path_of(name))
        return Sourced(value, source_of(node), node.column)

    def ratio(self, name: str) -> Sourced[float] | None:
        """Read a number; None when it is not stated."""
        node = self._entries.get(name)
        if node is None:
            return None
        return Sourced(_ratio(node, self._path_of(name)), source_of(node), node.column)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Read a map of texts, sorted by key; empty when it is not stated."""
        node = self._entries.get(name)
        entries = node.entries if isinstance(node, Mapping) else ()
        return tuple(sorted((k.text, v.text) for k, v in entries if isinstance(v, Scalar)))

    def table(self, name: str) -> Table | None:
        """Read the mapping under a key; None when it is not stated."""
        node = self._entries.get(name)
        if not isinstance(node, Mapping):
            return None
        keys, path = self._fields[name].keys, self._path_of(name)
        return Table(node, keys, path=path, key=self._key(name))

    def tables(self, name: str) -> tuple[Table, ...]:
        """Read a list of mappings; empty when it is not stated."""
        node = self._entries.get(name)
        if not isinstance(node, Sequence):
            return ()
        keys, path = self._fields[name].keys, self._path_of(name)
        return tuple(
            Table(item, keys, path=path) for item in node.items if isinstance(item, Mapping)
        )

    def refuse_what_is_not_enforced(self) -> None:
        """Raise ``ConfigError`` for a key with effect that this version does not enforce."""
        for name, node in self._entries.items():
            why = self._fields[name].not_enforced
            if why and _has_effect(node):
                can_be_off = "enabled" in self._fields[name].keys
                remedy = "take it out, or set enabled: false" if can_be_off else "take it out"
                raise ConfigError(
                    f"{self._path_of(name)} {why}", where=self.where(name), remedy=remedy
                )

    def _key(self, name: str) -> Scalar | None:
        return self._node.key(name)

    def _path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _text(self, node: Node, path: str) -> Sourced[str]:
        text = _text(node, path)
        style = node.style if isinstance(node, Scalar) else "plain"
        return Sourced(text, source_of(node), node.column, style)

    def _check_keys(self) -> None:
        for key, _ in self._node.entries:
            if key.text not in self._fields:
                raise _unknown_key(key, self._fields, self.path)
        for name, spec in self._fields.items():
            if spec.required and name not in self._entries:
                raise ConfigError(f"{self._path_of(name)} is missing", where=at(self._node))


def _has_effect(node: Node) -> bool:
    """Tell whether a value would do something: not empty, and not wholly switched off."""
    match node:
        case Scalar():
            return True
        case Sequence(items=items):
            return any(_has_effect(item) for item in items)
        case Mapping(entries=entries):
            off = any(key.text == "enabled" and _is_false(value) for key, value in entries)
            return not off


def _is_false(node: Node) -> bool:
    return isinstance(node, Scalar) and node.style == "plain" and _FLAGS.get(node.text) is False


def _check(node: Node, spec: Field, path: str) -> None:
    if isinstance(node, Scalar) and node.style == "plain" and node.text in _NULLS:
        raise ConfigError(
            f"{path} is null", where=at(node), remedy="give it a value or take it out"
        )
    match spec.kind:
        case Kind.FLAG:
            _flag(node, path)
        case Kind.TEXT:
            _text(node, path)
        case Kind.CHOICE:
            _choice(node, spec, path)
        case Kind.COUNT:
            _count(node, spec, path)
        case Kind.RATIO:
            _ratio(node, path)
        case Kind.TEXTS | Kind.TABLES:
            _check_items(node, spec, path)
        case Kind.TABLE:
            if not isinstance(node, Mapping):
                raise _wrong(node, "keys and values", path)
            Table(node, spec.keys, path=path)
        case Kind.PAIRS:
            _check_pairs(node, path)
        case Kind.ANY:
            pass


def _check_items(node: Node, spec: Field, path: str) -> None:
    if not isinstance(node, Sequence):
        raise _wrong(node, spec.kind.value, path)
    for item in node.items:
        if spec.kind is Kind.TEXTS:
            _text(item, path)
        elif isinstance(item, Mapping):
            Table(item, spec.keys, path=path)
        else:
            raise _wrong(item, "keys and values", path)


def _check_pairs(node: Node, path: str) -> None:
    if not isinstance(node, Mapping):
        raise _wrong(node, Kind.PAIRS.value, path)
    for _, value in node.entries:
        _text(value, path)


def _flag(node: Node, path: str) -> bool:
    if not isinstance(node, Scalar) or node.style != "plain" or node.text not in _FLAGS:
        raise _wrong(node, "true or false", path)
    return _FLAGS[node.text]


def _text(node: Node, path: str) -> str:
    if not isinstance(node, Scalar):
        raise _wrong(node, "a text", path)
    if node.style == "plain" and node.text in _NULLS:
        raise ConfigError(f"{path} holds an empty item", where=at(node))
    return node.text


def _choice(node: Node, spec: Field, path: str) -> str:
    text = _text(node, path)
    if text not in spec.choices:
        raise _wrong(node, " or ".join(spec.choices), path)
    return text


def _count(node: Node, spec: Field, path: str) -> int:
    plain = isinstance(node, Scalar) and node.style == "plain"
    text = node.text if isinstance(node, Scalar) else ""
    if not plain or not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        raise _wrong(node, "a whole number, 0 or more", path)
    if int(text) > spec.count_max:
        raise _wrong(node, f"at most {spec.count_max}", path)
    return int(text)


def _ratio(node: Node, path: str) -> float:
    text = node.text if isinstance(node, Scalar) and node.style == "plain" else ""
    whole, _, part = text.partition(".")
    digits = whole + part
    if not whole or not (digits.isascii() and digits.isdigit()) or len(digits) > _DIGITS_MAX:
        raise _wrong(node, "a number, 0 or more", path)
    return float(text)


def _wrong(node: Node, expected: str, path: str) -> ConfigError:
    return ConfigError(f"{path}: expected {expected}, found {_shown(node)}", where=at(node))


def _shown(node: Node) -> str:
    match node:
        case Sequence():
            return "a list"
        case Mapping():
            return "keys and values"
        case Scalar(text=text, style=style):
            shown = _quoted(text)
            return shown if style == "plain" else f"the text {shown}"


def _quoted(text: str) -> str:
    """Return what stands there, in quotes; of what may be a token only how it begins."""
    is_token = (
        len(text) >= _TOKEN_CHARS_MIN
        and not any(mark in text for mark in (" ", "://"))
        and any(char.isdigit() for char in text)
        and any(char.isalpha() for char in text)
    )
    return ascii(f"{text[:_TOKEN_CHARS_SHOWN]}..." if is_token else text[:_SHOWN_CHARS_MAX])


def _unknown_key(key: Scalar, fields: MappingOf[str, Field], path: str) -> ConfigError:
    name = key.text[:_SHOWN_CHARS_MAX]
    quoted = _quoted(key.text)
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
    remedy = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(fields))}"
    place = path or "the policy"
    return ConfigError(f"unknown key {quoted} in {place}", where=at(key), remedy=remedy)

"""The syntax tree of an expression, before anything is known of its types."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands in the text of its expression; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A value written out. ``kind`` is int, uint, double, string, bytes, bool or null."""

    kind: str
    value: object
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Ident:
    """A name that stands alone: a root of facts or a variable of a macro."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """``operand.field``."""

    operand: Node
    field: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """``function(args)`` or ``target.function(args)``; operators are ``_+_``, ``!_``, ``_?_:_``."""

    function: str
    target: Node | None
    args: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """``[a, b]``."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """``{k: v}``."""

    entries: tuple[tuple[Node, Node], ...]
    place: Place


Node = Literal | Ident | Select | Call | ListOf | MapOf

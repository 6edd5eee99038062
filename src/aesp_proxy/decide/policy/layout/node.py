"""A policy's text as a tree that keeps what is around values: comments and blank lines.

The lists of comments are filled after the tree is made, while it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A scalar: its value, how it is written, and the very characters.

    ``end`` is the index behind it and ``end_line`` its last line; ``column`` that of its first.
    """

    text: str
    style: str
    raw: str
    column: int
    end: int
    end_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An entry of a mapping (with a key) or of a list.

    ``before`` are the comments above it, an empty text for a blank line; ``beside`` those at
    the end of its line. ``start`` is its index in the text and ``line`` its line.
    """

    value: Node
    start: int
    line: int
    key: Leaf | None = None
    before: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A mapping or a list. ``after`` are the comments below its last item."""

    items: list[Item]
    is_list: bool
    flow: bool
    column: int
    end: int
    end_line: int
    after: list[str] = field(default_factory=list)

    @property
    def has_comments(self) -> bool:
        """Tell whether a comment stands in it or below."""
        return bool(self.after) or any(
            any(each.before)
            or each.beside
            or (isinstance(each.value, Group) and each.value.has_comments)
            for each in self.items
        )


Node = Leaf | Group

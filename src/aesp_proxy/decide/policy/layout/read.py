"""Text of a policy to a tree with its comments.

What stands between the tokens of YAML is white space and comments and nothing else, so that
every ``#`` there begins a comment. A comment of its own line belongs to the item below it,
or, where it is indented deeper than that, to the list or table above; one at the end of a
line to the item that ends there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, cast

import yaml

from aesp_proxy.decide.policy.layout.node import Group, Item, Leaf, Node
from aesp_proxy.errors import ConfigError

_STYLES: Final = {"'": "single", '"': "double", "|": "block", ">": "block"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment: its text with the sign, where it begins, and whether it has a line of its own."""

    text: str
    at: int
    line: int
    column: int
    alone: bool


def read_layout(text: str, where: str) -> Group:
    """Read a text that is a good document, its line ends plain.

    Raises ``ConfigError`` for what cannot be laid out without loss.
    """
    root = _Tree(text, where).root()
    _attach(root, text)
    return root


def comments_of(text: str) -> list[Comment]:
    """Return all comments of a text, in their order."""
    found: list[Comment] = []
    behind = 0
    for token in yaml.scan(text):
        start = token.start_mark.index
        if start > behind:
            found.extend(_between(text, behind, start))
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            found.extend(_behind_sign(text, start))
        behind = max(behind, token.end_mark.index)
    found.extend(_between(text, behind, len(text)))
    return found


def _between(text: str, start: int, end: int) -> Iterator[Comment]:
    at = text.find("#", start, end)
    while at >= 0:
        yield _comment(text, at)
        stop = text.find("\n", at)
        at = text.find("#", stop, end) if 0 <= stop < end else -1


def _behind_sign(text: str, start: int) -> Iterator[Comment]:
    """Yield the comment behind the sign of a block, which YAML's tokens count to the block."""
    stop = text.find("\n", start)
    at = text.find("#", start, len(text) if stop < 0 else stop)
    if at >= 0:
        yield _comment(text, at)


def _comment(text: str, at: int) -> Comment:
    line_start = text.rfind("\n", 0, at) + 1
    stop = text.find("\n", at)
    return Comment(
        text=text[at : len(text) if stop < 0 else stop].rstrip(),
        at=at,
        line=text.count("\n", 0, at),
        column=at - line_start,
        alone=not text[line_start:at].strip(),
    )


def _mark(mark: object) -> yaml.Mark:
    """Return the place of an event; those of a text always have theirs."""
    return cast("yaml.Mark", mark)


class _Tree:
    """The events of YAML as nodes."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._events = yaml.parse(text)

    def root(self) -> Group:
        event = next(self._events)
        while not isinstance(event, yaml.MappingStartEvent):
            event = next(self._events)
        root = self._group(event)
        for _ in self._events:
            continue
        return root

    def _node(self, event: yaml.Event) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._leaf(event)
        return self._group(event)

    def _leaf(self, event: yaml.ScalarEvent) -> Leaf:
        start, end = _mark(event.start_mark), _mark(event.end_mark)
        raw = self._text[start.index : end.index]
        style = _STYLES.get(event.style or "", "plain")
        if style == "block" and any(sign.isdigit() for sign in raw.partition("\n")[0]):
            raise ConfigError(
                "a block that states its indentation is not laid out",
                where=f"{self._where}:{start.line + 1}:{start.column + 1}",
                remedy="write | or > without a number, or in quotes",
            )
        return Leaf(
            text=event.value, style=style, raw=raw, column=start.column, end=end.index,
            end_line=end.line,
        )  # fmt: skip

    def _group(self, event: yaml.Event) -> Group:
        is_list = isinstance(event, yaml.SequenceStartEvent)
        column = _mark(event.start_mark).column
        items: list[Item] = []
        inner = next(self._events)
        while not isinstance(inner, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            items.append(self._item(inner, is_list=is_list))
            inner = next(self._events)
        flow = bool(getattr(event, "flow_style", False))
        last = _last(items)
        behind = _mark(inner.end_mark)
        end, end_line = (behind.index, behind.line) if flow or last is None else last
        return Group(
            items=items, is_list=is_list, flow=flow, column=column, end=end, end_line=end_line
        )

    def _item(self, event: yaml.Event, *, is_list: bool) -> Item:
        start, line = _mark(event.start_mark).index, _mark(event.start_mark).line
        node = self._node(event)
        if is_list or not isinstance(node, Leaf):
            return Item(value=node, start=start, line=line)
        return Item(value=self._node(next(self._events)), start=start, line=line, key=node)


def _last(items: list[Item]) -> tuple[int, int] | None:
    return (items[-1].value.end, items[-1].value.end_line) if items else None


def _attach(root: Group, text: str) -> None:
    """Give each comment to the item, or the group, that it belongs to."""
    found = comments_of(text)
    anchors = sorted(_anchors(root), key=lambda pair: pair[0])
    alone = []
    for comment in found:
        owner = None if comment.alone else _owner(anchors, comment, text)
        if owner is None:
            alone.append(comment)
        else:
            owner.beside.append(comment.text)
    line = _give(root, alone, -1)
    _below(root, alone, line)


def _owner(anchors: list[tuple[int, Item]], comment: Comment, text: str) -> Item | None:
    """Return the item that ends before a comment on its line; None behind a bare sign."""
    at = bisect_right(anchors, comment.at, key=lambda pair: pair[0])
    if not at:
        return None
    end, item = anchors[at - 1]
    return None if "\n" in text[end : comment.at] else item


def _anchors(group: Group) -> Iterator[tuple[int, Item]]:
    """Yield where the line of each item ends: behind its value, or its key above a block."""
    for item in group.items:
        value = item.value
        nested = isinstance(value, Group) and not value.flow
        if isinstance(value, Leaf) and value.style == "block":
            yield (value.end - len(value.raw), item)
        elif item.key is not None and nested:
            yield (item.key.end, item)
        elif not nested:
            yield (value.end, item)
        if item.key is not None and not nested:
            yield (item.key.end, item)
        if isinstance(value, Group):
            yield from _anchors(value)


def _give(group: Group, waiting: list[Comment], above: int) -> int:
    """Take the comments above each item off ``waiting``; return the last line that was seen."""
    previous: Item | None = None
    for item in group.items:
        mine = _taken(waiting, item.start)
        if previous is not None and _holds_comments(previous.value, within=group):
            below = list(takewhile(lambda each: each.column > group.column, mine))
            above = _below(cast("Group", previous.value), below, above)
            mine = mine[len(below) :]
        item.before.extend(_lines(mine, above, item.line))
        above = item.line
        if isinstance(item.value, Group):
            above = _give(item.value, waiting, above)
        else:
            above = _last_line(item.value)
        previous = item
    if not group.flow:
        return above
    group.after.extend(each.text for each in _taken(waiting, group.end))
    return group.end_line


def _holds_comments(node: Node, *, within: Group) -> bool:
    """Tell whether comments below a node, indented deeper than its key, are its own."""
    return isinstance(node, Group) and not node.flow and not within.flow


def _last_line(leaf: Leaf) -> int:
    """Return the last line with characters of a value: the mark of a block stands below it."""
    if leaf.style != "block":
        return leaf.end_line
    return leaf.end_line - leaf.raw[len(leaf.raw.rstrip()) :].count("\n")


def _taken(waiting: list[Comment], before: int) -> list[Comment]:
    taken = []
    while waiting and waiting[0].at < before:
        taken.append(waiting.pop(0))
    return taken


def _lines(comments: list[Comment], above: int, below: int) -> list[str]:
    """Return comments as lines, with an empty one where blank lines stand."""
    lines: list[str] = []
    for comment in comments:
        if comment.line - above > 1:
            lines.append("")
        lines.append(comment.text)
        above = comment.line
    if below - above > 1:
        lines.append("")
    return lines


def _below(group: Group, comments: list[Comment], above: int) -> int:
    """Give comments that follow a group to it, or to the deepest last group they stand under.

    Returns the last line that was seen.
    """
    for comment in comments:
        owner = group
        while owner.items:
            inner = owner.items[-1].value
            if not isinstance(inner, Group) or inner.flow or inner.column > comment.column:
                break
            owner = inner
        if comment.line - above > 1:
            owner.after.append("")
        owner.after.append(comment.text)
        above = comment.line
    return above

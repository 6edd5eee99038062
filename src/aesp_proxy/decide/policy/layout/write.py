"""A tree with comments to text: keys in the order of the schema, two spaces, one blank line.

A blank line stands between the sections of a policy, between guards and between rules; in a
list or table those that the author has set are kept, one at a time. A list in brackets stays
where it fits into a line; a list in lines stays one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.field import Field
from aesp_proxy.decide.policy.layout.node import Group, Item, Leaf, Node
from aesp_proxy.decide.policy.layout.scalar import LINE_CHARS_MAX, folded, folds, scalar_text

_STEP: Final = 2
_NONE: Final[Mapping[str, Field]] = {}
_APART: Final = ("", "guards", "rules")
"""Where items stand apart: at the top (what is more than a line), guards, rules."""


def write_layout(root: Group) -> str:
    """Return the text of a tree, its last line ended."""
    head, bare = _head(root) if root.items else ([], root)
    lines = [*head, *_table(bare, schema.POLICY, "", 0), *_stripped(root.after, 0)]
    return "\n".join(_without_ends(lines)) + "\n"


def _head(root: Group) -> tuple[list[str], Group]:
    """Take the comment that the file begins with off its first key, whatever key will be first."""
    first, *rest = root.items
    bare = replace(root, items=[replace(first, before=[]), *rest])
    return first.before, bare


def _table(group: Group, keys: Mapping[str, Field], path: str, indent: int) -> Iterator[str]:
    items = _in_order(group, keys)
    for number, item in enumerate(items):
        name = _name(item)
        at = f"{path}.{name}" if path else name
        apart = _is_apart(path, item) or (
            number > 0 and _is_apart(path, items[number - 1]) and path in _APART
        )
        yield from _above(item, indent, apart=apart, first=number == 0)
        yield from _entry(item, _inner(keys, item), at, indent)


def _name(item: Item) -> str:
    return item.key.text if item.key is not None else ""


def _is_apart(path: str, item: Item) -> bool:
    """Tell whether a blank line stands above an item, whatever the author has set."""
    if path == "":
        return isinstance(item.value, Group)
    return path in _APART


def _above(item: Item, indent: int, *, apart: bool, first: bool) -> Iterator[str]:
    before = list(item.before)
    blank = bool(before) and not before[0]
    while before and not before[0]:
        before.pop(0)
    if not first and (apart or blank):
        yield ""
    if first or apart:
        # What is set apart keeps its comments close.
        while before and not before[-1]:
            before.pop()
    yield from (" " * indent + each if each else "" for each in before)
    if len(item.beside) > 1:
        yield from (" " * indent + each for each in item.beside)


def _beside(item: Item) -> str:
    return f"  {item.beside[0]}" if len(item.beside) == 1 else ""


def _entry(item: Item, keys: Mapping[str, Field], path: str, indent: int) -> Iterator[str]:
    key = scalar_text(item.key) if item.key is not None else ""
    start = " " * indent + f"{key}:"
    yield from _value(item, start, keys, path, indent)


def _value(
    item: Item, start: str, keys: Mapping[str, Field], path: str, indent: int
) -> Iterator[str]:
    """Yield a value behind ``start``, which is its key or the sign of a list."""
    value, beside = item.value, _beside(item)
    if isinstance(value, Leaf):
        yield from _leaf(value, start, beside, indent)
        return
    flat = _flat(value, start, keys)
    if flat is not None:
        yield flat + beside
        return
    yield start + beside
    inner = indent + _STEP
    if value.is_list:
        yield from _list(value, keys, path, inner)
    else:
        yield from _table(value, keys, path, inner)
    yield from _stripped(value.after, inner)


def _leaf(leaf: Leaf, start: str, beside: str, indent: int) -> Iterator[str]:
    inner = indent + _STEP
    if leaf.style == "block":
        sign, _, body = leaf.raw.partition("\n")
        sign = sign.partition("#")[0].rstrip()
        if len(sign) == 1 and not leaf.raw.endswith("\n"):
            sign += "-"  # the file ends in the block, and without the end of its last line
        yield f"{start} {sign}{beside}"
        yield from _moved(body, inner, keep=sign.endswith("+"))
    elif folds(leaf, len(start) + 1):
        yield f"{start} >-{beside}"
        yield from folded(leaf.text, inner)
    else:
        yield f"{start} {scalar_text(leaf)}{beside}"


def _moved(body: str, indent: int, *, keep: bool) -> Iterator[str]:
    """Yield the lines of a block at another indentation."""
    lines = body.split("\n")
    if keep and lines and not lines[-1]:
        lines.pop()
    while not keep and lines and not lines[-1].strip():
        lines.pop()
    full = [line for line in lines if line.strip()]
    least = min((len(line) - len(line.lstrip(" ")) for line in full), default=0)
    for line in lines:
        yield " " * indent + line[least:] if line.strip() else ""


def _list(group: Group, keys: Mapping[str, Field], path: str, indent: int) -> Iterator[str]:
    for number, item in enumerate(group.items):
        apart = path in _APART and isinstance(item.value, Group)
        yield from _above(item, indent, apart=apart, first=number == 0)
        start = " " * indent + "-"
        value = item.value
        if isinstance(value, Group) and _flat(value, start, keys) is None:
            yield from _dashed(value, keys, path, indent, _beside(item))
        else:
            yield from _value(item, start, keys, path, indent)


def _dashed(
    group: Group, keys: Mapping[str, Field], path: str, indent: int, beside: str
) -> Iterator[str]:
    """Yield a table, or a list, as an item of a list: it begins behind the sign."""
    inner = indent + _STEP
    write = _list if group.is_list else _table
    lines = list(write(group, keys, f"{path}[]", inner))
    at = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
    yield from (" " * indent + line.lstrip() for line in lines[:at])
    if beside:
        yield " " * indent + beside.strip()
    yield " " * indent + "- " + lines[at].lstrip()
    yield from lines[at + 1 :]
    yield from _stripped(group.after, inner)


def _flat(group: Group, start: str, keys: Mapping[str, Field] = _NONE) -> str | None:
    """Return a group in brackets behind ``start`` where it was so, is short and bare."""
    if not group.items:
        return None if group.has_comments else f"{start} {'[]' if group.is_list else '{}'}"
    if not group.flow or group.has_comments:
        return None
    text = _in_brackets(group, keys)
    line = f"{start} {text}"
    return line if len(line) <= LINE_CHARS_MAX else None


def _in_brackets(node: Node, keys: Mapping[str, Field]) -> str:
    if isinstance(node, Leaf):
        return scalar_text(node)
    if node.is_list:
        return "[" + ", ".join(_in_brackets(each.value, keys) for each in node.items) + "]"
    pairs = (
        f"{scalar_text(item.key)}: {_in_brackets(item.value, _inner(keys, item))}"
        for item in _in_order(node, keys)
        if item.key is not None
    )
    return "{" + ", ".join(pairs) + "}"


def _in_order(group: Group, keys: Mapping[str, Field]) -> list[Item]:
    """Return the items of a table in the order of the schema; what it does not know, last."""
    order = {name: at for at, name in enumerate(keys)}
    return sorted(group.items, key=lambda each: order.get(_name(each), len(order)))


def _inner(keys: Mapping[str, Field], item: Item) -> Mapping[str, Field]:
    spec = keys.get(_name(item))
    return _NONE if spec is None else spec.keys


def _stripped(comments: Sequence[str], indent: int) -> Iterator[str]:
    yield from (" " * indent + each if each else "" for each in comments)


def _without_ends(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines without a blank one at the top or the end."""
    kept = list(lines)
    while kept and not kept[0]:
        kept.pop(0)
    while kept and not kept[-1]:
        kept.pop()
    yield from kept

"""Every effective thing of a policy as one line: its key, its text, the place that says it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, source_of
from aesp_proxy.decide.policy.document import Sequence as Items
from aesp_proxy.decide.policy.lists import meaning

_TOLD: Final = frozenset({"version", "name", "description"})
_IDS: Final = ("policy_id", "name", "rule")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One value or entry. ``key`` is dotted; ``file`` and ``source`` (FILE:LINE) its place.

    ``is_entry`` tells an entry of a list from a value, ``meaning`` is all that it says.
    """

    key: str
    text: str
    file: str
    source: str
    is_entry: bool
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one tree has that another had not: entries by their meaning, values by key."""

    added: tuple[Item, ...]
    removed: tuple[Item, ...]
    changed: tuple[tuple[Item, Item], ...]


def items_of(tree: Mapping, path: str = "") -> Iterator[Item]:
    """Yield the items of an effective tree in its order; what only describes is left out."""
    for key, node in tree.entries:
        place = f"{path}.{key.text}" if path else key.text
        if not path and key.text in _TOLD:
            continue
        match node:
            case Mapping():
                yield from items_of(node, place)
            case Items():
                yield from (_item(place, entry, is_entry=True) for entry in node.items)
            case Scalar():
                yield _item(place, node, is_entry=False)


def changes(before: Sequence[Item], after: Sequence[Item]) -> Changes:
    """Compare the items of two trees."""
    held = {(item.key, item.meaning): item for item in before if item.is_entry}
    got = {(item.key, item.meaning): item for item in after if item.is_entry}
    values = {item.key: item for item in before if not item.is_entry}
    now = {item.key: item for item in after if not item.is_entry}
    return Changes(
        added=(
            *(item for name, item in got.items() if name not in held),
            *(item for key, item in now.items() if key not in values),
        ),
        removed=(
            *(item for name, item in held.items() if name not in got),
            *(item for key, item in values.items() if key not in now),
        ),
        changed=tuple(
            (values[key], item)
            for key, item in now.items()
            if key in values and values[key].meaning != item.meaning
        ),
    )


def _item(path: str, node: Node, *, is_entry: bool) -> Item:
    text = node.text if isinstance(node, Scalar) else ""
    if isinstance(node, Mapping):
        text = next((node.word(name) for name in _IDS if node.word(name)), "")
    return Item(
        key=path.removeprefix("guards."),
        text=text,
        file=node.file,
        source=source_of(node),
        is_entry=is_entry,
        meaning=repr(meaning(node)),
    )

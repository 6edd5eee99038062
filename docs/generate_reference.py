"""The page of every key of a policy, a hierarchy and an exception, from the schema's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aesp_proxy.decide.policy.built_in import BUILT_IN_PATHS
from aesp_proxy.decide.policy.document import (
    DEPTH_MAX,
    ITEMS_MAX,
    NODES_MAX,
    SCALAR_CHARS_MAX,
    TEXT_BYTES_MAX,
)
from aesp_proxy.decide.policy.field import Field, Form, Kind, Law
from aesp_proxy.decide.policy.load import CHAIN_FILES_MAX
from aesp_proxy.decide.policy.schema import HIERARCHY_VERSION, POLICY, VERSIONS
from aesp_proxy.decide.policy.schema_hierarchy import EXCEPTION, HIERARCHY, LEVELS

Keys = Mapping[str, Field]

INTRO = """\
Every key, from the tables that the loader reads. A key that is not here is an error with the
nearest known one; so is `null`. JSON Schemas of the three kinds of file are in `policies/schema/`.
"""

JOINING = """\
A file that extends another states what changes. With `merge_strategy: deep_merge`, the default, a
key that is stated stands and every other is as above; `additional_*` and `remove_*` change a list
instead of stating it. Below a level of a hierarchy that is not overridable, a file may only become
stricter; what that means for each key is its *law*. A list of what is allowed then leaves what is
both stated and covered from above; what is not covered is an error that shows what would pass.
"""


def page(note: str) -> str:
    """Return the page."""
    parts = [
        "# Policy reference\n",
        note,
        INTRO,
        f"Versions of a policy: {_words(VERSIONS)}; of a hierarchy: `{HIERARCHY_VERSION}`.\n",
        "## How files join\n",
        JOINING,
        _table(("law", "below a level that is not overridable"), map(_law_row, Law)),
        "## A policy\n",
        *_tables(POLICY, "", laws=True),
        _built_in(),
        "## A hierarchy\n",
        f"Levels stand in this order: {_words(LEVELS)}.\n",
        *_tables(HIERARCHY, "", laws=False),
        "## An exception\n",
        *_tables(EXCEPTION, "", laws=False),
        "## Limits\n",
        _table(("limit", "value"), iter(LIMITS)),
    ]
    return "\n".join(parts)


LIMITS = (
    ("bytes of a file", f"{TEXT_BYTES_MAX:,}"),
    ("characters of a value", f"{SCALAR_CHARS_MAX:,}"),
    ("items of a list or map", f"{ITEMS_MAX:,}"),
    ("values in a file", f"{NODES_MAX:,}"),
    ("lists and maps in one another", f"{DEPTH_MAX}"),
    ("files that extend each other", f"{CHAIN_FILES_MAX}"),
)


def _law_row(law: Law) -> tuple[str, str]:
    return law.name.lower(), law.value


def _tables(keys: Keys, path: str, *, laws: bool) -> Iterator[str]:
    """Yield the keys of a table, then those of the tables in it."""
    head = ("key", "holds", "default", "law", "what it says")
    rows = (_row(name, field, laws=laws) for name, field in keys.items())
    yield _table(head if laws else tuple(cell for cell in head if cell != "law"), rows)
    for name, field in keys.items():
        if not field.keys or field.law is Law.ADDS:  # its entries are those of its list
            continue
        below = f"{path}.{name}" if path else name
        yield f"### `{below}`\n"
        yield f"{field.text}\n"
        shown = _one_of_the_same(field.keys)
        if shown is not None:
            yield f"Keys {_words(tuple(field.keys))}, each of which holds:\n"
            yield from _tables(shown, below, laws=laws)
        else:
            yield from _tables(field.keys, below, laws=laws and below.startswith(LAWFUL))


LAWFUL = ("guards", "settings")
_ANY_COUNT = Field(kind=Kind.COUNT).count_max


def _one_of_the_same(keys: Keys) -> Keys | None:
    """Return what all keys of a table hold, where they hold the same."""
    inner = [field.keys for field in keys.values()]
    same = len(inner) > 1 and bool(inner[0]) and all(each == inner[0] for each in inner)
    return inner[0] if same else None


def _row(name: str, field: Field, *, laws: bool) -> tuple[str, ...]:
    key = f"`{name}`" + (" (required)" if field.required else "")
    text = field.text + (f" *{field.not_enforced[:1].upper()}{field.not_enforced[1:]}.*"
                         if field.not_enforced else "")  # fmt: skip
    law = (field.law.name.lower(),) if laws else ()
    return key, _holds(field), f"`{field.default}`" if field.default else "", *law, text


def _holds(field: Field) -> str:
    match field.kind:
        case Kind.CHOICE:
            return _words(field.choices)
        case Kind.TEXTS if field.form is not Form.FREE:
            return f"a list; each {field.form.value}"
        case Kind.COUNT if field.count_max < _ANY_COUNT:
            return f"a whole number, at most {field.count_max:,}"
        case _:
            return field.kind.value


def _built_in() -> str:
    patterns = "\n".join(BUILT_IN_PATHS)
    return f"### The built-in `forbidden_path.patterns`\n\n```\n{patterns}\n```\n"


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

"""How one value is written: plain where nobody could read it as something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

from aesp_proxy.decide.policy.layout.node import Leaf

LINE_CHARS_MAX: Final = 100
# What YAML 1.1 or 1.2 or the reader of policies takes for something other than a text.
_WORDS: Final = frozenset(
    {
        "",
        "~",
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "=",
        "<<",
        ".nan",
        ".inf",
    }
)
_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/_")
_FOLD_CHARS_MIN: Final = 40


def scalar_text(leaf: Leaf) -> str:
    """Return a value on one line; a text in quotes loses them where it reads the same without.

    Where they stay they stay as they are: what a doubled backslash means depends on them.
    """
    if leaf.style == "plain" or _is_plain(leaf.text):
        return leaf.text
    return leaf.raw if "\n" not in leaf.raw else _quoted(leaf.text, leaf.style)


def _quoted(text: str, style: str) -> str:
    if style == "single" and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(map(_escaped, escaped)) + '"'


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return short or (f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF
                     else f"\\U{code:08x}")  # fmt: skip


def _is_plain(text: str) -> bool:
    """Tell whether a text without quotes is the same text, in a block and in brackets."""
    if text.lower() in _WORDS or text[0] not in _FIRST or not text.isprintable():
        return False
    if any(sign in text for sign in "{}[],#\\"):
        return False
    return _reads_as(f"- {text}\n", text) and _reads_as(f"- [{text}]\n", text)


def _reads_as(document: str, text: str) -> bool:
    try:
        found = [event for event in yaml.parse(document) if isinstance(event, yaml.ScalarEvent)]
    except yaml.YAMLError:
        return False
    return [event.value for event in found] == [text] and found[0].style is None


def folds(leaf: Leaf, used: int) -> bool:
    """Tell whether a value that stands on several lines, or too far out, is folded.

    ``used`` are the characters of its line before it.
    """
    text = leaf.text
    several = leaf.style != "block" and "\n" in leaf.raw
    single = text == " ".join(text.split(" ")) and "\n" not in text and "  " not in text
    fits = used + len(scalar_text(leaf)) <= LINE_CHARS_MAX
    return several and not fits and single and text.isprintable() and text == text.strip()


def folded(text: str, indent: int) -> Iterator[str]:
    """Yield the lines of a folded block (``>-``), wrapped between words."""
    width = max(LINE_CHARS_MAX - indent, _FOLD_CHARS_MIN)
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            yield " " * indent + line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield " " * indent + line

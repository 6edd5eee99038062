r"""Let a rule that begins at the border of a word begin behind an escape, too.

In JSON a newline before a value is written ``\n``, and its letter joins the value: for
``\b`` no border is there. So ``\b`` at the beginning of a rule, or of one of its
alternatives, also stands behind an escape of JSON or of a URL. Where a rule names no part of
itself as the secret, what follows the border is named, so that no escape is taken for a part.

What is not understood is left as it is: flags inside, a border that is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rule import Rule

_BORDER: Final = rb"\b"
_WIDER: Final = rb"(?:\\(?:[nrtbf]|u[0-9a-fA-F]{4})|%[0-9a-fA-F]{2}|\b)"
_FLAGS: Final = compile_re2(rb"\(\?[a-z-]+\)")
_COUNTS: Final = (b"?", b"*", b"+", b"{")


def behind_escapes(rule: Rule) -> Rule:
    """Return ``rule`` with its first borders widened; the same rule when there are none."""
    wider = _wider(rule.whole)
    if wider == rule.whole:
        return rule
    return replace(
        rule, whole=wider, confirm=_wider(rule.confirm), expression=_wider(rule.expression)
    )


def _wider(expression: bytes) -> bytes:
    """Return an expression, of either dialect, with its first borders widened."""
    match = _FLAGS.match(expression)
    flags = match.group() or b"" if match is not None else b""
    rest = expression[len(flags) :]
    if _FLAGS.search(rest) is not None:
        return expression
    names = _names_a_part(rest)
    return flags + b"|".join(_widened(one, names=names) for one in _alternatives(rest))


def _widened(text: bytes, *, names: bool) -> bytes:
    behind = text.removeprefix(_BORDER)
    if behind == text or not behind or behind.startswith(_COUNTS):
        return text
    return _WIDER + (behind if names else b"(" + behind + b")")


def _alternatives(text: bytes) -> Iterator[bytes]:
    """Yield the alternatives that an expression is outside of all groups."""
    depth, start = 0, 0
    for at, char in _outside_classes(text):
        if char == b"(":
            depth += 1
        elif char == b")":
            depth -= 1
        elif char == b"|" and not depth:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _names_a_part(text: bytes) -> bool:
    """Tell whether a group is a capture."""
    return any(
        char == b"(" and (text[at + 1 : at + 2] != b"?" or text[at + 2 : at + 3] in (b"P", b"<"))
        for at, char in _outside_classes(text)
    )


def _outside_classes(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the characters that mean something, with where they stand."""
    at = 0
    while at < len(text):
        char = text[at : at + 1]
        if char == b"\\":
            at += 2
            continue
        if char == b"[":
            at = _class_end(text, at)
            continue
        yield at, char
        at += 1


def _class_end(text: bytes, at: int) -> int:
    """Return the offset behind a class; ``pattern`` has escaped each bracket in it."""
    at += 1
    while at < len(text) and text[at : at + 1] != b"]":
        if text[at : at + 2] == b"[:":
            end = text.find(b":]", at)
            at = len(text) if end < 0 else end + 2
        else:
            at += 2 if text[at : at + 1] == b"\\" else 1
    return at + 1

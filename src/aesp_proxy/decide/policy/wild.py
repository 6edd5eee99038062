"""Words with wildcards, compared: whether one stands for every word another stands for.

Sound, not complete: yes is always right. ``*`` is any number of characters, ``?`` one;
the words of path patterns also have ``[...]`` and ``{a,b}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_SAMPLES: Final = (("witness", "w"), ("", "0"), ("0-w", "z"))
_ALTERNATIVES_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Token:
    """One part of a word: ``chars`` it may be; None with ``many`` for ``*``, without for ``?``."""

    chars: frozenset[str] | None
    many: bool = False
    negated: bool = False


Word = tuple[Token, ...]
ONE: Final = Token(None)
MANY: Final = Token(None, many=True)


def covers_word(outer: str, inner: str) -> bool:
    """Tell whether ``outer`` matches every word that ``inner`` matches (``*`` and ``?`` only)."""
    return outer == inner or covers_tokens(simple_word(outer), simple_word(inner))


def simple_word(text: str) -> Word:
    """Read a word in which only ``*`` and ``?`` are special."""
    return tuple(_SIMPLE.get(character) or Token(frozenset(character)) for character in text)


_SIMPLE: Final = {"*": MANY, "?": ONE}


def covers_tokens(outer: Word, inner: Word) -> bool:
    """Tell whether ``outer`` matches every word that ``inner`` matches."""
    # The states of outer that can be reached behind each token of inner.
    states = _closed(outer, {0})
    for token in inner:
        reached = set()
        for state in states:
            if state == len(outer):
                continue
            mine = outer[state]
            if mine.many:
                reached.add(state)
            elif not token.many and _within(mine, token):
                reached.add(state + 1)
        states = _closed(outer, reached)
    return len(outer) in states


def _closed(word: Word, states: set[int]) -> set[int]:
    closed = set(states)
    for state in states:
        at = state
        while at < len(word) and word[at].many:
            at += 1
            closed.add(at)
    return closed


def _within(outer: Token, inner: Token) -> bool:
    """Tell whether every character of ``inner`` is one of ``outer``."""
    if outer.chars is None:
        return True
    if inner.chars is None:
        return False
    if outer.negated:
        return outer.chars <= inner.chars if inner.negated else not (outer.chars & inner.chars)
    return not inner.negated and inner.chars <= outer.chars


def sample_word(text: str, number: int) -> str:
    """Return a word that ``text`` matches; other numbers give other words, as far as there are."""
    return sample_tokens(simple_word(text), number)


def sample_tokens(word: Word, number: int) -> str:
    """Return a word that the tokens match; not the empty one."""
    many, one = _SAMPLES[number % len(_SAMPLES)]
    text = "".join(many if token.many else _character(token, one) for token in word)
    return text or "w"


def _character(token: Token, one: str) -> str:
    if token.chars is None:
        return one
    chars = token.chars
    if token.negated:
        others = f"{one}wxyz0123456789_-abcé"
        return next(character for character in others if character not in chars)
    return min(chars)


@lru_cache(maxsize=4096)
def glob_words(text: str) -> tuple[Word, ...] | None:
    """Read one name of a path pattern (checked before), braces written out.

    None where there are too many alternatives.
    """
    words, _ = _sequence(text, 0, inside=False)
    return None if words is None else tuple(words)


def _sequence(text: str, index: int, *, inside: bool) -> tuple[list[Word] | None, int]:
    words: list[Word] | None = [()]
    while index < len(text):
        character = text[index]
        if inside and character in ",}":
            break
        parts: Sequence[Word] | None
        if character == "{":
            parts, index = _braces(text, index + 1)
        elif character == "[":
            token, index = _class(text, index + 1)
            parts = [(token,)]
        elif character == "\\":
            parts, index = [(Token(frozenset(text[index + 1])),)], index + 2
        else:
            parts, index = [simple_word(character)], index + 1
        if words is None or parts is None or len(words) * len(parts) > _ALTERNATIVES_MAX:
            words = None
        else:
            words = [word + part for word in words for part in parts]
    return words, index


def _braces(text: str, index: int) -> tuple[list[Word] | None, int]:
    found: list[Word] | None = []
    while True:
        words, index = _sequence(text, index, inside=True)
        found = None if found is None or words is None else [*found, *words]
        index += 1
        if text[index - 1] == "}":
            return found, index


def _class(text: str, index: int) -> tuple[Token, int]:
    negated = text[index] in "!^"
    index += negated
    end = text.index("]", index + 1)
    body, at = text[index:end], 0
    chars: set[str] = set()
    while at < len(body):
        first = last = body[at]
        if at + 2 < len(body) and body[at + 1] == "-":
            last = body[at + 2]
            at += 2
        at += 1
        chars.update(map(chr, range(ord(first), ord(last) + 1)))
    return Token(frozenset(chars), negated=negated), end + 1

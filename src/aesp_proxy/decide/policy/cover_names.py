"""Does one path pattern or tool rule say all that another says? If not: a witness.

As with hosts: a yes is always right, a witness is confirmed by the index that decides.
Compared as lists that allow compare, with case.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import ToolIndex
from aesp_proxy.decide.policy.wild import (
    Word,
    covers_tokens,
    covers_word,
    glob_words,
    sample_tokens,
    sample_word,
)

_VARIANTS: Final = 3
_DEEP: Final = "**"


def glob_covers(outer: str, inner: str) -> bool:
    """Tell whether every path that the pattern ``inner`` matches is one of ``outer``."""
    outer, inner = unicodedata.normalize("NFC", outer), unicodedata.normalize("NFC", inner)
    if outer == inner:
        return True
    mine, theirs = glob_components(outer), glob_components(inner)
    states = _closed(mine, {0})
    for component in theirs:
        reached = set()
        for state in states:
            if state == len(mine):
                continue
            if mine[state] == _DEEP:
                reached.add(state)
            elif component != _DEEP and _name_covers(mine[state], component):
                reached.add(state + 1)
        states = _closed(mine, reached)
    return len(mine) in states


def _closed(components: Sequence[str], states: set[int]) -> set[int]:
    closed = set(states)
    for state in states:
        at = state
        while at < len(components) and components[at] == _DEEP:
            at += 1
            closed.add(at)
    return closed


def _name_covers(outer: str, inner: str) -> bool:
    if outer == inner:
        return True
    mine, theirs = glob_words(outer), glob_words(inner)
    if mine is None or theirs is None:
        return False
    return all(any(covers_tokens(one, word) for one in mine) for word in theirs)


def glob_components(pattern: str) -> list[str]:
    """Split a checked pattern: no slash stands in brackets or braces, one may be escaped."""
    parts, current, index = [], "", 0
    while index < len(pattern):
        step = 2 if pattern[index] == "\\" else 1
        if pattern[index] == "/":
            parts.append(current)
            current = ""
        else:
            current += pattern[index : index + step]
        index += step
    parts.append(current)
    return [part for part in parts if part]


class GlobCover:
    """A list of path patterns that others are compared with."""

    __slots__ = ("_index", "_outers", "_texts")

    def __init__(self, outers: Iterable[Sourced[str]]) -> None:
        self._outers = tuple(outers)
        self._texts = frozenset(outer.value for outer in self._outers)
        self._index = PathGlobs(self._outers, fold=False)

    def uncovered(self, inner: Sourced[str]) -> str | None:
        """Return a path that ``inner`` matches and the list does not; None when covered."""
        if inner.value in self._texts:
            return None
        paths = tuple(paths_of(inner.value))
        for path in paths:
            if self._index.find(path) is None:
                return path
        if any(glob_covers(outer, inner.value) for outer in self._texts):
            return None
        return paths[0]


def uncovered_path(inner: Sourced[str], outers: Sequence[Sourced[str]]) -> str | None:
    """Return a path that ``inner`` matches and none of ``outers`` does; None when covered."""
    return GlobCover(outers).uncovered(inner)


def paths_of(pattern: str) -> Iterator[str]:
    """Yield paths that a pattern matches, at least one."""
    components = glob_components(pattern)
    for number in range(_VARIANTS):
        deep = ("witness", "", "w/i")[number]
        names = [deep if name == _DEEP else _sample(name, number) for name in components]
        yield "/" + "/".join(name for name in names if name)


def _sample(name: str, number: int) -> str:
    words: tuple[Word, ...] | None = glob_words(name)
    if not words:
        return name
    return sample_tokens(words[number % len(words)], number)


def tool_covers(outer: str, inner: str) -> bool:
    """Tell whether every tool that the rule ``inner`` allows is one that ``outer`` allows.

    A rule without a slash does not cover one with it: a tool's own name may hold a slash.
    """
    if outer in ("*", inner):
        return True
    if inner == "*" or ("/" in outer) != ("/" in inner):
        return False
    if "?" in outer and not inner.isascii():
        return False  # a rule's ? is one byte
    return all(map(covers_word, outer.split("/"), inner.split("/")))


class ToolCover:
    """A list of tool rules that others are compared with."""

    __slots__ = ("_index", "_texts")

    def __init__(self, outers: Iterable[Sourced[str]]) -> None:
        self._index = ToolIndex(outers := tuple(outers), refuses=False)
        self._texts = frozenset(outer.value for outer in outers)

    def uncovered(self, inner: Sourced[str]) -> tuple[str, str] | None:
        """Return server and name of a tool that ``inner`` allows and the list does not."""
        if inner.value in self._texts:
            return None
        tools = tuple(tools_of(inner.value))
        for server, name in tools:
            if self._index.find(server, name) is None:
                return server, name
        if any(tool_covers(outer, inner.value) for outer in self._texts):
            return None
        return tools[0]


def uncovered_tool(inner: Sourced[str], outers: Sequence[Sourced[str]]) -> tuple[str, str] | None:
    """Return server and name of a tool that ``inner`` allows and none of ``outers``."""
    return ToolCover(outers).uncovered(inner)


def tools_of(rule: str) -> Iterator[tuple[str, str]]:
    """Yield server and name of tools that a rule allows, at least one."""
    server, slash, name = rule.rpartition("/")
    for number in range(_VARIANTS):
        tool = sample_word(name, number)
        if slash:
            yield sample_word(server, number), tool
            yield "", f"{sample_word(server, number)}/{tool}"
        else:
            yield "", tool
            yield "server", tool

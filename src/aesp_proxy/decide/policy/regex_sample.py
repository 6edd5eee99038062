"""A text that a regular expression of RE2 finds, for witnesses.

A plain reading of the syntax: alternatives, groups, classes, counts; the least text of
each. What it does not read gives None, and nobody takes a text for good that the expression
itself was not asked about.
"""

from __future__ import annotations

from typing import Final

_CLASSES: Final = {"d": "0", "w": "w", "s": " ", "D": "w", "W": "-", "S": "w"}
_EMPTY: Final = frozenset("AzbBQE")
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_NAMED: Final = {
    "alpha": "w", "digit": "0", "alnum": "w", "lower": "w", "upper": "W", "word": "w",
    "xdigit": "0", "space": " ", "punct": "-",
}  # fmt: skip
_COUNT_MAX: Final = 1_000
_TEXT_MAX: Final = 10_000
_FILLER: Final = "w0-W_. aA9/zbc1e"


def regex_sample(pattern: str) -> str | None:
    """Return a text that the expression is likely to find; None where it cannot be read."""
    try:
        reader = _Reader(pattern)
        text = reader.alternatives()
    except (IndexError, ValueError, RecursionError):
        return None
    return text if reader.at == len(pattern) and len(text) <= _TEXT_MAX else None


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0

    def _peek(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _next(self) -> str:
        self.at += 1
        return self._pattern[self.at - 1]

    def alternatives(self) -> str:
        """Read up to the end or a closing bracket; the first alternative that has a text."""
        found = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            found.append(self._sequence())
        return next((text for text in found if text), "")

    def _sequence(self) -> str:
        text = ""
        while self._peek() not in ("", "|", ")"):
            text += self._piece()
            if len(text) > _TEXT_MAX:
                raise ValueError
        return text

    def _piece(self) -> str:
        one = self._one()
        least = 1
        match self._peek():
            case "*" | "?":
                self.at += 1
                least = 0
            case "+":
                self.at += 1
            case "{" if self._pattern[self.at + 1 : self.at + 2].isdigit():
                end = self._pattern.index("}", self.at)
                least = int(self._pattern[self.at + 1 : end].partition(",")[0])
                self.at = end + 1
            case _:
                return one
        if self._peek() == "?":
            self.at += 1
        if least > _COUNT_MAX:
            raise ValueError
        return one * least

    def _one(self) -> str:
        character = self._next()
        match character:
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                return self._escaped()
            case ".":
                return "w"
            case "^" | "$":
                return ""
            case _:
                return character

    def _group(self) -> str:
        if self._peek() == "?":
            self.at += 1
            flags = ""
            while self._peek() not in (":", ")", "<", "P"):
                flags += self._next()
            if self._peek() == ")":
                self.at += 1
                return ""
            if self._peek() in ("P", "<"):
                self.at = self._pattern.index(">", self.at)
            self.at += 1
        text = self.alternatives()
        if self._next() != ")":
            raise ValueError
        return text

    def _escaped(self) -> str:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _EMPTY:
            return ""
        if character == "x":
            return self._hex()
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise ValueError
        return character

    def _hex(self) -> str:
        if self._peek() == "{":
            end = self._pattern.index("}", self.at)
            digits, self.at = self._pattern[self.at + 1 : end], end + 1
        else:
            digits, self.at = self._pattern[self.at : self.at + 2], self.at + 2
        return chr(int(digits, 16))

    def _class(self) -> str:
        negated = self._peek() == "^"
        self.at += negated
        members: list[tuple[str, str]] = []
        while not members or self._peek() != "]":
            members.append(self._member())
        self.at += 1
        if not negated:
            return members[0][0]
        return next(one for one in _FILLER if not any(a <= one <= b for a, b in members))

    def _member(self) -> tuple[str, str]:
        if self._pattern.startswith("[:", self.at):
            end = self._pattern.index(":]", self.at)
            name, self.at = self._pattern[self.at + 2 : end], end + 2
            return (_NAMED[name], _NAMED[name])
        character = self._next()
        first = self._escaped() if character == "\\" else character
        ranged = self._peek() == "-" and self._pattern[self.at + 1 : self.at + 2] not in ("", "]")
        if not ranged:
            return first, first
        self.at += 1
        character = self._next()
        return first, self._escaped() if character == "\\" else character

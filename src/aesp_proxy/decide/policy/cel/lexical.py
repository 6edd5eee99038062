"""The first look at an expression: limits and quotes, in one linear pass.

It runs before the grammar because the grammar's token for strings backtracks
exponentially over a string that is not closed, and because its tree is walked
recursively. After this pass every string is closed, brackets are closed and not nested
deeper than ``DEPTH_MAX``, and no chain of operators is longer than ``TOKENS_MAX``.
"""

from __future__ import annotations

from aesp_proxy.decide.policy.cel.errors import ExpressionError

CHARS_MAX = 16_384
DEPTH_MAX = 24
TOKENS_MAX = 2_000

_OPEN = "([{"
_CLOSE = {")": "(", "]": "[", "}": "{"}
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_SIGNS = frozenset("+-*/%!<>=&|?:.,")
_CONTROL_ALLOWED = "\t\n\r"


def look(text: str) -> None:
    """Raise ``ExpressionError`` for an expression that the grammar must not be given."""
    if not text.strip():
        raise ExpressionError("the expression is empty", remedy="write true for always")
    if len(text) > CHARS_MAX:
        raise ExpressionError(f"the expression is longer than {CHARS_MAX} characters")
    _Look(text).run()


class _Look:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[str] = []
        self._tokens = 0
        self._unary = 0

    def run(self) -> None:
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character in " \t\r\n":
                self._at += 1
            elif text.startswith("//", self._at):
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                self._token(character)
        if self._open:
            raise self._refused(f"'{self._open[-1]}' is not closed")

    def _token(self, character: str) -> None:
        self._tokens += 1
        if self._tokens > TOKENS_MAX:
            raise self._refused(f"more than {TOKENS_MAX} words and signs")
        self._unary = self._unary + 1 if character in "!-" else 0
        if self._unary > DEPTH_MAX:
            raise self._refused(f"more than {DEPTH_MAX} signs in a row")
        if character in "\"'":
            self._string(raw=False)
        elif character in _WORD:
            self._word()
        elif character in _OPEN:
            self._open.append(character)
            if len(self._open) > DEPTH_MAX:
                raise self._refused(f"nested deeper than {DEPTH_MAX} brackets")
            self._at += 1
        elif character in _CLOSE:
            if not self._open or self._open.pop() != _CLOSE[character]:
                raise self._refused(f"'{character}' closes nothing")
            self._at += 1
        elif character in _SIGNS:
            self._at += 1
        else:
            raise self._refused(f"the character {character!a} outside a string")

    def _word(self) -> None:
        begin = self._at
        text = self._text
        while self._at < len(text) and text[self._at] in _WORD:
            self._at += 1
        word = text[begin : self._at].lower()
        if text[self._at : self._at + 1] in ("'", '"') and word in ("r", "b", "br", "rb"):
            self._string(raw="r" in word)

    def _string(self, *, raw: bool) -> None:
        text, begin = self._text, self._at
        quote = text[begin]
        if text.startswith(quote * 3, begin):
            raise self._refused("a string in three quotes", remedy="write it in one line")
        at = begin + 1
        while True:
            character = text[at : at + 1]
            if character in ("", "\n", "\r"):
                raise self._refused("the string is not closed")
            if character == "\\":
                if raw and text[at + 1 : at + 2] == quote:
                    raise self._refused(
                        "a backslash before the end of a raw string",
                        remedy="the grammar reads it in two ways; write it without r",
                    )
                at += 1 if raw else 2
                continue
            if not character.isprintable() and character not in _CONTROL_ALLOWED:
                raise self._refused(f"the character {character!a} in a string")
            at += 1
            if character == quote:
                self._at = at
                return

    def _refused(self, why: str, remedy: str = "") -> ExpressionError:
        before = self._text[: self._at]
        line = before.count("\n") + 1
        column = self._at - (before.rfind("\n") + 1) + 1
        return ExpressionError(why, line=line, column=column, remedy=remedy)

"""Take from an expression the literals that every match must hold: what a view is opened for.

Rules:

- The answer is a set of literals of which every match holds at least one, or nothing.
  What is not understood breaks a run and is never guessed.
- Longer literals are better than shorter ones, few better than many; a literal is cut
  to ``LITERAL_CHARS_MAX``, since its first characters already make it rare.
- Input is what ``pattern`` has made: ASCII, groups and classes closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.secrets.rule import Rule

LITERAL_CHARS_MIN = 3
LITERAL_CHARS_MAX = 8
_SET_MAX = 24
_RUN_CHARS_MAX = 32
_CLASS_MAX = 4
_NOT_LITERAL = b"dDwWsSbBAz"
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"f": b"\f", b"a": b"\a"}

_Set = frozenset[bytes]
_EMPTY: _Set = frozenset((b"",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """One literal; ``any_case`` says that the letters may be of either case."""

    text: bytes
    any_case: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """What a part of an expression can be (``exact``, when few) and what it must hold."""

    exact: _Set | None
    holds: _Set | None


def literals_of(rule: Rule) -> tuple[Literal, ...]:
    """Return the literals that lead to ``rule``: from its regex, else its keywords, else none."""
    found = literals_in(rule.expression)
    if found:
        return found
    words = sorted({word for word in rule.keywords if len(word) >= LITERAL_CHARS_MIN})
    return tuple(Literal(text=word[:LITERAL_CHARS_MAX], any_case=True) for word in words)


def literals_in(expression: bytes) -> tuple[Literal, ...]:
    """Return the best set of literals of which every match holds one, empty when there is none."""
    part = _Walk(expression).branches()
    found = _better(part.holds, part.exact)
    if found is None or _score(found)[0] < LITERAL_CHARS_MIN:
        return ()
    any_case = b"(?i" in expression
    texts = {text.lower() if any_case else text for text in found}
    texts = {text for text in texts if not any(one in text for one in texts - {text})}
    cut = sorted({text[:LITERAL_CHARS_MAX] for text in texts})
    return tuple(Literal(text=text, any_case=any_case) for text in cut)


def distinct(rules: Iterable[Rule]) -> tuple[Literal, ...]:
    """Return the literals of all ``rules``, each once, in a fixed order."""
    found = {literal for rule in rules for literal in literals_of(rule)}
    return tuple(sorted(found, key=lambda one: (one.text, one.any_case)))


def _score(texts: _Set) -> tuple[int, int]:
    """Return how good a set is: its shortest literal, then how few there are."""
    return min(LITERAL_CHARS_MAX, *(len(text) for text in texts), LITERAL_CHARS_MAX), -len(texts)


def _better(one: _Set | None, two: _Set | None) -> _Set | None:
    if one is None or two is None:
        return two if one is None else one
    return one if _score(one) >= _score(two) else two


def _product(left: _Set, right: _Set) -> _Set | None:
    if len(left) * len(right) > _SET_MAX:
        return None
    made = frozenset(a + b for a in left for b in right)
    return made if max(map(len, made)) <= _RUN_CHARS_MAX else None


def _joined(parts: Sequence[_Part]) -> _Part:
    """Return what a sequence is: runs of exact parts are multiplied out."""
    whole: _Set | None = _EMPTY
    run = _EMPTY
    best: _Set | None = None
    for part in parts:
        if part.exact is None:
            best = _better(_better(best, run), part.holds)
            run, whole = _EMPTY, None
            continue
        longer = _product(run, part.exact)
        if longer is None:
            best = _better(best, run)
            longer, whole = part.exact, None
        run = longer
    return _Part(run if whole is not None else None, _better(best, run))


def _either(parts: Sequence[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    exact: set[bytes] | None = set()
    holds: set[bytes] | None = set()
    for part in parts:
        exact = None if exact is None or part.exact is None else exact | part.exact
        must = _better(part.holds, part.exact)
        holds = None if holds is None or must is None else holds | must
    return _Part(
        frozenset(exact) if exact is not None and len(exact) <= _SET_MAX else None,
        frozenset(holds) if holds else None,
    )


class _Walk:
    __slots__ = ("at", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def branches(self) -> _Part:
        found = [self._branch()]
        while self._peek() == b"|":
            self.at += 1
            found.append(self._branch())
        return _either(found)

    def _peek(self, count: int = 1) -> bytes:
        return self.text[self.at : self.at + count]

    def _branch(self) -> _Part:
        parts = []
        while self._peek() not in (b"", b"|", b")"):
            parts.append(self._counted(self._atom()))
        return _joined(parts)

    def _atom(self) -> _Part:
        char = self._peek()
        if char == b"(":
            return self._group()
        if char == b"[":
            return self._class()
        if char == b"\\":
            return self._escape()
        self.at += 1
        if char in (b"^", b"$"):
            return _Part(_EMPTY, None)
        return _Part(None, None) if char == b"." else _one(char)

    def _escape(self) -> _Part:
        kind = self._peek(2)[1:]
        if kind == b"x":
            value = bytes((int(self.text[self.at + 2 : self.at + 4], 16),))
            self.at += 4
            return _one(value)
        self.at += 2
        if kind in (b"b", b"B", b"A", b"z"):
            return _Part(_EMPTY, None)
        return _Part(None, None) if kind in _NOT_LITERAL else _one(_ESCAPES.get(kind, kind))

    def _group(self) -> _Part:
        self.at += 1
        if self._peek() == b"?":
            while self._peek() not in (b":", b")", b">", b""):
                self.at += 1
            if self._peek() == b")":  # flags for what follows: (?i)
                self.at += 1
                return _Part(_EMPTY, None)
            self.at += 1
        part = self.branches()
        self.at += 1
        return part

    def _class(self) -> _Part:
        """Read a class; a few plain characters are as many literals, all else is unknown."""
        start = self.at
        self.at += 1
        few: set[bytes] | None = set()
        while self._peek() not in (b"]", b""):
            if self._peek(2) == b"[:":
                end = self.text.find(b":]", self.at)
                self.at = len(self.text) if end < 0 else end + 2
                few = None
                continue
            char, length = self._peek(), 1
            if char == b"\\":
                kind = self._peek(2)[1:]
                length = 4 if kind == b"x" else 2
                plain = not kind.isalnum()
                few = few if plain else None
                char = kind
            elif char in (b"-", b"^") and self.at > start:
                few = None
            self.at += length
            if few is not None:
                few.add(char)
        self.at += 1
        if few is None or not 0 < len(few) <= _CLASS_MAX:
            return _Part(None, None)
        return _Part(frozenset(few), frozenset(few))

    def _counted(self, part: _Part) -> _Part:
        """Read what follows an atom: how often it stands."""
        char = self._peek()
        least, most = 1, 1
        if char == b"{":
            end = self.text.find(b"}", self.at)
            low, comma, high = self.text[self.at + 1 : max(end, 0)].partition(b",")
            if not (low or comma) or (low + high).strip(b"0123456789"):
                return part  # a brace that counts nothing is a literal
            self.at = end
            least = int(low or b"0")
            most = int(high) if high else (-1 if comma else least)
        elif char in (b"?", b"*", b"+"):
            least = 1 if char == b"+" else 0
            most = 1 if char == b"?" else -1
        else:
            return part
        self.at += 1
        if self._peek() in (b"?", b"+"):
            self.at += 1
        return _repeated(part, least, most)


def _one(char: bytes) -> _Part:
    text = frozenset((char,))
    return _Part(text, text)


def _repeated(part: _Part, least: int, most: int) -> _Part:
    if least == 0:
        exact = part.exact | _EMPTY if most == 1 and part.exact is not None else None
        return _Part(exact if exact is not None and len(exact) <= _SET_MAX else None, None)
    held = _better(part.holds, part.exact)
    if least == most and part.exact is not None:
        whole: _Set | None = _EMPTY
        for _ in range(least):
            whole = None if whole is None else _product(whole, part.exact)
        if whole is not None:
            return _Part(whole, whole)
    return _Part(None, held)

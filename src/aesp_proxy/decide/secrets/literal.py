"""Measure how long a literal an expression demands: what leads the engine to a match.

Rules:

- The answer is never too long: an optional part counts nothing, of branches the
  shortest counts, what is not understood breaks the run.
- Input is what ``pattern`` has made: ASCII, groups and classes closed.
"""

from __future__ import annotations

LED_CHARS_MIN = 3

_CLASSES = b"dDwWsSbBAz"


def literal_chars(expression: bytes) -> int:
    """Return the length of the longest run of literal characters that every match holds."""
    return _Walk(expression).branches()


class _Walk:
    __slots__ = ("at", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def branches(self) -> int:
        """Return the shortest of the branches up to the end or an unmatched ``)``."""
        shortest = self._branch()
        while self._peek() == b"|":
            self.at += 1
            shortest = min(shortest, self._branch())
        return shortest

    def _peek(self) -> bytes:
        return self.text[self.at : self.at + 1]

    def _branch(self) -> int:
        longest = run = 0
        while self._peek() not in (b"", b"|", b")"):
            length, literal = self._atom()
            optional, repeated = self._quantifier()
            if not literal:
                longest = max(longest, run, 0 if optional else length)
                run = 0
                continue
            longest = max(longest, run + (not optional))
            run = 0 if optional or repeated else run + 1
        return max(longest, run)

    def _atom(self) -> tuple[int, bool]:
        """Read one atom; return what it demands, and whether it is one literal character."""
        char = self._peek()
        if char == b"(":
            return self._group(), False
        if char == b"[":
            self._skip_class()
            return 0, False
        if char == b"\\":
            kind = self.text[self.at + 1 : self.at + 2]
            self.at += 4 if kind == b"x" else 2
            return 0, kind not in _CLASSES
        self.at += 1
        return 0, char not in (b".", b"^", b"$")

    def _group(self) -> int:
        self.at += 1
        if self._peek() == b"?":
            while self._peek() not in (b":", b")", b">", b""):
                self.at += 1
            if self._peek() == b")":  # flags for what follows: (?i)
                self.at += 1
                return 0
            self.at += 1
        length = self.branches()
        self.at += 1
        return length

    def _skip_class(self) -> None:
        self.at += 1
        while self._peek() not in (b"]", b""):
            if self.text[self.at : self.at + 2] == b"[:":
                end = self.text.find(b":]", self.at)
                self.at = len(self.text) if end < 0 else end + 2
            else:
                self.at += 2 if self._peek() == b"\\" else 1
        self.at += 1

    def _quantifier(self) -> tuple[bool, bool]:
        """Read what follows an atom; return whether it may be absent, and be repeated."""
        char = self._peek()
        least = b""
        if char == b"{":
            end = self.text.find(b"}", self.at)
            least, _, most = self.text[self.at + 1 : max(end, 0)].partition(b",")
            if not least.isdigit() or (most and not most.isdigit()):
                return False, False  # a brace that counts nothing is a literal
            self.at = end
        elif char not in (b"?", b"*", b"+"):
            return False, False
        self.at += 1
        if self._peek() == b"?":
            self.at += 1
        return char in (b"?", b"*") or (char == b"{" and least in (b"", b"0")), True

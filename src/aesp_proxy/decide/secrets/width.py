"""Measure how long a match of an expression can be: where to begin to look for it.

Rules:

- The answer is never too short: what has no bound, or is not understood, has none.
- Input is what ``pattern`` has made: ASCII, groups and classes closed.
"""

from __future__ import annotations

_NO_WIDTH = b"bBAz"


def bytes_max(expression: bytes) -> int | None:
    """Return the length in bytes of the longest match, None when there is no bound."""
    walk = _Walk(expression)
    width = walk.branches()
    return width if walk.at == len(expression) else None


class _Walk:
    __slots__ = ("at", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def branches(self) -> int | None:
        """Return the longest of the branches up to the end or an unmatched ``)``."""
        widths = [self._branch()]
        while self._peek() == b"|":
            self.at += 1
            widths.append(self._branch())
        known = [width for width in widths if width is not None]
        return max(known) if len(known) == len(widths) else None

    def _peek(self) -> bytes:
        return self.text[self.at : self.at + 1]

    def _branch(self) -> int | None:
        total: int | None = 0
        while self._peek() not in (b"", b"|", b")"):
            width = self._atom()
            times = self._times()
            if width == 0:
                continue
            if total is None or width is None or times is None:
                total = None
            else:
                total += width * times
        return total

    def _atom(self) -> int | None:
        char = self._peek()
        if char == b"(":
            return self._group()
        if char == b"[":
            self._skip_class()
            return 1
        if char == b"\\":
            kind = self.text[self.at + 1 : self.at + 2]
            self.at += 4 if kind == b"x" else 2
            return 0 if kind in _NO_WIDTH else 1
        self.at += 1
        return 0 if char in (b"^", b"$") else 1

    def _group(self) -> int | None:
        self.at += 1
        if self._peek() == b"?":
            while self._peek() not in (b":", b")", b">", b""):
                self.at += 1
            if self._peek() == b")":  # flags for what follows: (?i)
                self.at += 1
                return 0
            self.at += 1
        width = self.branches()
        self.at += 1
        return width

    def _skip_class(self) -> None:
        self.at += 1
        while self._peek() not in (b"]", b""):
            if self.text[self.at : self.at + 2] == b"[:":
                end = self.text.find(b":]", self.at)
                self.at = len(self.text) if end < 0 else end + 2
            else:
                self.at += 2 if self._peek() == b"\\" else 1
        self.at += 1

    def _times(self) -> int | None:
        """Read what follows an atom; return how often it can stand, None for any number."""
        char = self._peek()
        times: int | None = None if char in (b"*", b"+") else 1
        if char == b"{":
            end = self.text.find(b"}", self.at)
            least, comma, most = self.text[self.at + 1 : max(end, 0)].partition(b",")
            if not least.isdigit() or (most and not most.isdigit()):
                return 1  # a brace that counts nothing is a literal
            self.at = end
            times = int(most) if most else (None if comma else int(least))
        elif char not in (b"?", b"*", b"+"):
            return 1
        self.at += 1
        if self._peek() in (b"?", b"+"):
            self.at += 1
        return times

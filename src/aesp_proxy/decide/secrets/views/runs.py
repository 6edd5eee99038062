"""Follow long runs of letters that look like base64, base32 or hex, gate or no gate.

What is wrapped twice shows no form of a literal, and what is packed shows none at all. So
a run of ``RUN_BYTES_MIN`` characters that has the look of digits and not of words is
decoded from its first character on, and what it shows is looked at like any view; where it
begins like something packed, it is followed to its end.

Rules:

- A run is cut into pieces of ``PIECE_BYTES``, each with what stands before it, so a long
  one costs no memory. Only the alignment of its first character is tried, all four where
  it is short; gates know the others.
- Hexadecimal digests of the usual lengths are not looked into: lock files are full of them.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.secrets.codings import begins_as, has_zlib_head
from aesp_proxy.decide.secrets.views import radix
from aesp_proxy.decide.secrets.views.packed import KINDS, packed_kind

RUN_BYTES_MIN = 48
PIECE_BYTES = 16_384
_OVERLAP_BYTES = 1_536  # of digits: a multiple of all groups
_SHORT_BYTES = 160
_DIGESTS = frozenset((56, 64, 96, 128))
_KINDS_MIN = 12
"""Fewer different characters are a line that somebody drew."""

_IS_LETTER = bytes(
    int(chr(byte).isalnum() or byte in b"+/-_") if byte < 128 else 0 for byte in range(256)
)
_LETTERS = b"\1" * RUN_BYTES_MIN
_DECIMAL = b"0123456789"
_HEX_ANY = _DECIMAL + b"abcdefABCDEF"
_HEX = (_DECIMAL + b"abcdef", _DECIMAL + b"ABCDEF")
_HEAD_BYTES = 64
_NOT_BINARY = bytes(range(32, 127)) + b"\t\n\r"
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = _UPPER.lower()
_BASE32 = _UPPER + _LOWER + b"234567"
_HEAD_DIGITS = 256
PACKED_STARTS = (b"H4sI", b"KLUv", b"UEsD", b"Qlpo", b"/Td6", b"eJ", b"eN", b"eA", b"eF")
"""How base64 of what is packed begins."""


def run_view(run: bytes) -> str:
    """Return the view that reads a run which begins so, empty when it looks like none.

    Digits of a base are spread over its
    alphabet, which words, paths and names of programs are not.
    """
    head = run[:_HEAD_DIGITS]
    size = len(head)
    digits = size - len(head.translate(None, _DECIMAL))
    upper = size - len(head.translate(None, _UPPER))
    lower = size - len(head.translate(None, _LOWER))
    if 20 * digits < size or len(set(head)) < _KINDS_MIN:
        return ""
    if any(not head.translate(None, letters) for letters in _HEX):
        return "hex"
    if not (upper and lower):
        return "" if head.translate(None, _BASE32) else "base32"
    return "base64" if 6 * upper > size and 6 * lower > size and 2 * digits < size else ""


def _is_digest(run: bytes) -> bool:
    """Tell whether it is hexadecimal and no text: a digest never is."""
    if run.translate(None, _HEX_ANY):
        return False
    return bool(binascii.a2b_hex(run).translate(None, _NOT_BINARY))


def shown(view: str, text: bytes, *, short: bool) -> bytes:
    """Return what the digits of ``text`` say from the first on, of short ones at any alignment."""
    if view == "base64":
        return radix.base64_texts(text) if short else radix.base64_text(text)
    if view == "base32":
        return radix.base32_text(text)
    hexadecimal = len(text) - len(text.lstrip(_HEX_ANY))  # of a long run the head was looked at
    return binascii.a2b_hex(text[: hexadecimal & ~1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a run to look at: ``text`` begins at ``start``, new of it is ``fresh``.

    ``kind`` says as what the run is packed, empty when it is not or not known yet;
    ``is_first`` and ``is_last`` are where the run begins and ends.
    """

    view: str
    start: int
    text: bytes
    fresh: bytes
    short: bool
    is_first: bool
    is_last: bool


class Runs:
    """The runs of one stream. ``hold_from`` is where the one that is open is not yet looked at."""

    __slots__ = ("_done", "_start", "_view", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._start = 0
        self._done = 0
        self._view = ""

    @property
    def hold_from(self) -> int:
        """The offset of the first byte that still waits, when a run is open."""
        return max(self._start, self._done - _OVERLAP_BYTES)

    def pieces(
        self, buffer: bytes, base: int, low: int, high: int, *, is_last: bool
    ) -> Iterator[Piece]:
        """Yield what to look at in ``buffer``, which begins at ``base``, up to offset ``high``.

        Only runs that end after ``low`` are new. ``is_last``: nothing follows ``high``.
        """
        first = max(0, (self._done if self.is_open else low - RUN_BYTES_MIN) - base)
        letters = buffer[first : high - base].translate(_IS_LETTER)
        at = 0
        if self.is_open:
            at = _end(letters, 0)
            yield from self._follow(
                buffer, base, first + at, open_=at == len(letters) and not is_last
            )
        start = -1 if self._goes_on() else letters.find(_LETTERS, at)
        while start >= 0:
            end = _end(letters, start)
            is_whole = end < len(letters) or is_last
            digest = end - start in _DIGESTS and is_whole
            if digest and _is_digest(buffer[first + start : first + end]):
                start = letters.find(_LETTERS, end)
                continue
            if base + first + end > low:
                self._start = self._done = base + first + start
                self._view = ""
                self.is_open = True
                yield from self._follow(
                    buffer, base, first + end, open_=end == len(letters) and not is_last
                )
            start = -1 if self._goes_on() else letters.find(_LETTERS, end)

    def _goes_on(self) -> bool:
        return self.is_open

    def _follow(self, buffer: bytes, base: int, end: int, *, open_: bool) -> Iterator[Piece]:
        """Yield the pieces up to ``end``; those of an open run only when they are full."""
        while self.is_open:
            left = base + end - self._done
            if open_ and left < PIECE_BYTES:
                return
            size = min(left, PIECE_BYTES)
            if not self._view:
                head = buffer[self._start - base : end]
                self._view = run_view(head) or "none"
            is_first = self._done == self._start
            is_last = not open_ and size == left
            if self._view != "none" and size:
                start = max(self._start, self._done - _OVERLAP_BYTES)
                yield Piece(
                    view=self._view,
                    start=start,
                    text=buffer[start - base : self._done + size - base],
                    fresh=buffer[self._done - base : self._done + size - base],
                    short=is_first and is_last and size <= _SHORT_BYTES,
                    is_first=is_first,
                    is_last=is_last,
                )
            self._done += size
            self.is_open = not is_last


def _end(letters: bytes, start: int) -> int:
    end = letters.find(b"\0", start)
    return len(letters) if end < 0 else end


def together(runs: Sequence[bytes]) -> bytes:
    """Return what many short runs of base64 say, at every alignment, without telling them apart.

    Most are digests, of which none is worth a look; all are decoded in four calls.
    """
    return b"".join(
        radix.base64_text(b"".join(run[skip : len(run) - (len(run) - skip) % 4] for run in runs))
        for skip in range(4)
    )


def kinds_of(text: bytes, *, short: bool) -> tuple[str, ...]:
    """Return as what decoded text may be packed: by its first bytes, else what has no mark.

    What is plain text is packed as nothing; what is ``short`` and has no mark is a digest.
    """
    kind = packed_kind(text)
    if kind:
        return (kind,) if KINDS[kind].opens else ()
    head = text[:_HEAD_BYTES]
    if not head.translate(None, _NOT_BINARY):
        return ()
    if has_zlib_head(text):
        kinds: tuple[str, ...] = ("zlib",)
    else:
        kinds = () if short else ("br", "raw deflate")
    return tuple(kind for kind in kinds if begins_as(kind, head))

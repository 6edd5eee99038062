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

from aesp_proxy.decide.secrets import compiled
from aesp_proxy.decide.secrets.codings import begins_as, has_zlib_head
from aesp_proxy.decide.secrets.hyperscan_gates import even_run_traits, mixed_run_traits
from aesp_proxy.decide.secrets.views import radix, run_spans
from aesp_proxy.decide.secrets.views.packed import KINDS, packed_kind
from aesp_proxy.decide.secrets.views.text_forms import RUN_BYTES_MIN

PIECE_BYTES = 16_384
_OVERLAP_BYTES = 1_536  # of digits: a multiple of all groups
_SHORT_BYTES = 160
_FEW_BYTES = 4_096
"""Runs up to this size that are there as a whole are asked together what they hold."""
_PACKED_KINDS_MIN = 46
"""So many different digits stand in the head of what is packed; names hold fewer."""
_KINDS_MIN = 12
"""Fewer different characters are a line that somebody drew."""

LOOPS = run_spans if compiled.RUNS is None else compiled.RUNS
"""What finds runs, and bytes above 0x7f: compiled, or the same without."""

_DECIMAL = b"0123456789"
_HEX_ANY = _DECIMAL + b"abcdefABCDEF"
_HEX = (_DECIMAL + b"abcdef", _DECIMAL + b"ABCDEF")
_HEAD_BYTES = 64
_NOT_BINARY = bytes(range(32, 127)) + b"\t\n\r"
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = _UPPER.lower()
_BASE32 = _UPPER + _LOWER + b"234567"
HEAD_DIGITS = 256


def run_view(run: bytes) -> str:
    """Return the view that reads a run which begins so, empty when it looks like none.

    Digits of a base are spread over its
    alphabet, which words, paths and names of programs are not.
    """
    head = run[:HEAD_DIGITS]
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


def has_run(text: bytes) -> bool:
    """Tell whether a long run of letters and digits stands in a text."""
    return bool(LOOPS.spans(text, 0, 0, 0))


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

    def pieces(self, buffer: bytes, base: int, low: int, *, is_last: bool) -> Iterator[Piece]:
        """Yield what to look at in ``buffer``, which begins at offset ``base``.

        Only runs that end after ``low`` are new. ``is_last``: nothing follows.
        """
        at = max(0, (self._done if self.is_open else low - RUN_BYTES_MIN) - base)
        if self.is_open:
            at = LOOPS.end(buffer, at)
            yield from self._follow(buffer, base, at, open_=at == len(buffer) and not is_last)
        if self.is_open:
            return
        whole = len(buffer) + is_last  # what ends before it is there to its end
        spans: list[tuple[int, int]] = LOOPS.spans(buffer, at, low - base, whole)
        if not spans:
            return
        few = [span for span in spans if span[1] < whole and span[1] - span[0] <= _FEW_BYTES]
        for start, end in _worth(buffer, few) if few else ():
            yield _whole_piece(buffer[start:end], base + start)
        for start, end in spans if len(few) < len(spans) else ():
            if end < whole and end - start <= _FEW_BYTES:
                continue
            self._start = self._done = base + start
            self._view = ""
            self.is_open = True
            yield from self._follow(buffer, base, end, open_=end >= whole)

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


def _worth(text: bytes, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield those runs whose digits are those of text, or of what is packed.

    Most are digests and names in programs, of which none is; all are asked together first.
    """
    together = b"\n" + b"\n".join([text[start:end] for start, end in spans])
    seen: set[tuple[int, int]] = set()
    for traits in (mixed_run_traits(), even_run_traits()):
        if traits.first(together) >= 0:
            seen.update(span for span in spans if traits.first(b"\n" + text[slice(*span)]) >= 0)
    for span in spans:
        if span in seen or (
            span[1] - span[0] > _SHORT_BYTES
            and len(set(text[slice(*span)][:HEAD_DIGITS])) >= _PACKED_KINDS_MIN
        ):
            yield span


def is_worth(piece: Piece) -> bool:
    """Tell whether the digits of a piece may be those of text; in base64 they tell before."""
    if piece.view != "base64":
        return True
    return LOOPS.may_hold(piece.text) and mixed_run_traits().first(piece.text) >= 0


def _whole_piece(run: bytes, start: int) -> Piece:
    return Piece(
        view=run_view(run) or "base64",
        start=start,
        text=run,
        fresh=run,
        short=len(run) <= _SHORT_BYTES,
        is_first=True,
        is_last=True,
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

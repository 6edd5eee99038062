"""Inflate a body piece by piece, under caps, or say why it cannot be scanned.

Rules:

- Only what a receiver would certainly read the same way is inflated: gzip
  (RFC 1952, any number of members) and zlib-wrapped deflate (RFC 1950, RFC 9110
  section 8.4.1.2). Raw deflate, preset dictionaries and bytes after the end are refused.
- Output comes in pieces of at most ``PIECE_BYTES_MAX``; memory is constant.
- Output is capped in bytes and as a ratio to the input.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE_BYTES_MAX = 1 << 16
RATIO_FREE_BYTES = 1 << 20
"""The ratio is not asked for before this much has come out."""

_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def inflatable(encoding: str) -> bool:
    """Tell whether ``encoding`` (lower case) is one that ``Inflater`` takes."""
    return encoding in _WBITS


class Inflater:
    """One compressed stream. ``problem`` is empty, or why the stream cannot be scanned."""

    __slots__ = ("_bytes_max", "_inflate", "_ratio_max", "_wbits", "problem", "taken", "yielded")

    def __init__(self, encoding: str, *, bytes_max: int, ratio_max: int) -> None:
        self._wbits = _WBITS[encoding]
        self._bytes_max = bytes_max
        self._ratio_max = ratio_max
        self._inflate = zlib.decompressobj(self._wbits)
        self.problem = ""
        self.taken = 0
        self.yielded = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` inflates to; stops early when ``problem`` is set."""
        self.taken += len(data)
        full = False
        while (data or full) and not self.problem:
            if self._inflate.eof:
                self._next_member()
                continue
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES_MAX)
            except zlib.error:
                self.problem = "the compressed body is damaged"
                return
            ended = self._ended()
            data = self._inflate.unused_data if ended else self._inflate.unconsumed_tail
            # A full piece may have more behind it although all input is used up.
            full = len(piece) == PIECE_BYTES_MAX and not ended
            yield from self._count(piece)

    def finish(self) -> None:
        """Set ``problem`` when the stream ends in the middle."""
        if self.taken and not self._inflate.eof and not self.problem:
            self.problem = "the compressed body ends early"

    def _ended(self) -> bool:
        return self._inflate.eof

    def _next_member(self) -> None:
        if self._wbits == zlib.MAX_WBITS:
            self.problem = "there are bytes after the end of the compressed body"
            return
        self._inflate = zlib.decompressobj(self._wbits)

    def _count(self, piece: bytes) -> Iterator[bytes]:
        self.yielded += len(piece)
        if self.yielded > self._bytes_max:
            self.problem = "the compressed body inflates to more than may be scanned"
        elif self.yielded > max(RATIO_FREE_BYTES, self.taken * self._ratio_max):
            self.problem = "the compressed body inflates too much for its size"
        elif piece:
            yield piece

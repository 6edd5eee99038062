"""Undo one compression piece by piece: gzip, deflate, Brotli, Zstandard, bzip2, xz.

Rules:

- Output comes in pieces while it is asked for, so whoever counts can stop: no piece is
  larger than a few megabytes, whatever it is made of.
- A stream that is damaged raises ``DamagedError`` and nothing else, and before it does all
  is given that stands before the damage: many receivers take it (``zcat``, ``xz -dc``). Where
  that cannot be had any more, it is a ``LostError``.
- What a receiver could read in two ways is damaged here.

Sources: RFC 1950, 1951, 1952, 7932, 8878; RFC 9659 bounds the window of Zstandard.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import brotli
import zstandard

PIECE_BYTES_MAX = 1 << 16
_ZSTD_INPUT_BYTES = 256
"""A block of three bytes may become 128 KiB: so much input becomes at most 11 MiB."""
_ZSTD_WINDOW_BYTES = 8 << 20
_LZMA_BYTES_MAX = 64 << 20
_STORED_HEAD_BYTES = 5
_KEPT_BYTES = 1 << 18
"""So much of a stream is kept to be read once more where it turns out damaged."""


class DamagedError(Exception):
    """The bytes are not what they say they are."""


class LostError(DamagedError):
    """They are damaged so far inside that what stands right before it was not kept."""


class Decoder(Protocol):
    """One stream. Once it has ``ended``, ``unused`` is what came behind its end."""

    ended: bool
    unused: bytes

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take ``data`` and yield what it becomes; DamagedError."""
        ...


class Zlib:
    """RFC 1950, and with other ``wbits`` RFC 1951 and 1952."""

    def __init__(self, wbits: int = zlib.MAX_WBITS) -> None:
        self._inflate = zlib.decompressobj(wbits)
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take ``data`` and yield what it inflates to; DamagedError."""
        full = True
        while (data or full) and not self.ended:
            before = self._inflate.copy()
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES_MAX)
            except zlib.error as error:
                yield from _byte_by_byte(before.decompress, data)
                raise DamagedError from error
            self.ended = self._inflate.eof
            self.unused = self._inflate.unused_data
            data = self._inflate.unconsumed_tail
            # A full piece may have more behind it although all input is used up.
            full = len(piece) == PIECE_BYTES_MAX
            if piece:
                yield piece


def _byte_by_byte(decode: Callable[[bytes], bytes], data: bytes) -> Iterator[bytes]:
    """Yield what comes out before a damage that is in ``data``."""
    for at in range(len(data)):
        try:
            piece = decode(data[at : at + 1])
        except (zlib.error, zstandard.ZstdError, OSError, lzma.LZMAError, ValueError, EOFError):
            return
        if piece:
            yield piece


class _Kept:
    """The beginning of a stream whose decoder cannot be copied, to read it once more."""

    def __init__(self, decode: Callable[[], Callable[[bytes], bytes]]) -> None:
        self._decode = decode
        self._taken = bytearray()
        self._taken_bytes = 0
        self._given_bytes = 0

    def take(self, data: bytes) -> None:
        """Note what goes in."""
        self._taken_bytes += len(data)
        if self._taken_bytes <= _KEPT_BYTES:
            self._taken += data

    def given(self, piece: bytes) -> bytes:
        """Note what came out; return it."""
        self._given_bytes += len(piece)
        return piece

    def rest(self) -> Iterator[bytes]:
        """Yield what came out before a damage and was not given; LostError."""
        if self._taken_bytes > _KEPT_BYTES:
            raise LostError
        skip = self._given_bytes
        for piece in _byte_by_byte(self._decode(), bytes(self._taken)):
            if len(piece) > skip:
                yield piece[skip:]
            skip = max(0, skip - len(piece))


class _Deflate:
    """Deflate as RFC 9110 has it, in zlib's form, or raw as many send it.

    Both begin with the same bits only where a raw stream begins with a stored block
    that would also be a header of zlib: that is read in two ways, and damaged.
    """

    def __init__(self) -> None:
        self._head = b""
        self._decoder: Zlib | None = None
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._decoder is None:
            self._head += data
            if len(self._head) < _STORED_HEAD_BYTES:
                return
            data, self._head = self._head, b""
            self._decoder = Zlib(self._wbits(data))
        yield from self._decoder.pieces(data)
        self.ended, self.unused = self._decoder.ended, self._decoder.unused

    @staticmethod
    def _wbits(head: bytes) -> int:
        if not has_zlib_head(head):
            return -zlib.MAX_WBITS
        length = int.from_bytes(head[1:3], "little")
        if head[0] & 7 in (0, 1) and length ^ 0xFFFF == int.from_bytes(head[3:5], "little"):
            raise DamagedError
        return zlib.MAX_WBITS


def has_zlib_head(data: bytes) -> bool:
    """Tell whether ``data`` begins as RFC 1950 section 2.2 says, without a dictionary."""
    if len(data) < 2:
        return False
    method, flags = data[0], data[1]
    return (
        method & 0x0F == 8
        and method >> 4 <= 7
        and (method << 8 | flags) % 31 == 0
        and (not flags & 0x20)
    )


class _Brotli:
    def __init__(self) -> None:
        self._decoder = brotli.Decompressor()
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            piece = self._decoder.process(data, output_buffer_limit=PIECE_BYTES_MAX)
            while piece:
                yield piece
                if self._decoder.is_finished() or self._decoder.can_accept_more_data():
                    break
                piece = self._decoder.process(b"", output_buffer_limit=PIECE_BYTES_MAX)
        except brotli.error as error:
            raise DamagedError from error
        self.ended = self._decoder.is_finished()


class _Zstd:
    def __init__(self) -> None:
        limits = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._decoder = limits.decompressobj()
        self._kept = _Kept(lambda: limits.decompressobj().decompress)
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_INPUT_BYTES):
            some = data[at : at + _ZSTD_INPUT_BYTES]
            self._kept.take(some)
            try:
                piece = self._decoder.decompress(some)
            except zstandard.ZstdError as error:
                yield from self._kept.rest()
                raise DamagedError from error
            for start in range(0, len(piece), PIECE_BYTES_MAX):
                yield self._kept.given(piece[start : start + PIECE_BYTES_MAX])
            if self._decoder.eof:
                self.ended = True
                self.unused = self._decoder.unused_data + data[at + _ZSTD_INPUT_BYTES :]
                return


class _Library:
    """bzip2 and xz: the two of the standard library with the same shape."""

    def __init__(
        self, make: Callable[[], bz2.BZ2Decompressor] | Callable[[], lzma.LZMADecompressor]
    ) -> None:
        self._decoder = make()
        self._kept = _Kept(lambda: make().decompress)
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        self._kept.take(data)
        try:
            piece = self._decoder.decompress(data, PIECE_BYTES_MAX)
            while True:
                if piece:
                    yield self._kept.given(piece)
                if self._decoder.eof or (self._decoder.needs_input and not piece):
                    break
                piece = self._decoder.decompress(b"", PIECE_BYTES_MAX)
        except (OSError, lzma.LZMAError, ValueError, EOFError) as error:
            yield from self._kept.rest()
            raise DamagedError from error
        self.ended, self.unused = self._decoder.eof, self._decoder.unused_data


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: Zlib(16 + zlib.MAX_WBITS),
    "x-gzip": lambda: Zlib(16 + zlib.MAX_WBITS),
    "deflate": _Deflate,
    "zlib": lambda: Zlib(zlib.MAX_WBITS),
    "raw deflate": lambda: Zlib(-zlib.MAX_WBITS),
    "br": _Brotli,
    "zstd": _Zstd,
    "bzip2": lambda: _Library(bz2.BZ2Decompressor),
    "xz": lambda: _Library(lambda: lzma.LZMADecompressor(memlimit=_LZMA_BYTES_MAX)),
    "lzma": lambda: _Library(
        lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_BYTES_MAX)
    ),
}
"""By name: codings of HTTP, and what else is found packed."""


def begins_as(name: str, head: bytes) -> bool:
    """Tell whether ``head`` may be the beginning of such a stream."""
    if name == "raw deflate":
        return _begins_as_deflate(head)
    try:
        for _ in DECODERS[name]().pieces(head):
            return True
    except DamagedError:
        return False
    return True


def _begins_as_deflate(head: bytes) -> bool:
    """Tell it of RFC 1951: asked of all long runs of digits, of which most fail in a few bytes."""
    decode = zlib.decompressobj(-zlib.MAX_WBITS).decompress
    try:
        for at in range(len(head)):
            if decode(head[at : at + 1]):
                return True
    except zlib.error:
        return False
    return True


def inflates(head: bytes) -> bool:
    """Tell whether ``head`` may be the beginning of a stream of zlib: asked often, so at once."""
    try:
        zlib.decompressobj().decompress(head, PIECE_BYTES_MAX)
    except zlib.error:
        return False
    return True


SEVERAL = frozenset(("gzip", "x-gzip", "zstd", "bzip2", "xz"))
"""Where one stream may follow another: members, frames."""

HTTP_CODINGS = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd"))

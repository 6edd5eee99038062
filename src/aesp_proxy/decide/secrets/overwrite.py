"""Overwrite a secret in a body with stars: same length, and the format around it stays whole.

Rules:

- Length never changes, so Content-Length, chunks, frames and the lengths of gRPC and
  multipart stay true.
- What holds a format together is left: quotes, brackets, separators, white space, a
  backslash and what it escapes. A secret has few of them, and JSON and forms stay valid.
- An escape is overwritten whole or not at all (``%41``); so is a character of UTF-8.
- A number of JSON becomes another number: ones.
"""

from __future__ import annotations

from typing import Final

_STAR: Final = 0x2A
_ONE: Final = 0x31
_BACKSLASH: Final = 0x5C
_PERCENT: Final = 0x25
_KEPT: Final = frozenset(b'"\\{}[]:,&=<>\x7f') | frozenset(range(0x21))
_TOKEN: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-.~%!$*"
)
_DIGITS: Final = frozenset(b"0123456789")


def is_token(byte: int) -> bool:
    """Tell whether a byte may go on a token: what adjoins a secret belongs to it."""
    return byte in _TOKEN


def overwrite(data: bytearray, start: int, stop: int, *, json: bool = False) -> None:
    """Overwrite ``data[start:stop]`` in place; what stands before tells what must be left."""
    start, stop = _whole(data, start, stop)
    star = _ONE if json and _is_number(data, start, stop) else _STAR
    at = start
    while at < stop:
        escaped = _escape_bytes(data, at)
        if escaped:
            at += escaped
            continue
        if data[at] not in _KEPT:
            data[at] = star
        at += 1


def _whole(data: bytearray, start: int, stop: int) -> tuple[int, int]:
    """Move the ends so that no escape and no character is cut."""
    for back in (1, 2):
        if start >= back and data[start - back] == _PERCENT:
            start = min(stop, start - back + 3)
    while start > 0 and _is_continuation(data[start]):
        start -= 1
    while stop < len(data) and _is_continuation(data[stop]):
        stop += 1
    return start, stop


def _is_continuation(byte: int) -> bool:
    return byte & 0xC0 == 0x80


def _escape_bytes(data: bytearray, at: int) -> int:
    """Return how many bytes from ``at`` belong to an escape that begins before or at it."""
    if data[at] == _BACKSLASH:
        return 6 if data[at + 1 : at + 2] == b"u" else 2
    if at and data[at - 1] == _BACKSLASH:
        return 5 if data[at] == 0x75 else 1
    return 0


def _is_number(data: bytearray, start: int, stop: int) -> bool:
    """Tell whether a span is a number of JSON and not part of a string."""
    if not all(byte in _DIGITS for byte in data[start:stop]):
        return False
    before = bytes(data[max(0, start - 16) : start]).rstrip(b" \t\r\n")[-1:]
    return before in (b":", b"[", b",", b"")

"""Lay a request head out as one block to scan, and find the way back from an offset.

Rules:

- The block is the target, then ``name: value`` a line: a rule that wants a name
  near a value finds it.
- What a server would decode once is scanned decoded too: percent-encoding in the
  target (RFC 3986 section 2.1), base64 in ``Authorization: Basic`` (RFC 7617).
- What begins with a long segment (of a path, of a media type) stands there once more, as a
  line of its own.
- Nothing is mapped back unless something was found.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence

_BASIC = b"basic"
_PACKED_STARTS = (b"H4sI", b"KLUv", b"UEsD", b"Qlpo", b"/Td6", b"eJ", b"eN", b"eA", b"eF")
"""How base64 of what is packed begins."""
_PACKED_TWO = frozenset(start[:2].partition(b"/")[0] for start in _PACKED_STARTS)
"""How a segment begins in which it may begin; an empty one stands before what has a slash."""
_NEWLINE, _PERCENT = b"\n%"
"""As numbers: bytes that are asked for bytes first ask whether these are a number, at length."""
_SEGMENT_BYTES_MIN = 24
_SEGMENTS_BYTES_MAX = 4_096
_SEGMENTS_MAX = 8
_AUTHORIZATIONS = frozenset((b"authorization", b"proxy-authorization"))
_HEX = {
    bytes((high, low)): bytes((int(chr(high) + chr(low), 16),))
    for high in b"0123456789abcdefABCDEF"
    for low in b"0123456789abcdefABCDEF"
}


class Head:
    """Where in a head what was found in its block stands; ``origins`` are of the further lines."""

    __slots__ = ("_headers", "_lines", "_origins", "_target")

    def __init__(
        self,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        lines: list[bytes],
        origins: list[int],
    ) -> None:
        self._target = target
        self._headers = headers
        self._lines = lines
        self._origins = origins

    def place(self, offset: int) -> tuple[str, int]:
        """Return location and offset in it for an offset of the block."""
        for number, line in enumerate(self._lines):
            if offset <= len(line):
                return self._place(number, offset)
            offset -= len(line) + 1
        return "url", 0

    def _place(self, number: int, offset: int) -> tuple[str, int]:
        count = len(self._headers)
        if number > count:
            origin = self._origins[number - count - 1]
            if origin >= 0:
                return self.place(origin + offset)
            number = -1 - origin
            offset = 0 if number else encoded_offset(self._target, offset)
        elif number:
            offset = max(0, offset - len(self._headers[number - 1][0]) - 2)
        return ("url" if number == 0 else _header(self._headers[number - 1][0])), offset


def lay_out(
    target: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes, list[bytes], list[int]]:
    """Return the block of a head, its lines, and what those beyond target and fields come from.

    That is where in the block it begins, or below zero the number of the line that one is
    decoded from, less one. Every request pays for what is done here.
    """
    lines = [target, *map(b": ".join, headers)]
    origins: list[int] = []
    block = b"\n".join(lines)
    if block.lower().find(_BASIC) >= 0:
        _add_credentials(headers, lines, origins)
    if _PERCENT in target:
        lines.append(percent_decoded(target))
        origins.append(-1)
    parts = iter(block.split(b"/"))
    at = len(next(parts)) + 1
    begin = end = -1  # of the line in which a segment was found last
    for part in parts:
        if (part[:2] in _PACKED_TWO and block.startswith(_PACKED_STARTS, at)) or (
            len(part) >= _SEGMENT_BYTES_MIN and _NEWLINE not in part[:_SEGMENT_BYTES_MIN]
        ):
            if at > end:
                begin, end = block.rfind(b"\n", 0, at), block.find(b"\n", at)
                end = len(block) if end < 0 else end
            added = [] if len(origins) < _SEGMENTS_MAX else origins[-_SEGMENTS_MAX:]
            few = not added or added[0] <= begin
            for origin, stop in _segments(block, at, end, few=few):
                lines.append(block[origin:stop])
                origins.append(origin)
        at += len(part) + 1
    return (b"\n".join(lines) if origins else block), lines, origins


def _add_credentials(
    headers: Sequence[tuple[bytes, bytes]], lines: list[bytes], origins: list[int]
) -> None:
    """Add the credentials of ``Basic``, decoded."""
    for number, (name, value) in enumerate(headers, 1):
        if name.lower() not in _AUTHORIZATIONS:
            continue
        scheme, _, encoded = value.strip().partition(b" ")
        decoded = basic_decoded(encoded.strip()) if scheme.lower() == _BASIC else b""
        if decoded:
            lines.append(decoded)
            origins.append(-1 - number)


def _segments(block: bytes, at: int, end: int, *, few: bool) -> Iterator[tuple[int, int]]:
    """Yield what to take of the segment that begins there, in a line up to ``end``.

    A slash is a digit of base64, so without this an encoding behind one would be read from
    the first one on. Where there were ``few`` in the line, all of that behind it, too.
    """
    slash = block.find(b"/", at, end)
    stop = end if slash < 0 else slash
    if stop - at >= _SEGMENT_BYTES_MIN and (slash >= 0 or not few):
        yield at, stop
    if few:
        yield at, min(end, at + _SEGMENTS_BYTES_MAX)


def percent_decoded(target: bytes) -> bytes:
    """Return ``target`` with each valid ``%HH`` as its byte, decoded once."""
    if _PERCENT not in target:
        return target
    first, *rest = target.split(b"%")
    decoded = [first]
    for part in rest:
        byte = _HEX.get(part[:2])
        decoded.append(b"%" + part if byte is None else byte + part[2:])
    return b"".join(decoded)


def encoded_offset(target: bytes, offset: int) -> int:
    """Return where the byte at ``offset`` of the decoded target begins in ``target``."""
    at = 0
    for _ in range(offset):
        at += 3 if target[at : at + 1] == b"%" and target[at + 1 : at + 3] in _HEX else 1
    return at


def basic_decoded(encoded: bytes) -> bytes:
    """Return the credentials of ``Authorization: Basic``, empty when they are not base64.

    Lenient as servers are: missing padding and foreign characters are passed over.
    """
    try:
        return binascii.a2b_base64(encoded + b"==")
    except binascii.Error:
        return b""


def _header(name: bytes) -> str:
    return "header:" + name.decode("latin-1").lower()

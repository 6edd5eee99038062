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
from collections.abc import Sequence

_BASIC = b"basic"
_PACKED_STARTS = (b"H4sI", b"KLUv", b"UEsD", b"Qlpo", b"/Td6", b"eJ", b"eN", b"eA", b"eF")
"""How base64 of what is packed begins."""
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
    """One request head; ``block`` is what to scan."""

    __slots__ = ("_headers", "_lines", "_more", "_target", "block")

    def __init__(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._target = target
        self._headers = headers
        self._lines = [target, *map(b": ".join, headers)]
        # Of each further line: the number of the one it was taken from, and where in it it
        # begins; negative where it was decoded.
        self._more: list[tuple[int, int]] = []
        for number, (name, value) in enumerate(headers, 1):
            if len(name) >= 13 and name.lower() in _AUTHORIZATIONS:
                self._add_basic(number, value)
        if b"%" in target:
            self._lines.append(percent_decoded(target))
            self._more.append((0, -1))
        for number, line in enumerate(self._lines[: len(headers) + 1]):
            if len(line) > _SEGMENT_BYTES_MIN and b"/" in line:
                self._add_segments(number)
        self.block = b"\n".join(self._lines)

    def place(self, offset: int) -> tuple[str, int]:
        """Return location and offset in it for an offset of the block."""
        for number, line in enumerate(self._lines):
            if offset <= len(line):
                return self._place(number, offset)
            offset -= len(line) + 1
        return "url", 0

    def _add_basic(self, number: int, value: bytes) -> None:
        scheme, _, encoded = value.strip().partition(b" ")
        if scheme.lower() != _BASIC:
            return
        decoded = basic_decoded(encoded.strip())
        if decoded:
            self._more.append((number, -1))
            self._lines.append(decoded)

    def _add_segments(self, number: int) -> None:
        """Take from a line what begins with a long segment: there an encoding may begin.

        A slash is a digit of base64, so without this it would be read from the first one on.
        """
        line, count = self._lines[number], 0
        at = line.find(b"/") + 1
        while at and count < _SEGMENTS_MAX:
            end = line.find(b"/", at)
            is_long = (len(line) if end < 0 else end) - at >= _SEGMENT_BYTES_MIN
            parts = [line[at:end]] if is_long and end >= 0 else []
            if is_long or line.startswith(_PACKED_STARTS, at):
                parts.append(line[at : at + _SEGMENTS_BYTES_MAX])
            self._lines += parts
            self._more += [(number, at)] * len(parts)
            count += len(parts)
            at = end + 1

    def _place(self, number: int, offset: int) -> tuple[str, int]:
        count = len(self._headers)
        if number > count:
            number, begin = self._more[number - count - 1]
            if begin < 0:
                offset = 0 if number else encoded_offset(self._target, offset)
                return ("url" if number == 0 else _header(self._headers[number - 1][0])), offset
            offset += begin
        if number == 0:
            return "url", offset
        name = self._headers[number - 1][0]
        return _header(name), max(0, offset - len(name) - 2)


def percent_decoded(target: bytes) -> bytes:
    """Return ``target`` with each valid ``%HH`` as its byte, decoded once."""
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

"""Frames of HTTP/2 and WebSocket by hand, right and wrong."""

from __future__ import annotations

import os
import struct

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, MORE = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
ACK = 1


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return one HTTP/2 frame (RFC 9113 section 4.1)."""
    head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
    return head + struct.pack(">I", stream) + payload


def head(
    *extra: tuple[str, str], path: str = "/x", method: str = "GET", authority: str = "allowed.test"
) -> bytes:
    """Return the fields of a request, as HPACK has them."""
    fields = [(":method", method), (":scheme", "https"), (":authority", authority)]
    return coded([*fields, (":path", path), *extra])


def coded(fields: list[tuple[str, str]]) -> bytes:
    """Return fields as HPACK has them; each connection begins anew."""
    return bytes(hpack.Encoder().encode(fields))


def request(block: bytes, *, ends: bool = True, stream: int = 1) -> bytes:
    """Return the HEADERS frame of a request."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block)


def websocket_frame(
    payload: bytes, *, opcode: int = 1, fin: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    """Return one WebSocket frame (RFC 6455 section 5.2)."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    size = len(payload)
    if size < 126:
        length = bytes((size,))
    else:
        length = (
            b"\x7e" + struct.pack(">H", size)
            if size < 65_536
            else (b"\x7f" + struct.pack(">Q", size))
        )
    if not masked:
        return bytes((first,)) + length + payload
    key = os.urandom(4)
    hidden = bytes(value ^ key[at % 4] for at, value in enumerate(payload))
    return bytes((first, length[0] | 0x80)) + length[1:] + key + hidden

"""HTTP/1 message bodies: where a body ends, chunk framing taken off and put on.

The chunked reader is strict (RFC 9112 section 7.1): CRLF only, bounded sizes,
chunk extensions dropped, trailers bounded and parsed like header fields.
"""

from __future__ import annotations

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_head import Headers, parse_fields, require_crlf_lines

_HEX = b"0123456789abcdefABCDEF"
_SIZE_DIGITS_MAX = 15
_LINE_BYTES_MAX = 4_096
_TRAILER_BYTES_MAX = 16_384
_NEVER_TRAILERS = frozenset(
    b"host content-length transfer-encoding connection keep-alive upgrade te trailer expect"
    b" authorization cookie set-cookie content-encoding content-type content-range range"
    b" max-forwards cache-control http2-settings x-http-method-override".split()
)


class LengthReader:
    """A body of known length in bytes."""

    def __init__(self, body_bytes: int) -> None:
        self._left = body_bytes
        self.done = body_bytes == 0
        self.trailers: Headers = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (body bytes, bytes that follow the body)."""
        if len(data) < self._left:
            self._left -= len(data)
            return data, b""
        body, rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return body, rest


class CloseReader:
    """A response body that ends with the connection."""

    done = False
    trailers: Headers = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (body bytes, nothing): all that comes is body."""
        return data, b""


class ChunkedReader:
    """A chunked body: framing off, extensions dropped, trailers kept apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0  # bytes of the current chunk still to come
        self._ends_chunk = False  # a CRLF is due before the next size line
        self._in_trailers = False
        self.done = False
        self.trailers: Headers = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (body bytes decoded so far, bytes that follow the message).

        Raises ``InputError`` at the first byte that is not strict framing.
        """
        buffer = self._buffer
        if len(data) < self._left and not buffer:  # inside a chunk: nothing to copy
            self._left -= len(data)
            return data, b""
        buffer += data
        body = bytearray()
        while buffer and not self.done:
            if self._left:
                take = buffer[: self._left]
                body += take
                self._left -= len(take)
                del buffer[: len(take)]
                self._ends_chunk = self._left == 0
            elif self._in_trailers:
                if not self._read_trailers():
                    break
            elif not self._read_size_line():
                break
        rest = bytes(buffer) if self.done else b""
        if self.done:
            buffer.clear()
        return bytes(body), rest

    def _read_size_line(self) -> bool:
        buffer = self._buffer
        if self._ends_chunk:
            if len(buffer) < 2:
                _expect_crlf_prefix(buffer)
                return False
            if buffer[:2] != b"\r\n":
                msg = "a chunk does not end with CR LF"
                raise InputError(msg)
            del buffer[:2]
            self._ends_chunk = False
        end = buffer.find(b"\n", 0, _LINE_BYTES_MAX)
        if end < 0:
            if len(buffer) >= _LINE_BYTES_MAX:
                msg = f"a chunk-size line over {_LINE_BYTES_MAX} bytes"
                raise InputError(msg)
            return False
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._left = _chunk_size(line)
        self._in_trailers = self._left == 0
        return True

    def _read_trailers(self) -> bool:
        buffer = self._buffer
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            self.done = True
            return True
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > _TRAILER_BYTES_MAX:
            if len(buffer) > _TRAILER_BYTES_MAX:
                msg = f"trailers over {_TRAILER_BYTES_MAX} bytes"
                raise InputError(msg)
            return False
        block = bytes(buffer[: end + 2])
        self.trailers = parse_trailers(block)
        del buffer[: end + 4]
        self.done = True
        return True


def parse_trailers(block: bytes) -> Headers:
    """Parse trailer fields, each ended by CRLF; names in lower case.

    Refused are those that mean nothing after a body, and much to whoever merges them with
    the head: framing, routing, authentication, controls, content (RFC 9110 section 6.5.1).
    Raises ``InputError``.
    """
    require_crlf_lines(block)
    trailers = parse_fields(block)
    if any(name in _NEVER_TRAILERS or name.startswith(b"proxy-") for name, _ in trailers):
        msg = "a trailer field that belongs in the head"
        raise InputError(msg)
    return trailers


def _expect_crlf_prefix(buffer: bytearray) -> None:
    if buffer and buffer != b"\r":
        msg = "a chunk does not end with CR LF"
        raise InputError(msg)


def _chunk_size(line: bytes) -> int:
    if not line.endswith(b"\r") or line.count(b"\r") != 1 or b"\0" in line:
        msg = "a chunk-size line does not end with CR LF"
        raise InputError(msg)
    digits = line[:-1].partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > _SIZE_DIGITS_MAX or digits.translate(None, _HEX):
        msg = "a chunk size is not a hexadecimal number"
        raise InputError(msg)
    return int(digits, 16)


def chunk(data: bytes) -> bytes:
    """Frame one chunk; empty data frames nothing (an empty chunk would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Headers) -> bytes:
    """End a chunked body, with trailer fields where there are any."""
    lines = b"".join(b"%b: %b\r\n" % field for field in trailers)
    return b"0\r\n" + lines + b"\r\n"


BodyReader = LengthReader | CloseReader | ChunkedReader


def body_reader(body_bytes: int | None) -> BodyReader:
    """Choose the reader for a head's ``body_bytes``: None chunked, -1 until close."""
    if body_bytes is None:
        return ChunkedReader()
    return CloseReader() if body_bytes < 0 else LengthReader(body_bytes)

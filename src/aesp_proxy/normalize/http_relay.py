"""One HTTP/1 response on its way to the client: what to forward, and where it ends.

Interim responses pass (RFC 9110 section 15.2), ``Alt-Svc`` does not (it would lead
the client to QUIC), and bytes after the end belong to nobody. Heads and chunks are written
in the one spelling that clients read alike: what one host answers must never be read as
another's answer on the same connection. Nothing is buffered but an incomplete head or trailer.
"""

from __future__ import annotations

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_body import (
    BodyReader,
    ChunkedReader,
    body_reader,
    chunk,
    last_chunk,
)
from aesp_proxy.normalize.http_head import (
    HeadLimits,
    ResponseHead,
    parse_response_head,
)
from aesp_proxy.normalize.http_rewrite import response_head

_SWITCHING = 101
_INTERIM_MAX = 100


class ResponseRelay:
    """Reads what an upstream answers to one request.

    ``begun`` is true once a byte of an answer has come, interim ones included; ``head`` is
    the final response's head once it is there; ``note`` is a field line that it is to get.
    ``body_bytes`` counts body bytes; ``done`` is true when the response is complete,
    ``surplus`` when bytes came after it.
    """

    def __init__(self, limits: HeadLimits, *, method: str, minor_version: int) -> None:
        self._limits = limits
        self._method = method
        self._interim = minor_version == 1
        self._interim_count = 0
        self._buffer = b""
        self._reader: BodyReader | None = None
        self.head: ResponseHead | None = None
        self.note = b""
        self.body_bytes = 0
        self.begun = False
        self.done = False
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes from upstream; return those that go to the client now.

        Raises ``InputError`` for an answer that cannot be read without doubt.
        """
        if self._reader is not None:
            return self._body(self._reader, data)
        self.begun = True
        self._buffer += data
        out, reader = b"", None
        while reader is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > self._limits.head_bytes_max:
                    raise InputError(f"a head over {self._limits.head_bytes_max} bytes")
                return out
            block, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            forwarded, reader = self._head(block)
            out += forwarded
        self._reader = reader
        rest, self._buffer = self._buffer, b""
        return out + self._body(reader, rest)

    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of this body."""
        return self.head is not None and self.head.body_bytes == -1

    def _head(self, block: bytes) -> tuple[bytes, BodyReader | None]:
        head = parse_response_head(block, self._limits, request_method=self._method)
        if head.status == _SWITCHING:
            raise InputError("101 without an upgrade having been asked for")
        if head.status < 200:
            self._interim_count += 1
            if self._interim_count > _INTERIM_MAX:
                raise InputError(f"more than {_INTERIM_MAX} interim responses")
            return (response_head(head) if self._interim else b""), None
        if head.body_bytes is None and not self._interim:
            raise InputError("chunks for a client of HTTP/1.0")
        self.head = head
        block = response_head(head)
        if self.note:
            status, _, fields = block.partition(b"\r\n")
            block = b"%b\r\n%b\r\n%b" % (status, self.note, fields)
        return block, body_reader(head.body_bytes)

    def _body(self, reader: BodyReader, data: bytes) -> bytes:
        body, rest = (b"", data) if reader.done else reader.feed(data)
        self.body_bytes += len(body)
        self.done = reader.done
        self.surplus = bool(rest)
        if isinstance(reader, ChunkedReader):
            return chunk(body) + (last_chunk(reader.trailers) if self.done else b"")
        return data[: len(data) - len(rest)] if rest else data

"""The first message of TLS, read for the name it asks for; strict, and nothing else of TLS.

Sources: RFC 8446 sections 4.1.2 and 5.1 (records and the message), RFC 6066 section 3
(server_name), RFC 9849 (ECH). A message may come in many segments and records. Twice the
same extension, two names, a name of another kind, bytes behind the message or behind a
list: what two servers could read differently is an ``InputError``.
"""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.errors import InputError

HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_RECORD_BYTES_MAX = 16_384
_HELLO_BYTES_MAX = 65_536
_RECORDS_MAX = 64
_SERVER_NAME = 0
# encrypted_client_hello, its drafts, and encrypted_server_name before it.
_ECH = frozenset((0xFE0D, 0xFE0C, 0xFE0B, 0xFE0A, 0xFE09, 0xFE08, 0xFFCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What is read: ``server_name`` as sent (empty for none), whether a name may be hidden."""

    server_name: str
    has_ech: bool


class HelloReader:
    """Takes the first bytes of a connection as they come."""

    def __init__(self) -> None:
        self._pending = b""
        self._message = bytearray()
        self._records = 0

    def feed(self, data: bytes) -> ClientHello | None:
        """Return the message once it is whole, None before; raises ``InputError``.

        What follows the record that ends it is not looked at.
        """
        self._pending += data
        while (record := self._next_record()) is not None:
            self._message += record
            end = self._length()
            if end is None or len(self._message) < end:
                continue
            if len(self._message) > end:
                raise InputError("bytes stand behind the ClientHello in its record")
            return _client_hello(bytes(self._message[4:]))
        return None

    def _next_record(self) -> bytes | None:
        head = self._pending[:5]
        if head and head[0] != HANDSHAKE:
            raise InputError("a TLS record that is no handshake stands before the ClientHello")
        if len(head) > 1 and head[1] != 3:
            raise InputError("the version of the TLS record is none")
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:])
        if not 0 < length <= _RECORD_BYTES_MAX:
            raise InputError("the length of the TLS record is not from 1 to 16384")
        if len(self._pending) < 5 + length:
            return None
        self._records += 1
        if self._records > _RECORDS_MAX:
            raise InputError(f"the ClientHello is in more than {_RECORDS_MAX} records")
        record, self._pending = self._pending[5 : 5 + length], self._pending[5 + length :]
        return record

    def _length(self) -> int | None:
        """Return the length of the message with its head, once that is there."""
        if self._message[0] != _CLIENT_HELLO:
            raise InputError("the first TLS message is no ClientHello")
        if len(self._message) < 4:
            return None
        length = 4 + int.from_bytes(self._message[1:4])
        if length > _HELLO_BYTES_MAX:
            raise InputError(f"the ClientHello is over {_HELLO_BYTES_MAX} bytes")
        return length


class _Reader:
    """Takes numbers and vectors from the front; ``InputError`` where they end too soon."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise InputError(f"{self._what} is cut short")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width))

    def vector(self, width: int, low: int, high: int) -> bytes:
        length = self.number(width)
        if not low <= length <= high:
            raise InputError(f"a list in {self._what} has a wrong length")
        return self.take(length)

    def end(self) -> None:
        if self:
            raise InputError(f"bytes stand behind {self._what}")


def _client_hello(body: bytes) -> ClientHello:
    reader = _Reader(body, "the ClientHello")
    reader.take(2 + 32)  # legacy_version, random
    reader.vector(1, 0, 32)  # legacy_session_id
    if len(reader.vector(2, 2, 65_534)) % 2:
        raise InputError("half a cipher suite in the ClientHello")
    reader.vector(1, 1, 255)  # legacy_compression_methods
    if not reader:  # no extensions at all (TLS 1.2 and before)
        return ClientHello(server_name="", has_ech=False)
    block = _Reader(reader.vector(2, 0, 65_535), "the extensions of the ClientHello")
    reader.end()
    seen: set[int] = set()
    server_name = ""
    while block:
        kind, value = block.number(2), block.vector(2, 0, 65_535)
        if kind in seen:
            raise InputError(f"the ClientHello has the extension {kind} twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            server_name = _server_name(value)
    return ClientHello(server_name=server_name, has_ech=not _ECH.isdisjoint(seen))


def _server_name(value: bytes) -> str:
    """Read the one name: a list of one entry, of the only kind there is."""
    outer = _Reader(value, "the server name")
    entries = _Reader(outer.vector(2, 1, 65_535), "the server name")
    outer.end()
    kind, name = entries.number(1), entries.vector(2, 1, 65_535)
    if kind != 0 or entries:
        raise InputError("the ClientHello names more than one server, or none that is a host")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise InputError("the server name is not ASCII") from None

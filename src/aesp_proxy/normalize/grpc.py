"""gRPC messages out of HTTP/2 data: whole, with their prefix, or an ``InputError``.

A message is a flag byte, a four-byte length and that many bytes (gRPC over HTTP/2,
"Length-Prefixed-Message"). It is handed on whole, so that it can be scanned before any
of it leaves and nothing of a finished message has to be held back: a call that waits
for its answer would stall.
"""

from __future__ import annotations

from aesp_proxy.errors import InputError

PREFIX_BYTES = 5
PLAIN, COMPRESSED = 0, 1


class MessageReader:
    """Collects messages of at most ``message_bytes_max`` bytes.

    ``may_be_compressed`` is whether whoever takes them can read what is.
    """

    def __init__(self, message_bytes_max: int, *, may_be_compressed: bool = False) -> None:
        self._bytes_max = message_bytes_max
        self._flags = (PLAIN, COMPRESSED) if may_be_compressed else (PLAIN,)
        self._buffer = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether no message is begun."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the messages that are now whole.

        Raises ``InputError`` for a message over the limit, and for a compressed one where
        what is inside could not be scanned.
        """
        self._buffer += data
        whole = []
        while len(self._buffer) >= PREFIX_BYTES:
            if self._buffer[0] not in self._flags:
                raise InputError("a compressed gRPC message cannot be scanned")
            end = PREFIX_BYTES + int.from_bytes(self._buffer[1:PREFIX_BYTES], "big")
            if end - PREFIX_BYTES > self._bytes_max:
                raise InputError(f"a gRPC message over {self._bytes_max} bytes")
            if len(self._buffer) < end:
                break
            whole.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
        return whole

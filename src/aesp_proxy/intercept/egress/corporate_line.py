"""The way to a corporate proxy, byte by byte until it leads on: over TCP, or TLS over it.

Not a byte more is read than belongs to the proxy's answers; what follows is the host's.
Where TLS has brought it along already, it is handed on as the first that the host said.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Protocol

from aesp_proxy.errors import UnavailableError

if TYPE_CHECKING:
    from aesp_proxy.intercept.egress.wire import Wire


class Line(Protocol):
    """What is said to the corporate proxy, and heard."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""

    async def receive(self, count: int) -> bytes:
        """Receive exactly ``count`` bytes; ``UnavailableError`` when there are no more."""

    async def hand_over(self, wire: Wire) -> asyncio.BaseTransport:
        """Give the connection to ``wire``: what comes from now on is the host's."""

    def abort(self) -> None:
        """Cut it."""


class TcpLine:
    """Speaks on the socket itself."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self, count: int) -> bytes:
        """Receive exactly ``count`` bytes."""
        data = b""
        while len(data) < count:
            more = await self._loop.sock_recv(self._sock, count - len(data))
            if not more:
                raise _closed()
            data += more
        return data

    async def hand_over(self, wire: Wire) -> asyncio.BaseTransport:
        """Make a transport of the socket."""
        transport, _ = await self._loop.create_connection(lambda: wire, sock=self._sock)
        return transport

    def abort(self) -> None:
        """Cut it."""
        self._sock.close()


class TlsLine(asyncio.Protocol):
    """Speaks through asyncio's TLS, and keeps what is not asked for yet."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._ended = False
        self._more = asyncio.Event()

    @classmethod
    async def open(cls, sock: socket.socket, context: ssl.SSLContext, name: str) -> TlsLine:
        """Shake hands with the proxy called ``name``; ``UnavailableError`` where it fails."""
        line = cls()
        try:
            await line._loop.create_connection(
                lambda: line, sock=sock, ssl=context, server_hostname=name
            )
        except ssl.SSLCertVerificationError as error:
            text = f"the corporate proxy's certificate does not convince: {error.verify_message}"
            raise UnavailableError(text) from error
        except ssl.SSLError as error:
            text = f"no TLS with the corporate proxy: {error.reason or 'the handshake failed'}"
            raise UnavailableError(text) from error
        except ConnectionError as error:
            raise UnavailableError("the corporate proxy closed in the TLS handshake") from error
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands (asyncio callback)."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Keep it until it is asked for (asyncio callback)."""
        self._data += data
        self._more.set()

    def eof_received(self) -> bool:
        """Nothing more comes (asyncio callback)."""
        self.connection_lost(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes (asyncio callback)."""
        del exc
        self._ended = True
        self._more.set()

    async def send(self, data: bytes) -> None:
        """Send all of ``data``: some hundred bytes, which no buffer is too small for."""
        if self._transport is not None:
            self._transport.write(data)

    async def receive(self, count: int) -> bytes:
        """Receive exactly ``count`` bytes."""
        while len(self._data) < count:
            if self._ended:
                raise _closed()
            self._more.clear()
            await self._more.wait()
        data, self._data = self._data[:count], self._data[count:]
        return data

    async def hand_over(self, wire: Wire) -> asyncio.BaseTransport:
        """Have ``wire`` called back from now on; what was kept comes first, once it listens."""
        transport = self._transport
        if transport is None or self._ended:
            raise _closed()
        transport.pause_reading()
        transport.set_protocol(wire)
        wire.connection_made(transport)
        self._loop.call_soon(self._speak_first, wire, transport)
        return transport

    def _speak_first(self, wire: Wire, transport: asyncio.Transport) -> None:
        if transport.is_closing():
            return
        if self._data:
            wire.data_received(self._data)
        if not wire.paused and not transport.is_closing():
            transport.resume_reading()

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()


def _closed() -> UnavailableError:
    return UnavailableError("the corporate proxy closed the connection without an answer")

"""The sockets that the agent's queries come to: UDP, and TCP with framing (RFC 7766).

They are given bound, by whoever made the agent's network. A wildcard socket is asked at
many addresses, so every datagram is answered from the address that it was sent to
(ip(7), IP_PKTINFO; RFC 3542 section 6): a client drops an answer from elsewhere.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.normalize.dns import QUERY_BYTES_MAX

if TYPE_CHECKING:
    from aesp_proxy.intercept.resolver.server import DnsInterceptor

_IP_PKTINFO: Final = 8  # linux/in.h; not in the socket module before 3.14
_IPV6_FREEBIND: Final = 78  # linux/in6.h
_INFO4: Final = Struct("=i4s4s")  # in_pktinfo: interface, local address, destination
_INFO6: Final = Struct("=16si")  # in6_pktinfo: address, interface
_CONTROL_BYTES: Final = 128
_DATAGRAMS_AT_ONCE: Final = 64
_LENGTH_BYTES: Final = 2

_Control = list[tuple[int, int, bytes]]


class DnsListeners:
    """All sockets of one interceptor."""

    def __init__(self, interceptor: DnsInterceptor) -> None:
        self._interceptor = interceptor
        self._udp: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    def serve_udp(self, sock: socket.socket) -> None:
        """Answer the queries that come to a bound UDP socket."""
        sock.setblocking(False)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            # Unlike IPv4, IPv6 does not take an address that is local only by its route.
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        asyncio.get_running_loop().add_reader(sock, self._readable, sock)
        self._udp.append(sock)

    async def serve_tcp(self, sock: socket.socket) -> None:
        """Answer the queries that come over connections to a bound TCP socket."""
        self._servers.append(await asyncio.start_server(self._converse, sock=sock))

    def stop(self) -> None:
        """Close the sockets and leave what is under way."""
        loop = asyncio.get_running_loop()
        for sock in self._udp:
            loop.remove_reader(sock)
            sock.close()
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()

    def _readable(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data, control, _flags, peer = sock.recvmsg(QUERY_BYTES_MAX + 1, _CONTROL_BYTES)
            except OSError:  # nothing more, or what an earlier answer met with
                return
            task = loop.create_task(self._reply(sock, data, _from_there(control), peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reply(self, sock: socket.socket, data: bytes, control: _Control, peer: Any) -> None:  # noqa: ANN401 - as the family has it
        told = await self._interceptor.answer(data, _plain(peer[0]), stream=False)
        if told:
            with suppress(OSError):  # the buffer is full or the client gone: it will ask again
                sock.sendmsg([told], control, 0, peer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= self._interceptor.limits.connections_max:
                await self._exchange(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # it has gone, or has been silent for too long
        finally:
            self._connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        idle_s = self._interceptor.limits.idle_s_max
        while True:
            async with asyncio.timeout(idle_s):
                length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
                data = await reader.readexactly(min(length, QUERY_BYTES_MAX + 1))
            told = await self._interceptor.answer(data, _plain(peer[0]), stream=True)
            if told:
                writer.write(len(told).to_bytes(_LENGTH_BYTES) + told)
                async with asyncio.timeout(idle_s):
                    await writer.drain()
            if not told or length > QUERY_BYTES_MAX:
                return


def _from_there(control: _Control) -> _Control:
    """Return the control message that makes an answer leave from where the query came to."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) == _INFO4.size:
            destination = _INFO4.unpack(data)[2]
            return [(level, kind, _INFO4.pack(0, destination, bytes(4)))]
        if (
            level == socket.IPPROTO_IPV6
            and kind == socket.IPV6_PKTINFO
            and len(data) == _INFO6.size
        ):
            destination, interface = _INFO6.unpack(data)
            here = interface if IPv6Address(destination).is_link_local else 0
            return [(level, kind, _INFO6.pack(destination, here))]
    return []


def _plain(text: str) -> str:
    """Return a peer's address without a zone, an IPv4 one as such."""
    address = ip_address(text.partition("%")[0])
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(inner or address)

"""Asks upstream resolvers: by UDP, over TCP where an answer was cut, one after the other.

Every query has a socket of its own (the kernel draws the port), a drawn id and drawn
letters' case; what does not have all three is not the answer and is waited past. A server
that answers with the wrong case only is asked again over TCP, which needs no guessing.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.model.host import parse_authority, parse_host
from aesp_proxy.normalize.dns import Rcode
from aesp_proxy.normalize.dns_answer import (
    Resolved,
    answers,
    is_truncated,
    rcode_of,
    read_answer,
    upstream_query,
)

PORT: Final = 53
_SERVERS_MAX: Final = 16
_WRONG_ANSWERS_MAX: Final = 64  # so many forged ones and the attempt is over
_CASE_BITS: Final = 253
_ANSWERED: Final = frozenset({Rcode.NOERROR, Rcode.NXDOMAIN})

Server = tuple[str, int]


class Upstreams:
    """Resolvers of the operator, by address and port.

    ``timeout_s`` is the longest wait for one answer, ``rounds`` how often each is asked.
    """

    def __init__(self, servers: Sequence[Server], *, timeout_s: float, rounds: int = 2) -> None:
        self._servers = tuple(servers[:_SERVERS_MAX])
        self._timeout_s = timeout_s
        self._rounds = rounds
        self._first = 0  # whoever answered last is asked first

    async def ask(self, name: str, record_type: int) -> Resolved:
        """Return what a canonical name has; ``UnavailableError`` where nobody says."""
        told = "neither resolver.upstreams nor resolv.conf names a resolver"
        for _ in range(self._rounds):
            for offset in range(len(self._servers)):
                at = (self._first + offset) % len(self._servers)
                try:
                    found = await self._ask_one(self._servers[at], name, record_type)
                except (OSError, TimeoutError, InputError, EOFError) as error:
                    told = _why(self._servers[at], error)
                    continue
                self._first = at
                return found
        raise UnavailableError(f"cannot resolve {name}: {told}")

    async def _ask_one(self, server: Server, name: str, record_type: int) -> Resolved:
        query = upstream_query(
            name,
            record_type,
            message_id=secrets.randbits(16),
            case_bits=secrets.randbits(_CASE_BITS),
        )
        async with asyncio.timeout(self._timeout_s):
            data = await _over_udp(server, query)
        if data is None or is_truncated(data):
            async with asyncio.timeout(self._timeout_s):
                data = await _over_tcp(server, query)
        code = rcode_of(data)
        if code not in _ANSWERED:
            word = Rcode(code).name if code in set(Rcode) else f"code {code}"
            raise InputError(f"it answers {word}")
        return read_answer(data, record_type)


class _Asking(asyncio.DatagramProtocol):
    """One query's socket: resolves ``answered`` with its answer, None for a wrong case."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self._wrong = 0
        self.answered: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - the protocol's
        if self.answered.done():
            return
        if answers(data, self._query, exact=True):
            self.answered.set_result(data)
        elif answers(data, self._query, exact=False):
            self.answered.set_result(None)
        else:
            self._wrong += 1
            if self._wrong > _WRONG_ANSWERS_MAX:
                self.answered.set_exception(InputError("it sends what was not asked for"))

    def error_received(self, exc: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or OSError("the socket was closed"))


async def _over_udp(server: Server, query: bytes) -> bytes | None:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(server)  # the kernel drops what comes from elsewhere
        transport, asking = await loop.create_datagram_endpoint(lambda: _Asking(query), sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        transport.sendto(query)
        return await asking.answered
    finally:
        asking.answered.cancel()
        transport.close()


async def _over_tcp(server: Server, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(query).to_bytes(2) + query)
        length = int.from_bytes(await reader.readexactly(2))
        data = await reader.readexactly(length)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if not answers(data, query, exact=False) or is_truncated(data):
        raise InputError("it sends what was not asked for")
    return data


def _why(server: Server, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        told = "timed out"
    elif isinstance(error, EOFError):
        told = "closed the connection"
    else:
        told = getattr(error, "strerror", None) or str(error)
    return f"{server[0]}: {told}"


def parse_servers(items: Iterable[str]) -> tuple[Server, ...]:
    """Read ``resolver.upstreams``: addresses, each with a port where it is not 53.

    Raises ``ConfigError`` naming the item.
    """
    return tuple(_parse_server(item) for item in items)


def _parse_server(item: str) -> Server:
    where = "resolver.upstreams"
    bare_ipv6 = item.count(":") > 1 and not item.startswith("[")
    try:
        if bare_ipv6 or ":" not in item.rpartition("]")[2]:
            host, port = parse_host(item), PORT
        else:
            host, port = parse_authority(item, None)
    except InputError as error:
        raise ConfigError(str(error), where=where) from error
    if host.address is None:
        raise ConfigError(f"{item!r} is not an address", where=where, remedy="ADDRESS[:PORT]")
    return host.name, port


def servers_of(resolv_conf: str) -> tuple[tuple[Server, ...], tuple[str, ...]]:
    """Read the servers and search domains of a ``resolv.conf`` (resolv.conf(5)).

    What cannot be read is left out, as the C library does.
    """
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    for line in resolv_conf.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                with suppress(ConfigError):
                    servers.append(_parse_server(address))
            case ["search" | "domain", *domains]:
                search = parse_search(domains)
            case _:
                continue
    return tuple(servers), search


def parse_search(domains: Iterable[str]) -> tuple[str, ...]:
    """Return search domains in canonical form; what is no host name is left out."""
    found = []
    for domain in domains:
        with suppress(InputError):
            host = parse_host(domain)
            if host.address is None:
                found.append(host.name)
    return tuple(found)

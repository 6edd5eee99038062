"""Connects upstream: resolve once, have the addresses checked, dial what was checked.

The client's idea of an address is never used (row 6 of the threat list); an
operator's static addresses are, and are not subject to the address rules,
because the operator named them. Every other address of an answer is checked
before any is dialled, so a name that resolves to one public and one private
address is refused (row 5). A corporate proxy resolves by itself: through it goes what the
policy allows by name, and an address only after it was checked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.model.host import Host, parse_authority, parse_host

if TYPE_CHECKING:
    from mitmproxy.connection import Server

    from aesp_proxy.act.denial import Denial
    from aesp_proxy.intercept.egress.conversation import Wire
    from aesp_proxy.intercept.egress.corporate import CorporateProxy
    from aesp_proxy.intercept.port import Address

Check = Callable[[Host, "tuple[Address, ...]"], "Denial | None"]
Lookup = Callable[[str], Awaitable["tuple[Address, ...]"]]
"""Gives all addresses of a canonical name; raises ``UnavailableError`` where it has none."""


class AddressRefusedError(UnavailableError):
    """The resolved address may not be dialled; the refusal has been recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticAddress:
    """Where an operator sends a name: an address, and a port unless it stays the same."""

    address: str
    port: int | None


def static_addresses(settings: Mapping[str, str]) -> dict[tuple[str, int | None], StaticAddress]:
    """Read ``upstream.resolve``: ``host`` or ``host:port`` to ``address`` or ``address:port``.

    Raises ``ConfigError`` naming the entry.
    """
    table = {}
    for name, value in settings.items():
        where = f"upstream.resolve.{name}"
        try:
            host, port = _with_optional_port(name)
            target, target_port = _with_optional_port(value)
        except Exception as error:
            raise ConfigError(str(error), where=where) from error
        if target.address is None:
            msg = f"{value!r} is not an address"
            raise ConfigError(msg, where=where, remedy="write ADDRESS or ADDRESS:PORT")
        table[host.name, port] = StaticAddress(address=target.name, port=target_port)
    return table


def _with_optional_port(text: str) -> tuple[Host, int | None]:
    bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
    if bare_ipv6 or ":" not in text.rpartition("]")[2]:
        return parse_host(f"[{text}]" if bare_ipv6 else text), None
    return parse_authority(text, None)


class Dialler:
    """Opens upstream sockets.

    ``check`` is asked with all resolved addresses of a name that has no static
    address; without a check nothing is dialled. ``lookup`` resolves; without one the
    machine's own resolver does.
    """

    def __init__(
        self,
        *,
        static: Mapping[tuple[str, int | None], StaticAddress],
        connect_s_max: float,
        lookup: Lookup | None = None,
        corporate: CorporateProxy | None = None,
    ) -> None:
        self._static = static
        self._connect_s_max = connect_s_max
        self._lookup = lookup
        self._corporate = corporate

    async def dial(self, server: Server, wire: Wire, check: Check | None) -> None:
        """Connect ``server``; raises ``UnavailableError`` (or its address refusal)."""
        if server.address is None:
            msg = "no upstream address"
            raise UnavailableError(msg)
        name, port = server.address[0], server.address[1]
        host = parse_host(_bracketed(name))
        static = self._static.get((host.name, port)) or self._static.get((host.name, None))
        if static is not None:
            target = _Target(text=f"{name} port {port}")
            candidates = [(static.address, static.port or port)]
        elif self._corporate is not None and self._corporate.leads_to(host, port):
            if host.address is not None:
                _checked(host, (host.address,), check)
            target = _Target(text="the corporate proxy", host=host, port=port, by=self._corporate)
            near = self._corporate
            candidates = [(str(a), near.port) for a in await self._addresses(near.host, near.port)]
        else:
            target = _Target(text=f"{name} port {port}")
            addresses = await self._addresses(host, port)
            _checked(host, addresses, check)
            candidates = [(str(address), port) for address in addresses]
        transport = await self._first(candidates, target, wire)
        server.peername = transport.get_extra_info("peername")
        server.sockname = transport.get_extra_info("sockname")

    async def _first(
        self, candidates: list[tuple[str, int]], target: _Target, wire: Wire
    ) -> asyncio.BaseTransport:
        last: Exception | None = None
        for address, port in candidates:
            try:
                return await self._connect(address, port, target, wire)
            except (OSError, TimeoutError) as error:
                last = error
        reason = "timed out" if isinstance(last, TimeoutError) else str(last)
        msg = f"cannot connect to {target.text}: {reason}"
        raise UnavailableError(msg) from last

    async def _connect(
        self, address: str, port: int, target: _Target, wire: Wire
    ) -> asyncio.BaseTransport:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # proto must be TCP: with 0 asyncio does not set TCP_NODELAY (44 ms a response).
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._connect_s_max):
                await loop.sock_connect(sock, (address, port))
                if target.by is not None and target.host is not None:
                    await target.by.tunnel(sock, target.host, target.port)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await loop.create_connection(lambda: wire, sock=sock)
        except BaseException:
            sock.close()
            raise
        return transport

    async def _addresses(self, host: Host, port: int) -> tuple[Address, ...]:
        if host.address is not None:
            return (host.address,)
        if self._lookup is not None:
            return tuple(await self._lookup(host.name))
        return await _resolve(host, port)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Whom a connection is made to, as told in errors, and what the proxy leads it to."""

    text: str
    host: Host | None = None
    port: int = 0
    by: CorporateProxy | None = None


def _checked(host: Host, addresses: tuple[Address, ...], check: Check | None) -> None:
    if check is None:
        msg = "no address check is in place"
        raise UnavailableError(msg)
    denial = check(host, addresses)
    if denial is not None:
        raise AddressRefusedError(denial.decision.message)


async def _resolve(host: Host, port: int) -> tuple[Address, ...]:
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(
            host.name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except (OSError, UnicodeError) as error:
        msg = f"cannot resolve {host.name}: {error}"
        raise UnavailableError(msg) from error
    # A zone id (fe80::1%eth0) never leaves: such an address is link-local and refused.
    return tuple(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in infos))


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name

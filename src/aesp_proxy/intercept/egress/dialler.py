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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.intercept.egress.corporate_speech import NotReachedError
from aesp_proxy.intercept.egress.racing import Place, Racer
from aesp_proxy.model.host import Host, parse_authority, parse_host

if TYPE_CHECKING:
    from mitmproxy.connection import Server

    from aesp_proxy.act.denial import Denial
    from aesp_proxy.intercept.egress.corporate import CorporateProxy
    from aesp_proxy.intercept.egress.wire import Wire
    from aesp_proxy.intercept.port import Address

Check = Callable[[Host, "tuple[Address, ...]"], "Denial | None"]
_Connected = tuple[asyncio.BaseTransport, "Address | None"]
# A transport, and the address that was checked for it.
_ONWARD_MAX: Final = 4
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
        own: frozenset[tuple[Address, int]] = frozenset(),
    ) -> None:
        self._static = static
        self.connect_s_max = connect_s_max
        self._lookup = lookup
        self._corporate = corporate
        self._own = own
        self._racer = Racer()

    async def dial(self, server: Server, wire: Wire, check: Check | None) -> None:
        """Connect ``server``; raises ``UnavailableError`` (or its address refusal)."""
        if server.address is None:
            msg = "no upstream address"
            raise UnavailableError(msg)
        name, port = server.address[0], server.address[1]
        host = parse_host(_bracketed(name))
        route = await self._route(host, port, check)
        if any(self._is_own(*place) for place in route.places):
            # Whoever allows it, and the operator too: it would come back for ever.
            msg = f"{route.text} leads to the proxy itself"
            raise UnavailableError(msg)
        try:
            async with asyncio.timeout(self.connect_s_max):
                if route.by is None:
                    transport, address = await self._direct(route, wire)
                else:
                    transport, address = await self._led(route, route.by, port, wire)
        except (OSError, TimeoutError) as error:
            reason = "timed out" if isinstance(error, TimeoutError) else str(error)
            msg = f"cannot connect to {route.text}: {reason}"
            raise UnavailableError(msg) from error
        if address is not None:
            wire.vouched = host, address
        server.peername = transport.get_extra_info("peername")
        server.sockname = transport.get_extra_info("sockname")

    async def _route(self, host: Host, port: int, check: Check | None) -> _Route:
        """Find where to connect to; every address of it is the operator's or checked."""
        text = f"{host.name} port {port}"
        static = self._static.get((host.name, port)) or self._static.get((host.name, None))
        if static is not None:
            return _Route(text=text, places=[(static.address, static.port or port)])
        near = self._corporate
        if near is None or not near.leads_to(host, port):
            places = [(str(each), port) for each in await self._checked(host, port, check)]
            return _Route(text=text, places=places, is_checked=True)
        onward: Sequence[Host] = (host,)
        if host.address is not None or not near.resolves:
            checked = await self._checked(host, port, check)
            onward = [Host(str(address), address) for address in checked[:_ONWARD_MAX]]
        addresses = await self._addresses(near.host, near.port)
        places = [(str(address), near.port) for address in addresses]
        return _Route(text="the corporate proxy", places=places, onward=onward, by=near)

    def _is_own(self, address: str, port: int) -> bool:
        place = ip_address(address)
        if place.is_unspecified:  # the kernel takes it for loopback
            return any(port == each for _, each in self._own)
        return (place, port) in self._own

    async def _checked(self, host: Host, port: int, check: Check | None) -> tuple[Address, ...]:
        """Resolve a host and have all its addresses checked."""
        addresses = await self._addresses(host, port)
        if check is None:
            msg = "no address check is in place"
            raise UnavailableError(msg)
        denial = check(host, addresses)
        if denial is not None:
            raise AddressRefusedError(denial.decision.message)
        return addresses

    async def _addresses(self, host: Host, port: int) -> tuple[Address, ...]:
        if host.address is not None:
            return (host.address,)
        if self._lookup is not None:
            return tuple(await self._lookup(host.name))
        return await _resolve(host, port)

    async def _direct(self, route: _Route, wire: Wire) -> _Connected:
        sock = await self._racer.connect(route.places)
        try:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: wire, sock=sock)
        except BaseException:
            sock.close()
            raise
        return transport, _peer_of(transport) if route.is_checked else None

    async def _led(self, route: _Route, by: CorporateProxy, port: int, wire: Wire) -> _Connected:
        """Have it led to one address after another, until one is reached."""
        last = UnavailableError("there is no address to be led to")
        for host in route.onward:
            sock = await self._racer.connect(route.places)
            try:
                return await by.lead(sock, host, port, wire), host.address
            except NotReachedError as error:
                last = error
        raise last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """Where to connect to, as told in errors too, and what the corporate proxy leads to then.

    ``is_checked`` when the places are a host's own addresses, and were checked.
    """

    text: str
    places: Sequence[Place]
    is_checked: bool = False
    onward: Sequence[Host] = ()
    by: CorporateProxy | None = None


def _peer_of(transport: asyncio.BaseTransport) -> Address:
    return ip_address(str(transport.get_extra_info("peername")[0]).partition("%")[0])


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

"""Captured connections: the client meant an address, the host is found out here.

The destination is what the socket says (``getsockname``), or what it was before a packet
filter redirected it (``SO_ORIGINAL_DST``). Names come first: SNI, then Host, then what the
proxy's own resolver has answered with that address, where exactly one such name is allowed.
The address itself is never dialled for a name (row 6 of the threat list).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from mitmproxy.proxy.layer import CommandGenerator

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.opening import Layers, Opening
from aesp_proxy.intercept.port import Address
from aesp_proxy.model.host import Host, parse_host, unwrap_address
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http import Tunnel

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

NamesOf = Callable[[Address], tuple[str, ...]]
"""The names that the proxy's own resolver has answered with an address of late."""

# linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h; Python names neither.
_SO_ORIGINAL_DST: Final = 80
_SOCKADDR_IN_BYTES: Final = 16
_SOCKADDR_IN6_BYTES: Final = 28


def original_destination(descriptor: int) -> tuple[Address, int]:
    """Return where an accepted connection was meant to go: address and port.

    Raises ``OSError`` when the socket is gone.
    """
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        name = sock.getsockname()
        address, port = ip_address(name[0].partition("%")[0]), int(name[1])
        redirected = _redirected(sock)
    address, port = redirected if redirected is not None else (address, port)
    return unwrap_address(address), port


def _redirected(sock: socket.socket) -> tuple[Address, int] | None:
    """Ask netfilter; None where nothing was redirected or nothing is tracked."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN_BYTES)
    except OSError:
        raw = b""
    if len(raw) == _SOCKADDR_IN_BYTES:
        port, packed = struct.unpack_from("!2xH4s", raw)
        return IPv4Address(packed), port
    try:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6_BYTES)
    except OSError:
        return None
    port, packed = struct.unpack_from("!2xH4x16s", raw)
    return IPv6Address(packed), port


class Captured(Opening):
    """The first bytes of a captured connection."""

    def __init__(
        self,
        context: Context,
        conversation: Conversation,
        layers: Layers,
        destination: tuple[Address, int],
        names_of: NamesOf,
    ) -> None:
        address, port = destination
        super().__init__(context, conversation, layers, port)
        self._destination = Host(str(address), address)
        self._address = address
        self._names_of = names_of

    def _tls(self, new: bytes) -> CommandGenerator[None]:
        hello = self._hello.feed(new)
        if hello is None:
            return
        host = _named(hello.server_name) if hello.server_name else self._known_as(raw=False)
        if self._layers.is_sealed(host, self._port):
            yield from self._pass_through(host, hello)
            return
        conversation = self._conversation
        exchange = conversation.gate.connect(conversation.principal, host, self._port)
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial)
            return
        conversation.on_end.append(lambda: exchange.end(Ending()))
        self._watch_handshake(exchange)
        self.context.server.address = (host.name, self._port)
        tunnel = Tunnel(scheme="https", host=host, port=self._port)
        yield from self._become(self._layers.tls(conversation, tunnel), self._data)

    def _http1(self) -> CommandGenerator[None]:
        tunnel = Tunnel(scheme="http", host=self._known_as(raw=False), port=self._port, named=False)
        yield from self._become(self._layers.cleartext(self._conversation, tunnel), self._data)

    def _host_of_raw(self) -> Host:
        return self._known_as(raw=True)

    def _where(self) -> str:
        return f"{self._destination}:{self._port}"

    def _known_as(self, *, raw: bool) -> Host:
        """Return the one allowed name of the destination; where there is no such, the address.

        Where that would be refused too, its one name is told, for a refusal that says more.
        """
        known = set(map(parse_host, self._names_of(self._address)))
        allowed = {host for host in known if self._may_connect(host, raw=raw)}
        if len(allowed) == 1:
            return allowed.pop()
        if len(known) == 1 and not self._may_connect(self._destination, raw=raw):
            return known.pop()
        return self._destination

    def _may_connect(self, host: Host, *, raw: bool) -> bool:
        conversation = self._conversation
        return conversation.gate.may_connect(conversation.principal, host, self._port, raw=raw)


def _named(server_name: str) -> Host:
    host = parse_host(server_name)
    if host.address is not None:
        raise InputError("the server name is an address (RFC 6066 section 3)")
    return host

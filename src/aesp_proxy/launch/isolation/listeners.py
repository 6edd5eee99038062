"""The proxy's sockets in the agent's network namespace, made there and handed out.

A socket belongs to the namespace that it was made in, whoever accepts on it. So the
worker, which stays outside, is reached from inside, and nothing else is.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import Final, NamedTuple

from aesp_proxy.launch.isolation.netlink import families
from aesp_proxy.launch.isolation.redirect import redirect_every_port

EXPLICIT_PORT: Final = 3128
REDIRECT_PORT: Final = 3129
WHY_PORT: Final = 3131
# What is caught where the kernel has no packet rules. Ports that programs under
# development serve on (3000, 5000, 5432, 6379, 8000, 8080) are not taken from them:
# what goes there is refused by the kernel instead.
WELL_KNOWN_PORTS: Final = (22, 25, 80, 110, 143, 443, 465, 587, 853, 993, 995, 8443, 9418)
DNS_PORT: Final = 53
_BACKLOG: Final = 1024
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_WILDCARD: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - all is local


class Kind(StrEnum):
    """What a socket, or another descriptor that is handed out, is for."""

    EXPLICIT = "explicit"
    TRANSPARENT = "transparent"
    DNS_UDP = "dns-udp"
    DNS_TCP = "dns-tcp"
    WHY = "why"
    """Where the command asks why it was refused: not the proxy's."""
    FUSE = "fuse"
    """A session of the kernel's FUSE, already mounted: no socket."""
    NOTIFY = "notify"
    """A listener for system calls (seccomp_unotify(2)): no socket."""
    MEMORY = "memory"
    """Where to ask for the memory of the command's processes (``lending``): not the proxy's."""


NO_SOCKETS: Final = frozenset({Kind.FUSE, Kind.NOTIFY, Kind.MEMORY})


class Listener(NamedTuple):
    """One socket and what it is for."""

    kind: Kind
    socket: socket.socket


def explicit(host: str, port: int) -> Listener:
    """Make the socket that HTTPS_PROXY names."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listener(Kind.EXPLICIT, _tcp(family, host, port or EXPLICIT_PORT))


def why_port(explicit_port: int) -> int:
    """Return the port at which the command asks why it was refused."""
    return WHY_PORT if explicit_port != WHY_PORT else WHY_PORT + 1


def why(host: str, explicit_port: int) -> Listener:
    """Make the socket at which the command asks why it was refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listener(Kind.WHY, _tcp(family, host, why_port(explicit_port)))


def transparent(explicit_port: int) -> tuple[list[Listener], int]:
    """Make the sockets that catch what ignores the proxy, beside the explicit one.

    Returns them, and 0 if one rule brings every port to them, else the errno that stood
    against it, and then they are on well-known ports only.
    """
    catching = []
    port = REDIRECT_PORT if explicit_port != REDIRECT_PORT else REDIRECT_PORT + 1
    for family in families():
        try:
            sock = _tcp(family, _LOOPBACK[socket.AddressFamily(family)], port)
            catching.append(Listener(Kind.TRANSPARENT, sock))
            redirect_every_port(family, port)
        except OSError as error:
            for each in catching:
                each.socket.close()
            return _well_known(explicit_port), error.errno or 1
    return catching, 0


def _well_known(explicit_port: int) -> list[Listener]:
    return [
        Listener(Kind.TRANSPARENT, _tcp(family, _WILDCARD[socket.AddressFamily(family)], port))
        for family in families()
        for port in WELL_KNOWN_PORTS
        if port != explicit_port
    ]


def dns() -> list[Listener]:
    """Make the sockets that answer for every name server."""
    made = []
    for family in families():
        host = _WILDCARD[socket.AddressFamily(family)]
        made.append(Listener(Kind.DNS_UDP, _bound(family, socket.SOCK_DGRAM, host, DNS_PORT)))
        made.append(Listener(Kind.DNS_TCP, _tcp(family, host, DNS_PORT)))
    return made


def _tcp(family: int, host: str, port: int) -> socket.socket:
    sock = _bound(family, socket.SOCK_STREAM, host, port)
    sock.listen(_BACKLOG)
    return sock


def _bound(family: int, kind: int, host: str, port: int) -> socket.socket:
    # The protocol spelt out: asyncio sets TCP_NODELAY only on sockets whose proto says TCP.
    protocol = socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock

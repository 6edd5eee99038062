"""The listening sockets: bound before anything else runs, so that the ports are known and ours."""

from __future__ import annotations

import errno
import socket
from typing import Final

from aesp_proxy.daemon.config import Settings
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.address import host_port

_BACKLOG: Final = 1024
_LOOPBACKS: Final = ("127.0.0.1", "::1")

Given = tuple[str, socket.socket]
"""A socket for a worker, and the option by which it is told of it."""


def bind(settings: Settings) -> socket.socket:
    """Return the listening socket; ConfigError when the port is taken or not ours to take."""
    return _bound(settings.listen.host, settings.listen.port, shared=False)


def bind_shared(settings: Settings, count: int) -> tuple[socket.socket, ...]:
    """Return ``count`` sockets listening on one port; the kernel spreads connections over them.

    One alone does not share it: then nobody of our user can take connections from us.
    """
    if count == 1:
        return (bind(settings),)
    first = _bound(settings.listen.host, settings.listen.port, shared=True)
    port = first.getsockname()[1]
    more = (_bound(settings.listen.host, port, shared=True) for _ in range(count - 1))
    return (first, *more)


def bind_captured(settings: Settings, count: int) -> list[list[Given]]:
    """Return, for each of ``count`` workers, what captured connections and queries come to.

    Where the machine has no IPv6 there is nothing of it to capture. ConfigError when a
    port is taken.
    """
    chosen, shared = settings.capture, count > 1
    wanted = (
        ("--transparent-fd", socket.SOCK_STREAM, chosen.port, "capture.port"),
        ("--dns-tcp-fd", socket.SOCK_STREAM, chosen.dns_port, "capture.dns_port"),
        ("--dns-udp-fd", socket.SOCK_DGRAM, chosen.dns_port, "capture.dns_port"),
    )
    return [
        [
            (option, _bound(host, port, shared=shared, kind=kind, remedy=f"set {name}"))
            for host in _LOOPBACKS
            if _is_there(host)
            for option, kind, port, name in wanted
        ]
        for _ in range(count)
    ]


def queues_of(what: str, count: int) -> list[list[Given]]:
    """Return, for each of ``count`` workers, a queue of its own and the way to all others.

    ``what`` they tell each other: ``names`` (``shared_names``), ``pieces``
    (``shared_pieces``). One worker alone has nobody to tell.
    """
    if count == 1:
        return [[]]
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
    queues: list[list[Given]] = [[(f"--{what}-in-fd", inbox)] for inbox, _ in pairs]
    for place, (_, way) in enumerate(pairs):
        for other, queue in enumerate(queues):
            if other != place:
                queue.append((f"--{what}-out-fd", way.dup()))
        way.close()
    return queues


def _is_there(host: str) -> bool:
    """Whether this machine has a loopback address."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return False
        raise
    return True


def _bound(
    host: str,
    port: int,
    *,
    shared: bool,
    kind: int = socket.SOCK_STREAM,
    remedy: str = "give --listen HOST:PORT, port 0 for any free one",
) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP spelt out: asyncio sets TCP_NODELAY only on sockets whose proto says TCP.
    is_stream = kind == socket.SOCK_STREAM
    protocol = socket.IPPROTO_TCP if is_stream else socket.IPPROTO_UDP
    sock = socket.socket(family, kind, protocol)
    try:
        if port and is_stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        if is_stream:
            sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen: {error.strerror}", where=host_port(host, port), remedy=remedy
        ) from error
    return sock

"""The listening socket: bound before anything else runs, so that the port is known and ours."""

from __future__ import annotations

import socket
from typing import Final

from aesp_proxy.daemon.config import Settings
from aesp_proxy.errors import ConfigError

_BACKLOG: Final = 1024


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


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP spelt out: asyncio sets TCP_NODELAY only on sockets whose proto says TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen: {error.strerror}", where=f"{host}:{port}",
            remedy="give --listen HOST:PORT, port 0 for any free one",
        ) from error  # fmt: skip
    return listener

"""One upstream connection of the own HTTP/1 layer: TLS or plain, opened when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer
from OpenSSL import SSL

from aesp_proxy.intercept.egress.tls import UpstreamTls

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.normalize.http import Target


class Owner(Protocol):
    """Who reads what an upstream connection brings."""

    def upstream_opened(self, error: str | None) -> CommandGenerator[None]:
        """The connection stands, or why not."""

    def upstream_data(self, data: bytes) -> CommandGenerator[None]:
        """Plain bytes came."""

    def upstream_closed(self) -> CommandGenerator[None]:
        """The peer sent its last byte."""


class _Leaf(Layer):
    """The inner end of the connection: opens it, then hands everything to the owner."""

    def __init__(self, context: Context, owner: Owner) -> None:
        super().__init__(context)
        self._owner = owner

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            error = yield commands.OpenConnection(self.context.server)
            yield from self._owner.upstream_opened(error)
        elif isinstance(event, events.DataReceived):
            yield from self._owner.upstream_data(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._owner.upstream_closed()


class Upstream:
    """A connection to one (scheme, host, port)."""

    def __init__(self, context: Context, target: Target, owner: Owner) -> None:
        forked = context.fork()
        self.key = (target.scheme, target.host.name, target.port)
        self.server = Server(address=(target.host.name, target.port))
        forked.server = self.server
        self.opened = False
        self.exchanges = 0
        self._inside = False
        self.tls: UpstreamTls | None = None
        self._stack: Layer
        if target.scheme == "https":
            self.server.sni = target.host.name
            self.tls = UpstreamTls(forked, self.server)
            self.tls.child_layer = _Leaf(forked, owner)
            self._stack = self.tls
        else:
            self._stack = _Leaf(forked, owner)

    def open(self) -> CommandGenerator[None]:
        """Start connecting; the owner is told by ``upstream_opened``."""
        yield from self.handle(events.Start())

    def handle(self, event: events.Event) -> CommandGenerator[None]:
        """Run an event of this connection (or a completed command) through its layers."""
        self._inside = True
        try:
            yield from self._stack.handle_event(event)
        finally:
            self._inside = False

    def send(self, data: bytes) -> CommandGenerator[None]:
        """Send plain bytes. What the leaf yields, the TLS layer above it encrypts itself."""
        if self.tls is None or self._inside:
            yield commands.SendData(self.server, data)
        else:
            yield from self.tls.send_data(data)

    @property
    def ended_in_order(self) -> bool:
        """Whether TLS said that nothing follows (without TLS nothing could)."""
        return self.tls is None or bool(self.tls.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    @property
    def address(self) -> str:
        """The address that was dialled, as ADDRESS:PORT; empty before that."""
        return dialled_address(self.server)


def is_untrusted(error: str) -> bool:
    """Whether OpenSSL would not take the upstream's certificate (mitmproxy tells by text).

    An alert speaks of ours: the upstream wants a certificate, or another one.
    """
    return "ertificate" in error and " alert " not in error


def dialled_address(server: Server) -> str:
    """Give the address that was dialled, as ADDRESS:PORT; empty before that."""
    peer = server.peername
    if not peer:
        return ""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"

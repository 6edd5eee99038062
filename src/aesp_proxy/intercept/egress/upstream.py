"""One upstream connection of the own HTTP/1 layer: TLS or plain, opened when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer
from OpenSSL import SSL

from aesp_proxy.intercept.egress.tls import UpstreamTls
from aesp_proxy.model.address import host_port

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
        self.owner = owner

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            error = yield commands.OpenConnection(self.context.server)
            yield from self.owner.upstream_opened(error)
        elif isinstance(event, events.DataReceived):
            yield from self.owner.upstream_data(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self.owner.upstream_closed()


Key = tuple[str, str, int]
"""Scheme, host and port of a connection."""


def key_of(target: Target) -> Key:
    """Say which connection a request may go over."""
    return (target.scheme, target.host.name, target.port)


class Upstream:
    """A connection to one (scheme, host, port).

    ``is_clean`` is lost for ever with the first exchange after which another client's
    request must not follow; ``is_between`` is true when no exchange is under way.
    """

    def __init__(self, context: Context, target: Target, owner: Owner) -> None:
        forked = context.fork()
        forked.layers = []  # the client's layers, which it may outlive
        self.key = key_of(target)
        self.server = Server(address=(target.host.name, target.port))
        forked.server = self.server
        self.opened = False
        self.exchanges = 0
        self.is_clean = True
        self.is_between = False
        self._context = forked
        self._leaf = _Leaf(forked, owner)
        self._inside = False
        self.tls: UpstreamTls | None = None
        self._stack: Layer
        if target.scheme == "https":
            self.server.sni = target.host.name
            self.tls = UpstreamTls(forked, self.server)
            self.tls.child_layer = self._leaf
            self._stack = self.tls
        else:
            self._stack = self._leaf

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
        self.is_between = False
        if self.tls is None or self._inside:
            yield commands.SendData(self.server, data)
        else:
            yield from self.tls.send_data(data)

    def exchanged(self, *, keeps: bool, clean: bool) -> None:
        """Take note of an exchange that has ended: whether it keeps the connection, and clean."""
        self.exchanges += 1
        self.is_between = keeps
        self.is_clean = self.is_clean and clean

    def may_rest(self) -> bool:
        """Whether another client's request may follow, and nothing is left to be read."""
        left = self.tls.tls.pending() if self.tls is not None else 0
        return self.is_between and self.is_clean and not left

    def hand_to(self, owner: Owner, context: Context | None = None) -> None:
        """Give it to another owner, with the context of its client."""
        self._leaf.owner = owner
        if context is not None:
            self._context.client = context.client

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
    return host_port(peer[0], peer[1])

"""mitmproxy's HTTP layer with our streams and upstream clients in the place of its own.

HTTP/2 comes here, and HTTP/1 from a WebSocket upgrade on; ``stock`` decides each stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mitmproxy.proxy import events
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.layers.http import (
    HttpClient,
    HttpLayer,
    HTTPMode,
)
from mitmproxy.proxy.layers.http._http2 import Http2Server
from mitmproxy.proxy.layers.tls import ServerTLSLayer

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.pacing import Pacing
from aesp_proxy.intercept.egress.patience import Silence
from aesp_proxy.intercept.egress.stock import GuardedStream
from aesp_proxy.intercept.egress.stock_upstream import guarded
from aesp_proxy.intercept.egress.windows import PacedServer
from aesp_proxy.normalize.http import Tunnel
from aesp_proxy.normalize.http_head import HeadLimits

if TYPE_CHECKING:
    from mitmproxy.connection import Server
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation
    from aesp_proxy.intercept.egress.tls import UpstreamTls


class GuardedHttp(HttpLayer):
    """mitmproxy's HTTP layer with streams that ask the gate."""

    def __init__(
        self,
        context: Context,
        conversation: Conversation,
        tunnel: Tunnel,
        *,
        frame_bytes_max: int,
        limits: HeadLimits,
        remember: Callable[[Server, UpstreamTls], None],
    ) -> None:
        super().__init__(context, HTTPMode.transparent)
        self.conversation = conversation
        self.tunnel = tunnel
        self.frame_bytes_max = frame_bytes_max
        self.limits = limits
        self._remember = remember
        self.silence = ""
        self._pacing = Pacing(self, lambda conn, held: conversation.hold(conn, hold=held))
        self._fresh: dict[Server, UpstreamTls] = {}

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, Silence):
            self.silence = str(event)
            return
        if isinstance(event, events.ConnectionEvent) and event.connection not in self.connections:
            return  # of a connection that is over
        yield from super()._handle_event(event)
        yield from self._pacing.settle()

    def _damaged(self, what: str) -> None:
        """Record that the client broke HTTP/2; its connection is being cut."""
        error = InputError(f"the client broke the HTTP/2 protocol ({what}); the connection is cut")
        self.conversation.object_to(error, f"{self.tunnel.host}:{self.tunnel.port}")

    def event_to_child(self, child: Layer, event: events.Event) -> CommandGenerator[None]:
        """Pass an event on; a new upstream connection is given clients of our own."""
        if isinstance(event, events.Start) and isinstance(child, (HttpClient, ServerTLSLayer)):
            server = child.context.server
            tls, client = guarded(child, self.limits)
            if tls is not None:
                self._fresh[server] = tls
            self._pacing.add(client)
            self.connections[server] = child = tls or client
        elif isinstance(event, events.Start) and type(child) is Http2Server:
            self.connections[self.context.client] = child = PacedServer(
                child.context, self._damaged
            )
        return super().event_to_child(child, event)

    def answered(self, server: Server) -> None:
        """Have the TLS session kept of a connection that has carried its first response."""
        tls = self._fresh.pop(server, None)
        if tls is not None:
            self._remember(server, tls)

    def make_stream(self, stream_id: int) -> CommandGenerator[None]:
        """Open a guarded stream (called by the stock layer)."""
        stream = GuardedStream(self.context.fork(), stream_id, self)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())

"""The first bytes of a client: CONNECT decided here, then the layers of the tunnel.

Handling CONNECT at the edge takes three nested layers off every request, and
refuses before a certificate is made or a name is resolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.act.denial import Denial, http1_response
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.port import Exchange
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.host import Host, parse_authority
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http import Tunnel
from aesp_proxy.normalize.http_head import HeadLimits, HeadQueue, RequestHead, parse_request_head

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_TLS_HANDSHAKE = 0x16
_CONNECT = b"CONNECT "
_WHERE_BYTES_MAX = 200


class Layers(Protocol):
    """Makes the layers that may follow."""

    def plain(self, conversation: Conversation) -> Layer:
        """For absolute-form requests to the proxy itself."""

    def cleartext(self, conversation: Conversation, tunnel: Tunnel) -> Layer:
        """For HTTP inside a tunnel without TLS."""

    def tls(self, conversation: Conversation, tunnel: Tunnel) -> Layer:
        """For a tunnel whose first byte is a TLS handshake."""


class Edge(Layer):
    """Reads the first head of a client connection and chooses what follows."""

    def __init__(
        self, context: Context, conversation: Conversation, layers: Layers, limits: HeadLimits
    ) -> None:
        super().__init__(context)
        self._conversation = conversation
        self._layers = layers
        self._limits = limits
        self._queue = HeadQueue(limits)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            self._queue.data += event.data
            yield from self._read()
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _read(self) -> CommandGenerator[None]:
        data = self._queue.data
        is_connect = data.startswith(_CONNECT)
        if not is_connect and not _CONNECT.startswith(data):
            yield from self._become(self._layers.plain(self._conversation), data)
            return
        try:
            block = self._queue.take() if is_connect else None
            self._conversation.await_head(waiting=block is None)
            if block is not None:
                yield from self._connect(parse_request_head(block, self._limits))
        except InputError as error:
            where = data[:_WHERE_BYTES_MAX].split(b"\n")[0].decode("ascii", "replace").strip()
            yield from self._refuse(self._conversation.object_to(error, where))

    def _connect(self, head: RequestHead) -> CommandGenerator[None]:
        conversation = self._conversation
        host, port = _connect_target(head)
        exchange = conversation.gate.connect(conversation.principal, host, port)
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial)
            return
        conversation.on_end.append(lambda: exchange.end(Ending(status=200)))
        self.context.server.address = (host.name, port)
        yield commands.SendData(self.context.client, _ESTABLISHED)
        tunnel = Tunnel(scheme="https", host=host, port=port)
        start = TunnelStart(self.context, conversation, self._layers, tunnel, exchange)
        yield from self._become(start, self._queue.data)

    def _refuse(self, denial: Denial) -> CommandGenerator[None]:
        yield commands.SendData(self.context.client, http1_response(denial, close=True))
        self._conversation.linger()

    def _become(self, layer: Layer, data: bytes) -> CommandGenerator[None]:
        self._conversation.layer = layer
        yield from layer.handle_event(events.Start())
        if data:
            yield from layer.handle_event(events.DataReceived(self.context.client, data))


def _connect_target(head: RequestHead) -> tuple[Host, int]:
    """Read the authority-form target (RFC 9112 section 3.2.3); the port must be there."""
    if head.body_bytes != 0:
        msg = "a CONNECT with a body"
        raise InputError(msg)
    return parse_authority(head.target, None)


class TunnelStart(Layer):
    """Tells TLS from plain HTTP by the first byte; everything else is refused as HTTP."""

    def __init__(
        self,
        context: Context,
        conversation: Conversation,
        layers: Layers,
        tunnel: Tunnel,
        exchange: Exchange,
    ) -> None:
        super().__init__(context)
        self._conversation = conversation
        self._layers = layers
        self._tunnel = tunnel
        self._exchange = exchange
        conversation.hooks["tls_failed_client"] = self._tls_failed

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.data:
            if event.data[0] == _TLS_HANDSHAKE:
                layer = self._layers.tls(self._conversation, self._tunnel)
            else:
                cleartext = Tunnel(scheme="http", host=self._tunnel.host, port=self._tunnel.port)
                layer = self._layers.cleartext(self._conversation, cleartext)
            self._conversation.layer = layer
            yield from layer.handle_event(events.Start())
            yield from layer.handle_event(event)
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _tls_failed(self, data: object) -> None:
        """The client would not have our certificate: pinned, or it does not trust the CA."""
        conn = getattr(data, "conn", None)
        detail = f"TLS with the agent failed: {getattr(conn, 'error', None)}"
        self._exchange.end(Ending(reason=Reason.CLIENT_GONE, status=200, detail=detail))

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
from aesp_proxy.normalize.http_head import HeadLimits, RequestHead, parse_request_head

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_TLS_HANDSHAKE = 0x16


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
        self._buffer = b""

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            self._buffer += event.data
            yield from self._read()
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _read(self) -> CommandGenerator[None]:
        buffer = self._buffer
        if len(buffer) < 8 and b"CONNECT ".startswith(buffer):
            self._conversation.head_since = self._conversation.active_at
            return
        if not buffer.startswith(b"CONNECT "):
            yield from self._become(self._layers.plain(self._conversation), buffer)
            return
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self._conversation.head_since = self._conversation.active_at
            if len(buffer) > self._limits.head_bytes_max:
                text = f"the CONNECT head is over {self._limits.head_bytes_max} bytes"
                yield from self._refuse(
                    self._conversation.gate.limited(self._conversation.principal, text, "")
                )
            elif b"\n\n" in buffer:
                error = InputError("the lines of the CONNECT head do not end with CR LF")
                yield from self._malformed(error, "")
            return
        self._conversation.head_since = None
        yield from self._connect(buffer[: end + 4], buffer[end + 4 :])

    def _connect(self, block: bytes, rest: bytes) -> CommandGenerator[None]:
        conversation = self._conversation
        target = ""
        try:
            head = parse_request_head(block, self._limits)
            target = head.target
            host, port = _connect_target(head)
        except InputError as error:
            yield from self._malformed(error, target)
            return
        exchange = conversation.gate.connect(conversation.principal, host, port)
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial)
            return
        conversation.on_end.append(lambda: exchange.end(Ending(status=200)))
        self.context.server.address = (host.name, port)
        yield commands.SendData(self.context.client, _ESTABLISHED)
        tunnel = Tunnel(scheme="https", host=host, port=port)
        yield from self._become(
            TunnelStart(self.context, conversation, self._layers, tunnel, exchange), rest
        )

    def _malformed(self, error: InputError, target: str) -> CommandGenerator[None]:
        gate = self._conversation.gate
        yield from self._refuse(gate.malformed(self._conversation.principal, error, target))

    def _refuse(self, denial: Denial) -> CommandGenerator[None]:
        self._conversation.head_since = None
        yield commands.SendData(self.context.client, http1_response(denial, close=True))
        self._conversation.linger()

    def _become(self, layer: Layer, data: bytes) -> CommandGenerator[None]:
        self._buffer = b""
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

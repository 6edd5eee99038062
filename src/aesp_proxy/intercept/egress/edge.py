"""The first bytes of a client of the proxy: CONNECT decided here, SOCKS told apart.

Handling CONNECT at the edge takes three nested layers off every request, and
refuses before a certificate is made or a name is resolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.act.denial import Denial, http1_response
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.opening import Layers
from aesp_proxy.intercept.egress.socks import Socks
from aesp_proxy.intercept.egress.tunnel import TunnelStart
from aesp_proxy.model.host import Host, parse_authority
from aesp_proxy.normalize.http_head import HeadLimits, HeadQueue, RequestHead, parse_request_head
from aesp_proxy.normalize.socks import SOCKS4, SOCKS5

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_OK = 200
_SOCKS = (SOCKS4, SOCKS5)
_CONNECT = b"CONNECT "
_WHERE_BYTES_MAX = 200


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
        if data[0] in _SOCKS:
            yield from self._become(Socks(self.context, self._conversation, self._layers), data)
            return
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
        if layer := self._layers.resolved(conversation, host, port):
            yield commands.SendData(self.context.client, _ESTABLISHED)
            yield from self._become(layer, self._queue.data)
            return
        exchange = conversation.gate.connect(conversation.principal, host, port)
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial)
            return
        yield commands.SendData(self.context.client, _ESTABLISHED)
        start = TunnelStart(
            self.context,
            conversation,
            self._layers,
            host=host,
            port=port,
            exchange=exchange,
            status=_OK,
        )
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

"""SOCKS5: a client names a host and port in a few bytes; then it is a tunnel like CONNECT's.

A reply says only that a request was refused, not why; the record does. SOCKS4, which may
name an address only or hide a name behind one, is rejected (threat rows 9 and 12).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.opening import Layers
from aesp_proxy.intercept.egress.tunnel import TunnelStart
from aesp_proxy.normalize import socks

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

_WHERE = "socks"


class Socks(Layer):
    """Reads greeting and request, answers each, and becomes the tunnel."""

    def __init__(self, context: Context, conversation: Conversation, layers: Layers) -> None:
        super().__init__(context)
        self._conversation = conversation
        self._layers = layers
        self._data = b""
        self._greeted = False
        self._over = False

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and not self._over:
            self._data += event.data
            yield from self._read()
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _read(self) -> CommandGenerator[None]:
        self._conversation.await_head(waiting=True)
        try:
            if self._data[0] == socks.SOCKS4 and not self._greeted:
                yield from self._unsupported("SOCKS4 is not spoken; use SOCKS5 with names")
                return
            if not self._greeted:
                yield from self._greet()
            if self._greeted and self._data:
                yield from self._request()
        except socks.UnsupportedSocksError as error:
            yield from self._unsupported(str(error), error.reply)
        except InputError as error:
            self._conversation.object_to(error, _WHERE)
            yield from self._close(socks.reply(socks.FAILED))

    def _greet(self) -> CommandGenerator[None]:
        length = socks.read_greeting(self._data)
        if length is not None:
            self._greeted, self._data = True, self._data[length:]
            yield commands.SendData(self.context.client, socks.METHOD_CHOSEN)

    def _request(self) -> CommandGenerator[None]:
        request = socks.read_request(self._data)
        if request is None:
            return
        conversation = self._conversation
        conversation.await_head(waiting=False)
        if layer := self._layers.resolved(conversation, request.host, request.port):
            yield from self._become(layer, self._data[request.length :])
            return
        exchange = conversation.gate.connect(conversation.principal, request.host, request.port)
        if exchange.denial is not None:
            yield from self._close(socks.reply(socks.REFUSED))
            return
        start = TunnelStart(
            self.context,
            conversation,
            self._layers,
            host=request.host,
            port=request.port,
            exchange=exchange,
            status=0,
        )
        yield from self._become(start, self._data[request.length :])

    def _become(self, layer: Layer, data: bytes) -> CommandGenerator[None]:
        yield commands.SendData(self.context.client, socks.reply(0))
        self._over = True
        self._conversation.layer = layer
        yield from layer.handle_event(events.Start())
        if data:
            yield from layer.handle_event(events.DataReceived(self.context.client, data))

    def _unsupported(self, text: str, code: int = socks.FAILED) -> CommandGenerator[None]:
        conversation = self._conversation
        conversation.gate.unsupported(conversation.principal, text, _WHERE)
        if self._data[0] == socks.SOCKS4 and not self._greeted:
            answer = socks.SOCKS4_REJECTED
        else:
            answer = socks.reply(code) if self._greeted else socks.NO_METHOD
        yield from self._close(answer)

    def _close(self, answer: bytes) -> CommandGenerator[None]:
        self._over = True
        self._conversation.await_head(waiting=False)
        yield commands.SendData(self.context.client, answer)
        self._conversation.linger()

"""A tunnel whose host the client has named, by CONNECT or SOCKS, from its first byte on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.proxy.layer import CommandGenerator

from aesp_proxy.intercept.egress.opening import Layers, Opening
from aesp_proxy.model.host import Host
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http import Tunnel

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation
    from aesp_proxy.intercept.port import Exchange


class TunnelStart(Opening):
    """What flows in a tunnel whose host the client has named, by CONNECT or SOCKS.

    ``status`` is what the client was answered: 200 for a CONNECT, 0 where there are none.
    """

    def __init__(
        self,
        context: Context,
        conversation: Conversation,
        layers: Layers,
        *,
        host: Host,
        port: int,
        exchange: Exchange,
        status: int,
    ) -> None:
        super().__init__(context, conversation, layers, port)
        self._host = host
        self._status = status
        conversation.on_end.append(lambda: exchange.end(Ending(status=status)))
        self.context.server.address = (host.name, port)
        self._watch_handshake(exchange)

    def _tls(self, new: bytes) -> CommandGenerator[None]:
        conversation = self._conversation
        if self._layers.is_sealed(self._host, self._port):
            hello = self._hello.feed(new)
            if hello is not None:
                yield from self._pass_through(self._host, hello)
            return
        tunnel = Tunnel(scheme="https", host=self._host, port=self._port)
        yield from self._become(self._layers.tls(conversation, tunnel), self._data)

    def _http1(self) -> CommandGenerator[None]:
        tunnel = Tunnel(scheme="http", host=self._host, port=self._port)
        yield from self._become(self._layers.cleartext(self._conversation, tunnel), self._data)

    def _host_of_raw(self) -> Host:
        return self._host

    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    def _answers_in_http(self) -> bool:
        return bool(self._status)

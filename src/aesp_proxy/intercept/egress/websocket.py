"""WebSocket messages, each scanned whole before it leaves; control frames too.

mitmproxy's layer keeps every message of a connection and lets control frames
pass unseen. This one keeps none, bounds a message in bytes, and scans pings,
pongs and close reasons of the agent like messages: they carry bytes out too.
Messages towards the agent pass as they come (RFC 6455).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wsproto.events
import wsproto.extensions
import wsproto.utilities
from mitmproxy.connection import ConnectionState as Tcp
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.layers.websocket import Fragmentizer, WebsocketConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from aesp_proxy.intercept.port import Exchange
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.record import Ending

if TYPE_CHECKING:
    from mitmproxy import http
    from mitmproxy.proxy.context import Context


class GuardedWebsocket(Layer):
    """Relays messages between the two ends of one WebSocket."""

    def __init__(
        self, context: Context, flow: http.HTTPFlow, exchange: Exchange, *, frame_bytes_max: int
    ) -> None:
        super().__init__(context)
        self._exchange = exchange
        self._bytes_max = frame_bytes_max
        self._bytes_out = 0
        self._bytes_in = 0
        self._done = False
        headers = flow.response.headers if flow.response else {}
        accepted = headers.get("Sec-WebSocket-Extensions", "")
        self._client = WebsocketConnection(
            ConnectionType.SERVER, _extensions(accepted), conn=context.client
        )
        self._server = WebsocketConnection(
            ConnectionType.CLIENT, _extensions(accepted), conn=context.server
        )

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if self._done or not isinstance(event, (events.DataReceived, events.ConnectionClosed)):
            return
        outward = event.connection is self.context.client
        source = self._client if outward else self._server
        try:
            source.receive_data(event.data if isinstance(event, events.DataReceived) else None)
            for message in source.events():
                yield from self._relay(message, outward=outward)
                if self._ended():
                    return
        except RemoteProtocolError as error:
            if outward:
                yield from self._refuse(Reason.MALFORMED, f"a malformed frame: {error}")
            else:
                yield from self._close(CloseReason.PROTOCOL_ERROR, "malformed frame from upstream")

    def _ended(self) -> bool:
        return self._done

    def _relay(self, message: wsproto.events.Event, *, outward: bool) -> CommandGenerator[None]:
        source, sink = (self._client, self._server) if outward else (self._server, self._client)
        if isinstance(message, wsproto.events.Message):
            yield from self._data(message, source, sink, outward=outward)
        elif isinstance(message, (wsproto.events.Ping, wsproto.events.Pong)):
            if outward and not self._passes(bytes(message.payload)):
                yield from self._denied()
                return
            yield sink.send2(message)
        elif isinstance(message, wsproto.events.CloseConnection):
            if outward and message.reason and not self._passes(message.reason.encode()):
                yield from self._denied()
                return
            yield from self._end(message)

    def _data(
        self,
        message: wsproto.events.Message[Any],
        source: WebsocketConnection,
        sink: WebsocketConnection,
        *,
        outward: bool,
    ) -> CommandGenerator[None]:
        is_text = isinstance(message.data, str)
        source.frame_buf[-1] += message.data.encode() if is_text else bytes(message.data)
        size = sum(map(len, source.frame_buf))
        if size > self._bytes_max:
            if outward:
                text = f"a message over {self._bytes_max} bytes"
                yield from self._refuse(Reason.LIMIT_EXCEEDED, text)
            else:
                yield from self._close(CloseReason.MESSAGE_TOO_BIG, "message over the limit")
            return
        if not message.message_finished:
            if message.frame_finished:
                source.frame_buf.append(b"")
            return
        content = b"".join(source.frame_buf)
        frames = Fragmentizer(source.frame_buf, is_text)
        source.frame_buf = [b""]
        if outward and content:
            content = self._exchange.message(content, "frame")
            if self._exchange.denial is not None:
                yield from self._denied()
                return
        if outward:
            self._bytes_out += size
        else:
            self._bytes_in += size
        for frame in frames(content):
            yield sink.send2(frame)

    def _passes(self, data: bytes) -> bool:
        """Scan a control frame; one that would have to be masked does not pass."""
        left = self._exchange.message(data, "frame")
        if left != data and self._exchange.denial is None:
            self._exchange.refuse(Reason.SECRET_FOUND, "a control frame is not masked")
        return self._exchange.denial is None

    def _denied(self) -> CommandGenerator[None]:
        denial = self._exchange.denial
        reason = denial.decision.reason.value if denial is not None else "refused"
        yield from self._close(CloseReason.POLICY_VIOLATION, reason)

    def _refuse(self, reason: Reason, message: str) -> CommandGenerator[None]:
        self._exchange.refuse(reason, message)
        yield from self._denied()

    def _close(self, code: CloseReason, reason: str) -> CommandGenerator[None]:
        yield from self._end(wsproto.events.CloseConnection(code=code, reason=reason))

    def _end(self, closing: wsproto.events.CloseConnection) -> CommandGenerator[None]:
        self._done = True
        for end in (self._server, self._client):
            speaks = end.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)
            if speaks and end.conn.state & Tcp.CAN_WRITE:
                yield end.send2(closing)
            yield commands.CloseConnection(end.conn)
        peer = self.context.server.peername
        self._exchange.end(
            Ending(
                status=101,
                bytes_out=self._bytes_out,
                bytes_in=self._bytes_in,
                upstream_address=f"{peer[0]}:{peer[1]}" if peer else "",
            )
        )


def _extensions(accepted: str) -> list[wsproto.extensions.Extension]:
    """Rebuild what the peers agreed on; only permessage-deflate is known (RFC 7692)."""
    extensions: list[wsproto.extensions.Extension] = []
    for offer in wsproto.utilities.split_comma_header(accepted.encode("ascii", "replace")):
        if offer.split(";", 1)[0].strip() == wsproto.extensions.PerMessageDeflate.name:
            deflate = wsproto.extensions.PerMessageDeflate()
            deflate.finalize(offer)
            extensions.append(deflate)
    return extensions

"""WebSocket messages, each scanned whole before it leaves; control frames too.

mitmproxy's layer keeps every message of a connection and lets control frames
pass unseen. This one keeps none, bounds a message in bytes, and scans pings,
pongs and close reasons of the agent like messages: they carry bytes out too.
Messages towards the agent pass as they come (RFC 6455).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import wsproto.events
import wsproto.extensions
import wsproto.utilities
from mitmproxy.connection import ConnectionState as Tcp
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.layers.websocket import Fragmentizer, WebsocketConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol
from wsproto.utilities import RemoteProtocolError

from aesp_proxy.intercept.port import Exchange
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.record import Ending

if TYPE_CHECKING:
    from mitmproxy import http
    from mitmproxy.proxy.context import Context

_FRAGMENTS_MAX = 10_000


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
            ConnectionType.SERVER, _extensions(accepted, frame_bytes_max), conn=context.client
        )
        self._server = WebsocketConnection(
            ConnectionType.CLIENT, _extensions(accepted, frame_bytes_max), conn=context.server
        )
        self._fragments = {end: [bytearray()] for end in (self._client, self._server)}
        self._sizes = dict.fromkeys(self._fragments, 0)

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
        except RemoteProtocolError:
            yield from self._damaged(CloseReason.PROTOCOL_ERROR, outward=outward)

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
            if source.state is ConnectionState.OPEN:  # no close frame: wsproto's word for damage
                yield from self._damaged(CloseReason(message.code), outward=outward)
                return
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
        fragments, part = self._fragments[source], _bytes_of(message.data)
        fragments[-1] += part
        size = self._sizes[source] = self._sizes[source] + len(part)
        if size > self._bytes_max or len(fragments) > _FRAGMENTS_MAX:
            yield from self._damaged(CloseReason.MESSAGE_TOO_BIG, outward=outward)
            return
        if not message.message_finished:
            if message.frame_finished:
                fragments.append(bytearray())
            return
        content = b"".join(fragments)
        frames = Fragmentizer(list(map(bytes, fragments)), is_text)
        self._fragments[source], self._sizes[source] = [bytearray()], 0
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

    def _damaged(self, code: CloseReason, *, outward: bool) -> CommandGenerator[None]:
        """Close for frames that break the protocol or a limit; say whose they were."""
        is_large = code is CloseReason.MESSAGE_TOO_BIG
        text = (
            f"a message over {self._bytes_max} bytes or {_FRAGMENTS_MAX} fragments"
            if is_large
            else f"a malformed frame ({code.name})"
        )
        if not outward:
            yield from self._close(code, "malformed or too large", Reason.UPSTREAM_FAILED, text)
            return
        self._exchange.refuse(Reason.LIMIT_EXCEEDED if is_large else Reason.MALFORMED, text)
        yield from self._denied() if is_large else self._close(code, Reason.MALFORMED.value)

    def _close(
        self, code: CloseReason, say: str, reason: Reason = Reason.ALLOWED, detail: str = ""
    ) -> CommandGenerator[None]:
        closing = wsproto.events.CloseConnection(code=code, reason=say)
        yield from self._end(closing, reason, detail)

    def _end(
        self,
        closing: wsproto.events.CloseConnection,
        reason: Reason = Reason.ALLOWED,
        detail: str = "",
    ) -> CommandGenerator[None]:
        self._done = True
        for end in (self._server, self._client):
            speaks = end.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)
            if speaks and end.conn.state & Tcp.CAN_WRITE:
                yield end.send2(closing)
            yield commands.CloseConnection(end.conn)
        peer = self.context.server.peername
        self._exchange.end(
            Ending(
                reason=reason,
                detail=detail,
                status=101,
                bytes_out=self._bytes_out,
                bytes_in=self._bytes_in,
                upstream_address=f"{peer[0]}:{peer[1]}" if peer else "",
            )
        )


def _bytes_of(data: str | bytes | bytearray) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)


class _Deflate(wsproto.extensions.PerMessageDeflate):
    """permessage-deflate that inflates to little more than a message may hold (RFC 7692)."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self._bytes_max = bytes_max

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Inflate a piece of a frame (called by wsproto); what is over the limit is refused."""
        inflater: Any = self._decompressor
        if not self._inbound_compressed or not self._inbound_is_compressible or inflater is None:
            return super().frame_inbound_payload_data(proto, data)
        try:
            inflated = bytes(inflater.decompress(bytes(data), self._bytes_max + 1))
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return inflated if len(inflated) <= self._bytes_max else CloseReason.MESSAGE_TOO_BIG


def _extensions(accepted: str, bytes_max: int) -> list[wsproto.extensions.Extension]:
    """Rebuild what the peers agreed on; only permessage-deflate is known (RFC 7692)."""
    extensions: list[wsproto.extensions.Extension] = []
    for offer in wsproto.utilities.split_comma_header(accepted.encode("ascii", "replace")):
        if offer.split(";", 1)[0].strip() == _Deflate.name:
            deflate = _Deflate(bytes_max)
            deflate.finalize(offer)
            extensions.append(deflate)
    return extensions

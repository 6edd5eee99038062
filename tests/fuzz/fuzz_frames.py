"""Fuzz target: HTTP/2 and WebSocket frames of either side end in commands, never an exception.

The first byte says where the rest is cut in two.
"""

from __future__ import annotations

from aesp_proxy.intercept.egress.master import EgressMaster  # isort: skip - stubs mitmproxy.addons
import wsproto.extensions
from mitmproxy import http, options
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.mode_specs import ProxyMode

from aesp_proxy.intercept.egress.stock_upstream import UpstreamHttp1, UpstreamHttp2
from aesp_proxy.intercept.egress.websocket import GuardedWebsocket
from aesp_proxy.intercept.egress.windows import PacedServer
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http_head import HeadLimits

EgressMaster  # noqa: B018 - imported for what it keeps out
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
DEFLATE = wsproto.extensions.PerMessageDeflate.name


class _Exchange:
    """Passes everything, and takes note of a refusal as the real one does."""

    denial = None
    redacted = 0
    unpacks = False

    def message(self, data: bytes, kind: str) -> bytes:
        """Pass a message."""
        del kind
        return data

    def refuse(self, reason: Reason, message: str) -> None:
        """Take note."""

    def end(self, ending: Ending) -> None:
        """Take note."""


def _context() -> Context:
    client = Client(
        peername=("127.0.0.1", 1),
        sockname=("127.0.0.1", 2),
        timestamp_start=0.0,
        proxy_mode=ProxyMode.parse("regular"),
        state=ConnectionState.OPEN,
    )
    opened = options.Options()
    for name, kind in (("validate_inbound_headers", True), ("normalize_outbound_headers", True)):
        if name not in opened:
            opened.add_option(name, bool, kind, "")
    if "http2_ping_keepalive" not in opened:
        opened.add_option("http2_ping_keepalive", int, 0, "")
    context = Context(client, opened)
    context.server = Server(address=("a.test", 443))
    context.server.state = ConnectionState.OPEN
    return context


def _happened(conn: Connection, *parts: bytes) -> list[events.Event]:
    came = [events.DataReceived(conn, part) for part in parts if part]
    return [events.Start(), *came, events.ConnectionClosed(conn)]


def _play(layer: Layer, *happened: events.Event) -> None:
    for event in happened:
        for _ in layer.handle_event(event):
            pass


def _websocket(extensions: str) -> GuardedWebsocket:
    context = _context()
    flow = http.HTTPFlow(context.client, context.server)
    flow.response = http.Response.make(101, b"", {"Sec-WebSocket-Extensions": extensions})
    exchange: object = _Exchange()
    return GuardedWebsocket(context, flow, exchange, frame_bytes_max=10_000)  # type: ignore[arg-type]


def fuzz_one(data: bytes) -> None:
    """Run one input; any exception is a finding."""
    cut, rest = (data[0] if data else 0), data[1:]
    context = _context()
    server = PacedServer(context, lambda _: None)
    _play(server, *_happened(context.client, PREFACE + rest[:cut], rest[cut:]))
    for make in (UpstreamHttp2, lambda context: UpstreamHttp1(context, HeadLimits())):
        context = _context()
        speaker: Layer = make(context)
        said = SETTINGS if isinstance(speaker, UpstreamHttp2) else b""
        parts = [
            events.DataReceived(context.server, p) for p in (said + rest[:cut], rest[cut:]) if p
        ]
        _play(speaker, events.Start(), *parts, events.ConnectionClosed(context.server))
    for extensions in ("", DEFLATE):
        for side in ("client", "server"):
            layer = _websocket(extensions)
            conn = getattr(layer.context, side)
            _play(layer, *_happened(conn, rest[:cut], rest[cut:]))

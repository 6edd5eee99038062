"""mitmproxy's HTTP clients, for its own layers, made to pass what they drop or fail at.

Over HTTP/2 the stock client swallows interim responses, so that who waits for 100 waits for
ever. Over HTTP/1 it takes an interim response for the final one, fails at trailers, and reads
heads of any length more loosely than ``normalize`` does (research, section 8). Both are put in
the place of the stock ones by ``GuardedHttp``, which meets interim responses as heads below 200.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.events
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.layers.http import HttpClient, RegisterHttpConnection
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestData,
    RequestEndOfMessage,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Client
from mitmproxy.proxy.layers.http._http2 import Http2Client, parse_h2_response_headers
from mitmproxy.proxy.layers.tls import ServerTLSLayer

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.tls import UpstreamTls
from aesp_proxy.intercept.egress.windows import Paced
from aesp_proxy.normalize.http_body import BodyReader, CloseReader, body_reader, last_chunk
from aesp_proxy.normalize.http_head import Headers, HeadLimits, parse_response_head

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

_SWITCHING = 101


def guarded(stack: Layer, limits: HeadLimits) -> tuple[UpstreamTls | None, UpstreamClient]:
    """Give the layers of a new upstream connection: TLS where it has that, and our client."""
    client = UpstreamClient(stack.context, limits)
    if not isinstance(stack, ServerTLSLayer):
        return None, client
    tls = UpstreamTls(stack.context)
    tls.child_layer = client
    return tls, client


class UpstreamClient(HttpClient):
    """Opens the connection, then speaks what was agreed on: ``speaker``, once it is open."""

    def __init__(self, context: Context, limits: HeadLimits) -> None:
        super().__init__(context)
        self._limits = limits
        self.speaker: UpstreamHttp1 | UpstreamHttp2 | None = None

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        server = self.context.server
        error = None if server.connected else (yield commands.OpenConnection(server))
        if not error:
            client = self.speaker = (
                UpstreamHttp2(self.context)
                if server.alpn == b"h2"
                else UpstreamHttp1(self.context, self._limits)
            )
            self.child_layer = client
            replaced: Any = self
            replaced._handle_event = client.handle_event  # noqa: SLF001 - as mitmproxy does
            yield from client.handle_event(event)
        yield RegisterHttpConnection(server, error)


class UpstreamHttp2(Paced, Http2Client):
    """HTTP/2 to upstream; interim responses pass."""

    def unsent(self, stream_id: int) -> int:
        """Return how many bytes of the agent's stream wait for upstream to take them."""
        ours = self.our_stream_id.get(stream_id, 0)
        queued = self.stream_queue.get(stream_id, ())
        waiting = sum(len(each.data) for each in queued if isinstance(each, RequestData))
        return waiting + self.h2_conn.unsent(ours)

    def handle_h2_event(self, event: h2.events.Event) -> CommandGenerator[bool]:
        """Take an event of the h2 library (called by the stock client)."""
        if not isinstance(event, h2.events.InformationalResponseReceived):
            return (yield from super().handle_h2_event(event))
        try:
            status, headers = parse_h2_response_headers(event.headers)
        except ValueError as error:
            yield from self.protocol_error(f"HTTP/2 protocol error: {error}")
            return True
        response = http.Response(b"HTTP/2.0", status, b"", headers, None, None, 0, None)
        yield ReceiveHttp(ResponseHeaders(event.stream_id, response, end_stream=False))
        return False


class UpstreamHttp1(Http1Client):
    """HTTP/1 to upstream, read as strictly as by the own layer; trailers pass both ways."""

    def __init__(self, context: Context, limits: HeadLimits) -> None:
        super().__init__(context)
        self._limits = limits
        self._reader: BodyReader = body_reader(0)
        self._trailers: Headers = ()

    def send(self, event: HttpEvent) -> CommandGenerator[None]:
        """Write to upstream (called by the stock layer)."""
        if isinstance(event, RequestTrailers):
            self._trailers = tuple((name.lower(), v) for name, v in event.trailers.fields)
        elif isinstance(event, RequestEndOfMessage) and self._trailers and self._is_chunked():
            yield commands.SendData(self.conn, last_chunk(self._trailers))
            yield from self.mark_done(request=True)
        else:
            yield from super().send(event)

    def _is_chunked(self) -> bool:
        request = self.request
        return request is not None and "transfer-encoding" in request.headers

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Read interim heads, then the head of the response."""
        if not isinstance(event, events.DataReceived) or self.request is None:
            yield from super().read_headers(event)
            return
        while self.state == self.read_headers:
            try:
                block = self._take_head()
                if block is None:
                    return
                yield from self._head(block, self.request)
            except (InputError, ValueError) as error:
                yield from self._broken(f"the upstream's answer is malformed: {error}")
                return
        if self.state == self.read_body:
            yield from self.read_body(event)

    def _take_head(self) -> bytes | None:
        data = bytes(self.buf)
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > self._limits.head_bytes_max:
                raise InputError(f"a head over {self._limits.head_bytes_max} bytes")
            return None
        self.buf.maybe_extract_at_most(end)
        return data[:end]

    def _head(self, block: bytes, request: http.Request) -> CommandGenerator[None]:
        head = parse_response_head(block, self._limits, request_method=request.method)
        if head.status == _SWITCHING and "upgrade" not in request.headers:
            raise InputError("101 without an upgrade having been asked for")
        response = http1.read_response_head(block[:-4].split(b"\r\n"))
        if not head.status < 200 or head.status == _SWITCHING:
            self.response = response
            self._reader = body_reader(head.body_bytes)
            self.state = self.read_body
        end_stream = self.state == self.read_body and head.body_bytes == 0
        yield ReceiveHttp(ResponseHeaders(self._stream, response, end_stream))

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        """Read the body by the own readers, to its trailers."""
        if isinstance(event, events.DataReceived):
            try:
                data = self.buf.maybe_extract_at_most(len(self.buf)) or b""
                body, rest = self._reader.feed(bytes(data))
            except InputError as error:
                yield from self._broken(f"the upstream's answer is malformed: {error}")
                return
            self.buf += rest
            if body:
                yield ReceiveHttp(ResponseData(self._stream, body))
            if not self._reader.done:
                return
        elif not isinstance(self._reader, CloseReader):
            yield from self._broken("the upstream closed before its answer ended")
            return
        if self._reader.trailers:
            trailers = http.Headers(self._reader.trailers)
            yield ReceiveHttp(ResponseTrailers(self._stream, trailers))
        yield ReceiveHttp(ResponseEndOfMessage(self._stream))
        self.state = self.answered
        yield from self.mark_done(response=True)

    def answered(self, event: events.Event) -> CommandGenerator[None]:
        """Wait for the end of the request; bytes after a response are nobody's."""
        if isinstance(event, events.DataReceived):
            yield commands.CloseConnection(self.conn)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._broken("the upstream closed before it had the whole request")

    @property
    def _stream(self) -> int:
        return self.stream_id or 0

    def _broken(self, text: str) -> CommandGenerator[None]:
        yield commands.CloseConnection(self.conn)
        yield ReceiveHttp(ResponseProtocolError(self._stream, text, ErrorCode.GENERIC_SERVER_ERROR))

"""The streams of mitmproxy's own HTTP layers, guarded (see ``stock_layer``).

The stock stream waits for a whole body before it answers a refusal, and fails
when asked to do both (research, section 8). Here the head is decided when it
comes, a refusal answers at once, bodies always stream through the scan, and a
stream that was refused swallows what still arrives for it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from mitmproxy import http
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpStream,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.websocket import WebSocketData

from aesp_proxy.act.denial import REDACTED_FIELD, Denial, body_for, grpc_fields, response_fields
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.upstream import is_untrusted
from aesp_proxy.intercept.egress.websocket import GuardedWebsocket
from aesp_proxy.intercept.port import Exchange
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.host import parse_authority
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http import Target, egress_request
from aesp_proxy.normalize.http_body import parse_trailers
from aesp_proxy.normalize.http_head import check_fields, check_method, check_target

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.stock_layer import GuardedHttp


_SWITCHING = 101
_OK = 200


class GuardedStream(HttpStream):
    """One request and its response."""

    def __init__(self, context: Context, stream_id: int, owner: GuardedHttp) -> None:
        super().__init__(context, stream_id)
        self._owner = owner
        self._gate = owner.conversation.gate
        self._exchange: Exchange | None = None
        self._bytes_out = 0
        self._bytes_in = 0
        owner.conversation.on_end.append(self._client_gone)

    # the request ----------------------------------------------------------------

    def state_wait_for_request_headers(self, event: RequestHeaders) -> CommandGenerator[None]:
        """Decide at the head; connect and stream only what is allowed."""
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = event.request
        self.flow.live = True
        try:
            target = self._target(event.request, end_stream=event.end_stream)
            exchange = self._decide(event.request, target)
        except (InputError, ValueError) as error:
            cause = error if isinstance(error, InputError) else InputError(str(error))
            where = f"{self._owner.tunnel.host}:{self._owner.tunnel.port}"
            yield from self._refuse(self._owner.conversation.object_to(cause, where))
            return
        self._exchange = exchange
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial)
            return
        request = self.flow.request
        request.data.host, request.data.port = target.host.name, target.port
        request.data.scheme = target.scheme.encode("ascii")
        if not (yield from self._connect(target, exchange)):
            return
        self._fit_framing(request, end_stream=event.end_stream)
        yield SendHttp(
            RequestHeaders(self.stream_id, request, end_stream=event.end_stream),
            self.context.server,
        )
        self.client_state = self.state_stream_request_body
        self.server_state = self.state_wait_for_response_headers

    def _target(self, request: http.Request, *, end_stream: bool) -> Target:
        if self.context.client.alpn != b"h2" and self.stream_id > 1:
            msg = "a second request after an upgrade was asked for; open a new connection"
            raise InputError(msg)
        validate_headers(request)
        check_method(request.method.encode("latin-1"))
        check_target(request.data.path, self._owner.limits)
        check_fields(request.headers.fields, self._owner.limits)
        if end_stream and request.headers.get("content-length", "0") != "0":
            msg = "a length is said of a body that is not there"
            raise InputError(msg)
        scheme = self._owner.tunnel.scheme
        hosts = {request.authority, *request.headers.get_all("host")} - {""}
        if request.method == "CONNECT" or len(hosts) != 1:
            msg = "the request names no host, or more than one, or is a CONNECT"
            raise InputError(msg)
        if any(name.startswith(b":") or b"\0" in value for name, value in request.headers.fields):
            msg = "a pseudo-header or NUL among the fields"
            raise InputError(msg)
        host, port = parse_authority(hosts.pop(), self._owner.tunnel.default_port)
        path = request.path
        if not path.startswith("/") and (request.method, path) != ("OPTIONS", "*"):
            msg = "the :path is not a path"
            raise InputError(msg)
        return Target(scheme=scheme, host=host, port=port, origin_form=path)

    def _decide(self, request: http.Request, target: Target) -> Exchange:
        length = request.headers.get("content-length")
        event = egress_request(
            method=request.method,
            target=target,
            headers=tuple((name.lower(), value) for name, value in request.headers.fields),
            content_length=int(length) if length and length.isdecimal() else None,
            http_version="2" if request.is_http2 else "1.1",
            tunnel=self._owner.tunnel,
            principal=self._owner.conversation.principal,
            time_ns=self._gate.now_ns(),
        )
        return self._gate.request(event, self._owner.tunnel)

    def _connect(self, target: Target, exchange: Exchange) -> Generator[Any, Any, bool]:
        address = (target.host.name, target.port)
        self._owner.conversation.watch_dial(address, exchange.connecting)
        connection, error = yield GetHttpConnection(address, target.scheme == "https", None)
        if error:
            denial = exchange.denial
            if denial is None:
                untrusted = is_untrusted(error)
                reason = Reason.UPSTREAM_UNTRUSTED if untrusted else Reason.UPSTREAM_FAILED
                denial = exchange.fail(self._ending(reason, error))
            yield from self._refuse(denial)
            return False
        self.context.server = self.flow.server_conn = connection
        return True

    def _fit_framing(self, request: http.Request, *, end_stream: bool) -> None:
        """An HTTP/1 upstream needs a length or chunks where HTTP/2 had neither.

        What is sent on without its coding has no length that is known.
        """
        unpacks = self._exchange is not None and self._exchange.unpacks
        for name in ("content-encoding", "content-length") if unpacks else ():
            request.headers.pop(name, None)
        if end_stream or self.context.server.alpn == b"h2":
            return
        if not (request.is_http2 or unpacks):
            return
        if "content-length" not in request.headers:
            request.headers["transfer-encoding"] = "chunked"

    def state_stream_request_body(self, event: HttpEvent) -> CommandGenerator[None]:
        """Scan and pass on; a finding ends the stream before the bytes leave."""
        exchange = self._exchange
        if exchange is None:
            return
        if isinstance(event, RequestData):
            yield from self._send_body(exchange.body(event.data))
        elif isinstance(event, RequestTrailers):
            self.flow.request.trailers = event.trailers
            try:
                parse_trailers(b"".join(b"%b: %b\r\n" % field for field in event.trailers.fields))
            except InputError as error:
                exchange.refuse(Reason.MALFORMED, str(error))
                yield from self._send_body(b"")
        elif isinstance(event, RequestEndOfMessage):
            trailers = self.flow.request.trailers
            fields = tuple(trailers.fields) if trailers is not None else ()
            yield from self._send_body(exchange.finish_body(fields))
            if exchange.denial is not None:
                return
            self.client_state = self.state_done
            if trailers is not None:
                yield SendHttp(RequestTrailers(self.stream_id, trailers), self.context.server)
            yield SendHttp(event, self.context.server)
            if self.server_state == self.state_done:
                yield from self.flow_done()

    def _send_body(self, data: bytes) -> CommandGenerator[None]:
        exchange = self._exchange
        if exchange is not None and exchange.denial is not None:
            yield SendHttp(
                RequestProtocolError(self.stream_id, "refused", ErrorCode.CANCEL),
                self.context.server,
            )
            yield from self._refuse(exchange.denial)
        elif data:
            self._bytes_out += len(data)
            yield SendHttp(RequestData(self.stream_id, data), self.context.server)

    def _refuse(self, denial: Denial) -> CommandGenerator[None]:
        """Answer now; swallow whatever else the client sends on this stream."""
        if self.flow.response is None:
            yield from self._answer(denial)
            if self.context.client.alpn != b"h2":
                self._owner.conversation.linger()
        else:
            yield SendHttp(
                ResponseProtocolError(self.stream_id, "refused", ErrorCode.KILL),
                self.context.client,
            )
        self._finish(Reason.ALLOWED)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield DropStream(self.stream_id)

    def _answer(self, denial: Denial) -> CommandGenerator[None]:
        asked = self.flow.request.headers
        if asked.get("content-type", "").startswith("application/grpc"):
            status, said, body = _OK, grpc_fields(denial), b""
        else:
            accept = asked.get("accept", "").encode("latin-1", "replace")
            content_type, body = body_for(denial, accept)
            status, said = denial.status, response_fields(denial, content_type, body)
        fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in said]
        response = http.Response.make(status, b"", http.Headers(fields))
        response.headers["content-length"] = str(len(body))
        response.http_version = self.flow.request.http_version
        response.reason = denial.phrase
        if self.flow.request.method == "HEAD":
            body = b""
        yield SendHttp(
            ResponseHeaders(self.stream_id, response, end_stream=not body), self.context.client
        )
        if body:
            yield SendHttp(ResponseData(self.stream_id, body), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    # the response ---------------------------------------------------------------

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> CommandGenerator[None]:
        """Stream every response; take out what would lead the client to QUIC.

        Interim ones pass and are followed by another (RFC 9110 section 15.2).
        """
        event.response.headers.pop("alt-svc", None)
        if self._exchange is not None and self._exchange.redacted:
            event.response.headers[REDACTED_FIELD.lower()] = str(self._exchange.redacted)
        status = event.response.status_code
        if status < 200 and status != _SWITCHING:
            validate_headers(event.response)
            yield SendHttp(event, self.context.client)
            return
        event.response.stream = True
        yield from super().state_wait_for_response_headers(event)

    def state_stream_response_body(self, event: HttpEvent) -> CommandGenerator[None]:
        """Count, then stream."""
        if isinstance(event, ResponseData):
            self._bytes_in += len(event.data)
        elif isinstance(event, ResponseTrailers):
            event.trailers.pop("alt-svc", None)
            if self.context.client.alpn != b"h2":
                return  # the stock layer has no words for them in HTTP/1
        elif isinstance(event, ResponseEndOfMessage):
            self._owner.answered(self.context.server)
        yield from super().state_stream_response_body(event)

    def flow_done(self) -> CommandGenerator[None]:
        """Record the outcome, or go on as a WebSocket."""
        response = self.flow.response
        if response is not None and response.status_code == _SWITCHING:
            yield from self._switch_protocols()
            return
        self._finish(Reason.ALLOWED)
        yield from super().flow_done()

    def _switch_protocols(self) -> CommandGenerator[None]:
        if self._exchange is None or not isinstance(self.flow.websocket, WebSocketData):
            self._finish(Reason.UPSTREAM_FAILED)
            yield commands.CloseConnection(self.context.client)
            self.client_state = self.server_state = self.state_errored
            return
        self.child_layer = GuardedWebsocket(
            self.context, self.flow, self._exchange, frame_bytes_max=self._owner.frame_bytes_max
        )
        self._handle_event = self.passthrough
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> CommandGenerator[None]:
        """Record what broke; answer as long as there is no answer, else break that off."""
        request_side = isinstance(event, RequestProtocolError)
        if not request_side and self.server_state == self.state_done:
            # Answered before the whole request was there (RFC 9113 section 8.1); what still
            # comes of it is dropped.
            self._finish(Reason.ALLOWED)
            self.client_state = self.state_errored
            self.flow.live = False
            yield DropStream(self.stream_id)
            return
        if not request_side and self.flow.response is None and self._exchange is not None:
            ending = self._ending(Reason.UPSTREAM_FAILED, event.message)
            yield from self._refuse(self._exchange.fail(ending))
            return
        self._finish(Reason.CLIENT_GONE if request_side else Reason.UPSTREAM_FAILED, event.message)
        yield from super().handle_protocol_error(event)

    def _ending(self, reason: Reason, detail: str = "") -> Ending:
        response = self.flow.response
        peer = self.context.server.peername
        return Ending(
            reason=reason,
            status=response.status_code if response is not None else 0,
            bytes_out=self._bytes_out,
            bytes_in=self._bytes_in,
            upstream_address=f"{peer[0]}:{peer[1]}" if peer else "",
            detail=detail,
        )

    def _finish(self, reason: Reason, detail: str = "") -> None:
        if self._exchange is not None:
            self._exchange.end(self._ending(reason, detail))
        if self._client_gone in self._owner.conversation.on_end:
            self._owner.conversation.on_end.remove(self._client_gone)

    def _client_gone(self) -> None:
        if self._exchange is not None:
            silence = self._owner.silence
            reason = Reason.UPSTREAM_FAILED if silence else Reason.CLIENT_GONE
            self._exchange.end(self._ending(reason, silence))

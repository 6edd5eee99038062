"""The own HTTP/1 layer: decides at the head, scans as the body flows, buffers nothing.

It replaces mitmproxy's HTTP/1 layer on the hot path (2,000 against 400 us a
request) and closes what that leaves open (research, section 8): a refusal
answers at once, trailers and interim responses pass, heads are limited in
bytes, fields and time, and what is forwarded is written from what was parsed.
WebSocket upgrades go to the stock layer (see ``stock``).

One exchange at a time: HEAD -> BODY -> WAIT -> HEAD; DEAD after a refusal that
cannot keep the connection. A pipelined request waits in the buffer.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.act.denial import Denial, http1_response
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.upstream import Upstream
from aesp_proxy.intercept.port import Exchange
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http import (
    Target,
    Tunnel,
    absolute_target,
    egress_request,
    tunnel_target,
)
from aesp_proxy.normalize.http_body import BodyReader, body_reader, chunk, last_chunk
from aesp_proxy.normalize.http_head import (
    HeadLimits,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
    upstream_head,
    without_alt_svc,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

_PIPELINE_BYTES_MAX = 256 * 1024
_CONTINUABLE = frozenset(("GET", "HEAD", "OPTIONS"))


class _State(Enum):
    HEAD = auto()
    BODY = auto()
    WAIT = auto()
    DEAD = auto()


class Http1(Layer):
    """One client connection that speaks HTTP/1, plain or inside a tunnel."""

    def __init__(
        self,
        context: Context,
        conversation: Conversation,
        tunnel: Tunnel | None,
        *,
        limits: HeadLimits,
        upgrade: Callable[[bytes], CommandGenerator[None]] | None,
        remember: Callable[[Upstream], None],
    ) -> None:
        super().__init__(context)
        self._conversation = conversation
        self._gate = conversation.gate
        self._tunnel = tunnel
        self._limits = limits
        self._upgrade = upgrade
        self._remember = remember
        self._state = _State.HEAD
        self._buffer = b""
        self._upstream: Upstream | None = None
        self._client_finished = False
        self._reset()
        conversation.on_end.append(self._client_gone)

    def _reset(self) -> None:
        self._exchange: Exchange | None = None
        self._head: RequestHead | None = None
        self._target: Target | None = None
        self._request_reader: BodyReader | None = None
        self._unsent: list[bytes] = []
        self._response_buffer = b""
        self._response: ResponseHead | None = None
        self._response_reader: BodyReader | None = None
        self._bytes_out = 0
        self._bytes_in = 0

    # events -----------------------------------------------------------------------

    def handle_event(self, event: events.Event) -> CommandGenerator[None]:
        """Take an event; this layer never blocks, so mitmproxy's pausing is not needed."""
        if isinstance(event, events.DataReceived):
            if event.connection is self.context.client:
                yield from self._client_data(event.data)
            elif self._upstream is not None and event.connection is self._upstream.server:
                yield from self._upstream.handle(event)
        elif isinstance(event, events.ConnectionClosed):
            if event.connection is self.context.client:
                yield from self._client_closed()
            elif self._upstream is not None and event.connection is self._upstream.server:
                yield from self._upstream.handle(event)
        elif isinstance(event, events.CommandCompleted) and self._upstream is not None:
            yield from self._upstream.handle(event)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        yield from self.handle_event(event)

    # the client's side --------------------------------------------------------------

    def _client_data(self, data: bytes) -> CommandGenerator[None]:
        if self._state is _State.BODY:
            yield from self._body_data(data)
            return
        self._buffer += data
        if self._state is _State.HEAD:
            yield from self._next_request()
        elif self._state is _State.WAIT and len(self._buffer) > _PIPELINE_BYTES_MAX:
            exchange = self._exchange
            if exchange is not None:
                denial = exchange.refuse(Reason.LIMIT_EXCEEDED, "too many pipelined requests")
                yield from self._cut(denial)

    def _next_request(self) -> CommandGenerator[None]:
        while self._state is _State.HEAD:
            if self._buffer[:2] == b"\r\n":  # one empty line may precede (RFC 9112 2.2)
                self._buffer = self._buffer[2:]
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                yield from self._incomplete_head()
                return
            block, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._conversation.head_since = None
            try:
                yield from self._begin(block)
            except InputError as error:
                yield from self._refuse_unread(
                    self._gate.malformed(self._conversation.principal, error, self._where())
                )

    def _incomplete_head(self) -> CommandGenerator[None]:
        if not self._buffer:
            self._conversation.head_since = None
        elif self._conversation.head_since is None:
            self._conversation.head_since = self._conversation.active_at
        if len(self._buffer) > self._limits.head_bytes_max:
            yield from self._refuse_unread(
                self._gate.limited(
                    self._conversation.principal,
                    f"the request head is over {self._limits.head_bytes_max} bytes",
                    self._where(),
                )
            )
        elif b"\n\n" in self._buffer or b"\0" in self._buffer or self._client_finished:
            error = InputError("the request head is cut short or its lines do not end with CR LF")
            yield from self._refuse_unread(
                self._gate.malformed(self._conversation.principal, error, self._where())
            )

    def _begin(self, block: bytes) -> CommandGenerator[None]:
        head = parse_request_head(block, self._limits)
        if head.upgrade == "websocket" and self._tunnel is not None and self._upgrade is not None:
            yield from self._hand_over(block)
            return
        target = (
            tunnel_target(head, self._tunnel) if self._tunnel is not None else absolute_target(head)
        )
        self._head, self._target = head, target
        event = egress_request(
            method=head.method,
            target=target,
            headers=head.headers,
            content_length=head.body_bytes,
            http_version="1.1" if head.minor_version else "1.0",
            tunnel=self._tunnel,
            principal=self._conversation.principal,
            time_ns=self._gate.now_ns(),
        )
        self._exchange = self._gate.request(event, self._tunnel)
        if self._exchange.denial is not None:
            yield from self._deny(self._exchange.denial)
            return
        self._request_reader = body_reader(head.body_bytes)
        self._state = _State.WAIT if self._request_reader.done else _State.BODY
        authority = str(target.host)
        self._unsent.append(upstream_head(head, target.origin_form, authority))
        if self._state is _State.BODY and self._buffer:
            data, self._buffer = self._buffer, b""
            yield from self._body_data(data)
        if self._state is not _State.DEAD:
            yield from self._send_upstream()

    def _body_data(self, data: bytes) -> CommandGenerator[None]:
        reader, exchange = self._request_reader, self._exchange
        if reader is None or exchange is None:
            return
        try:
            body, rest = reader.feed(data)
        except InputError as error:
            yield from self._cut(exchange.refuse(Reason.MALFORMED, str(error)))
            return
        out = exchange.body(body) if body else b""
        if reader.done and exchange.denial is None:
            out += exchange.finish_body(reader.trailers)
        if exchange.denial is not None:
            yield from self._cut(exchange.denial)
            return
        self._bytes_out += len(out)
        if self._head is not None and self._head.body_bytes is None:
            out = chunk(out) + (last_chunk(reader.trailers) if reader.done else b"")
        if out:
            self._unsent.append(out)
        if reader.done:
            self._state = _State.WAIT
            self._buffer = rest
        if self._upstream is not None and self._upstream.opened:
            yield from self._send_upstream()
        elif sum(map(len, self._unsent)) > _PIPELINE_BYTES_MAX:
            self._conversation.hold_client(hold=True)

    def _client_closed(self) -> CommandGenerator[None]:
        self._client_finished = True
        if self._state is _State.HEAD and self._buffer:
            yield from self._incomplete_head()
        elif self._state is _State.BODY and self._exchange is not None:
            yield from self._cut(
                self._exchange.refuse(Reason.MALFORMED, "the body ended before its declared length")
            )
        elif self._state is not _State.WAIT:
            yield from self._close_all()

    def _client_gone(self) -> None:
        if self._exchange is not None:
            self._exchange.end(self._ending(Reason.CLIENT_GONE))
            self._exchange = None

    # refusing -----------------------------------------------------------------------

    def _deny(self, denial: Denial) -> CommandGenerator[None]:
        """Refuse at the head; the connection lives on when there is no body to skip."""
        head = self._head
        keep = head is not None and head.keep_alive and head.body_bytes == 0
        yield from self._answer(denial, close=not keep)
        if keep:
            self._reset()
        else:
            self._die()

    def _cut(self, denial: Denial) -> CommandGenerator[None]:
        """Refuse in the middle: what was held never leaves, upstream sees a broken body."""
        if self._upstream is not None:
            yield commands.CloseConnection(self._upstream.server)
            self._upstream = None
        if self._response is None:
            yield from self._answer(denial, close=True)
            self._die()
        else:
            yield from self._close_all()

    def _refuse_unread(self, denial: Denial) -> CommandGenerator[None]:
        yield from self._answer(denial, close=True)
        self._die()

    def _answer(self, denial: Denial, *, close: bool) -> CommandGenerator[None]:
        accept = b""
        is_head = False
        if self._head is not None:
            accept = next((v for n, v in self._head.headers if n == b"accept"), b"")
            is_head = self._head.method == "HEAD"
        yield commands.SendData(
            self.context.client, http1_response(denial, accept=accept, close=close, head=is_head)
        )

    def _die(self) -> None:
        self._state = _State.DEAD
        self._exchange = None
        self._buffer = b""
        self._unsent.clear()
        self._conversation.head_since = None
        self._conversation.linger()

    def _close_all(self) -> CommandGenerator[None]:
        self._state = _State.DEAD
        self._client_gone()
        if self._upstream is not None:
            yield commands.CloseConnection(self._upstream.server)
            self._upstream = None
        yield commands.CloseConnection(self.context.client)

    def _where(self) -> str:
        return f"{self._tunnel.host}:{self._tunnel.port}" if self._tunnel is not None else ""

    # the upstream side ----------------------------------------------------------------

    def _send_upstream(self) -> CommandGenerator[None]:
        target = self._target
        if target is None:
            return
        upstream = self._upstream
        if upstream is not None and upstream.key != (target.scheme, target.host.name, target.port):
            yield commands.CloseConnection(upstream.server)
            upstream = None
        if upstream is None:
            self._upstream = Upstream(self.context, target, self)
            if self._exchange is not None:
                address = (target.host.name, target.port)
                self._conversation.watch_dial(address, self._exchange.connecting)
            yield from self._upstream.open()
        elif upstream.opened and self._unsent:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent = [] if upstream.exchanges == 0 or self._has_body() else self._unsent
            yield from upstream.send(data)

    def _has_body(self) -> bool:
        return self._head is not None and self._head.body_bytes != 0

    def upstream_opened(self, error: str | None) -> CommandGenerator[None]:
        """Send what waits, or say why it cannot be sent."""
        self._conversation.hold_client(hold=False)
        if self._upstream is None or self._exchange is None:
            return
        if error is not None:
            yield from self._upstream_failed(error)
            return
        self._upstream.opened = True
        yield from self._send_upstream()

    def _upstream_failed(self, error: str) -> CommandGenerator[None]:
        exchange = self._exchange
        self._upstream = None
        if exchange is None:
            yield from self._close_all()
            return
        denial = exchange.denial
        if denial is None:
            untrusted = "ertificate" in error
            reason = Reason.UPSTREAM_UNTRUSTED if untrusted else Reason.UPSTREAM_FAILED
            denial = exchange.fail(self._ending(reason, error))
        yield from self._cut(denial)

    def upstream_data(self, data: bytes) -> CommandGenerator[None]:
        """Relay the response: interim heads, the final head, the body as it comes."""
        if self._response_reader is not None:
            yield from self._response_body(data)
            return
        self._response_buffer += data
        while self._response is None:
            end = self._response_buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._response_buffer) > self._limits.head_bytes_max:
                    yield from self._bad_response("the response head is too large")
                return
            block = self._response_buffer[: end + 4]
            self._response_buffer = self._response_buffer[end + 4 :]
            if self._exchange is None or self._head is None:
                yield from self._close_all()  # a response nobody asked for
                return
            try:
                response = parse_response_head(
                    block, self._limits, request_method=self._head.method
                )
            except InputError as error:
                yield from self._bad_response(str(error))
                return
            yield from self._response_head(response, block)
            if self._state is _State.DEAD:
                return

    def _response_head(self, response: ResponseHead, block: bytes) -> CommandGenerator[None]:
        if response.status == 101:
            yield from self._bad_response("101 without an upgrade having been asked for")
            return
        if any(name == b"alt-svc" for name, _ in response.headers):
            block = without_alt_svc(response)
        if response.status < 200:
            if self._head is not None and self._head.minor_version == 1:
                yield commands.SendData(self.context.client, block)
            return
        self._response = response
        self._response_reader = body_reader(response.body_bytes)
        rest, self._response_buffer = self._response_buffer, b""
        yield commands.SendData(self.context.client, block)
        if rest or self._response_reader.done:
            yield from self._response_body(rest)

    def _response_body(self, data: bytes) -> CommandGenerator[None]:
        reader = self._response_reader
        if reader is None:
            return
        try:
            body, rest = reader.feed(data)
        except InputError as error:
            yield from self._bad_response(str(error))
            return
        self._bytes_in += len(body)
        if rest:
            data = data[: -len(rest)]
        if data:
            yield commands.SendData(self.context.client, data)
        if reader.done:
            if rest:
                yield from self._close_all()  # bytes after the response: never another's answer
            else:
                yield from self._finish()

    def _finish(self) -> CommandGenerator[None]:
        """The response is out: record, and go on to the next request or close."""
        exchange, response, upstream = self._exchange, self._response, self._upstream
        if exchange is None or response is None:
            return
        exchange.end(self._ending(Reason.ALLOWED))
        early = self._state is _State.BODY
        keep = self._head is not None and self._head.keep_alive and response.keep_alive
        self._reset()
        if upstream is not None:
            upstream.exchanges += 1
            if upstream.exchanges == 1:
                self._remember(upstream)
        if early or not keep:
            if upstream is not None:
                yield commands.CloseConnection(upstream.server)
                self._upstream = None
            if early:
                self._die()
            else:
                self._state = _State.DEAD
                yield commands.CloseConnection(self.context.client)
            return
        self._state = _State.HEAD
        if self._client_finished and not self._buffer:
            yield from self._close_all()
        elif self._buffer:
            yield from self._next_request()

    def _bad_response(self, message: str) -> CommandGenerator[None]:
        exchange = self._exchange
        if exchange is None:
            yield from self._close_all()
            return
        detail = f"the upstream's answer is malformed: {message}"
        denial = exchange.fail(self._ending(Reason.UPSTREAM_FAILED, detail))
        self._exchange = None
        yield from self._cut(denial)

    def upstream_closed(self) -> CommandGenerator[None]:
        """End a body that ends with the connection; retry once, or report, what is cut off."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        yield commands.CloseConnection(upstream.server)
        exchange = self._exchange
        if exchange is None:
            return
        if self._response is not None and self._response.body_bytes == -1:
            exchange.end(self._ending(Reason.ALLOWED))
            self._exchange = None
            yield from self._close_all()
        elif self._may_retry(upstream):
            yield from self._send_upstream()
        else:
            denial = exchange.fail(
                self._ending(Reason.UPSTREAM_FAILED, "the upstream closed before its answer ended")
            )
            self._exchange = None
            yield from self._cut(denial)

    def _may_retry(self, upstream: Upstream) -> bool:
        """A kept connection that died idle: a request without body is sent once more."""
        return (
            upstream.exchanges > 0
            and self._response is None
            and not self._response_buffer
            and bool(self._unsent)
            and self._head is not None
            and self._head.method in _CONTINUABLE
        )

    def _ending(self, reason: Reason, detail: str = "") -> Ending:
        return Ending(
            reason=reason,
            status=self._response.status if self._response is not None else 0,
            bytes_out=self._bytes_out,
            bytes_in=self._bytes_in,
            upstream_address=self._upstream.address if self._upstream is not None else "",
            detail=detail,
        )

    def _hand_over(self, block: bytes) -> CommandGenerator[None]:
        """Give the connection to the stock layer for an upgrade, with all unread bytes."""
        if self._upgrade is None:
            return
        if self._upstream is not None:
            yield commands.CloseConnection(self._upstream.server)
            self._upstream = None
        data, self._buffer = block + self._buffer, b""
        self._state = _State.DEAD
        self._conversation.on_end.remove(self._client_gone)
        yield from self._upgrade(data)

    @property
    def client_can_write(self) -> bool:
        """Whether the client's side still takes bytes."""
        return bool(self.context.client.state & ConnectionState.CAN_WRITE)

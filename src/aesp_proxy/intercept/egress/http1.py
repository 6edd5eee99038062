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

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.act.denial import Denial, http1_response, redacted_line
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.patience import Silence
from aesp_proxy.intercept.egress.pool import Rest
from aesp_proxy.intercept.egress.turn import Turn
from aesp_proxy.intercept.egress.upstream import Upstream, is_untrusted, key_of
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.event import EgressRequest
from aesp_proxy.normalize.http import (
    Target,
    Tunnel,
    absolute_target,
    egress_request,
    tunnel_target,
)
from aesp_proxy.normalize.http_head import (
    HeadLimits,
    HeadQueue,
    RequestHead,
    opens_websocket,
    parse_request_head,
)
from aesp_proxy.normalize.http_rewrite import plain_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation

_PIPELINE_BYTES_MAX = 256 * 1024


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
        self._queue = HeadQueue(limits)
        self._upstream: Upstream | None = None
        self._client_finished = False
        self._turn: Turn | None = None
        conversation.on_end.append(self._client_gone)

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
        elif isinstance(event, Silence) and self._turn is not None and self._turn.body_done:
            yield from self._broken(self._turn, str(event))

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        yield from self.handle_event(event)

    # the client's side --------------------------------------------------------------

    def _client_data(self, data: bytes) -> CommandGenerator[None]:
        if self._state is _State.BODY:
            yield from self._body_data(data)
            return
        self._queue.data += data
        if self._state is _State.HEAD:
            yield from self._next_request()
        elif self._turn is not None and len(self._queue.data) > _PIPELINE_BYTES_MAX:
            text = "too many pipelined requests"
            yield from self._cut(self._turn.exchange.refuse(Reason.LIMIT_EXCEEDED, text))

    def _next_request(self) -> CommandGenerator[None]:
        conversation = self._conversation
        while self._state is _State.HEAD:
            try:
                block = self._queue.take(finished=self._client_finished)
                conversation.await_head(waiting=block is None and bool(self._queue.data))
                if block is None:
                    if self._client_finished:
                        yield from self._part()
                    return
                yield from self._begin(block)
            except InputError as error:
                denial = conversation.object_to(error, self._where())
                yield from self._answer(denial, None, close=True)
                self._die()

    def _begin(self, block: bytes) -> CommandGenerator[None]:
        head = parse_request_head(block, self._limits)
        target = (
            tunnel_target(head, self._tunnel) if self._tunnel is not None else absolute_target(head)
        )
        if self._upgrade is not None and opens_websocket(head):
            yield from self._hand_over(plain_head(head, target.host_field(head.host)))
            return
        exchange = self._gate.request(self._event(head, target), self._tunnel)
        if exchange.denial is not None:
            yield from self._deny(exchange.denial, head)
            return
        turn = self._turn = Turn(head, target, exchange, self._limits)
        self._state = _State.WAIT if turn.body_done else _State.BODY
        if self._state is _State.BODY and self._queue.data:
            data, self._queue.data = self._queue.data, b""
            yield from self._body_data(data)
        if self._turn is turn:
            yield from self._send_upstream(turn)
        if self._client_finished and self._state is _State.BODY:
            yield from self._cut_short()

    def _event(self, head: RequestHead, target: Target) -> EgressRequest:
        return egress_request(
            method=head.method,
            target=target,
            headers=head.headers,
            content_length=head.body_bytes,
            http_version="1.1" if head.minor_version else "1.0",
            tunnel=self._tunnel,
            principal=self._conversation.principal,
            time_ns=self._gate.now_ns(),
        )

    def _body_data(self, data: bytes) -> CommandGenerator[None]:
        turn = self._turn
        if turn is None:
            return
        turn.body(data)
        if turn.exchange.denial is not None:
            yield from self._cut(turn.exchange.denial)
            return
        if turn.body_done:
            self._state = _State.WAIT
            self._queue.data = turn.rest
        if self._upstream is not None and self._upstream.opened:
            yield from self._send_upstream(turn)
        elif sum(map(len, turn.unsent)) > _PIPELINE_BYTES_MAX:
            self._conversation.hold(self.context.client, hold=True)

    def _client_closed(self) -> CommandGenerator[None]:
        self._client_finished = True
        if self._state is _State.HEAD and self._queue.data:
            yield from self._next_request()
        elif self._state is _State.BODY:
            yield from self._cut_short()
        elif self._state is not _State.WAIT:
            yield from self._part()

    def _cut_short(self) -> CommandGenerator[None]:
        if self._turn is not None:
            text = "the body ended before its declared length"
            yield from self._cut(self._turn.exchange.refuse(Reason.MALFORMED, text))

    def _client_gone(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.exchange.end(turn.ending(Reason.CLIENT_GONE, self._upstream))

    # refusing -----------------------------------------------------------------------

    def _deny(self, denial: Denial, head: RequestHead) -> CommandGenerator[None]:
        """Refuse at the head; the connection lives on when there is no body to skip."""
        keep = head.keep_alive and head.body_bytes == 0
        yield from self._answer(denial, head, close=not keep)
        if not keep:
            self._die()

    def _cut(self, denial: Denial) -> CommandGenerator[None]:
        """Refuse in the middle: what was held never leaves, upstream sees a broken body."""
        turn = self._turn
        yield from self._drop_upstream()
        if turn is not None and turn.relay.head is None:
            yield from self._answer(denial, turn.head, close=True)
            self._die()
        else:
            self._conversation.truncated = True
            yield from self._close_all()

    def _answer(
        self, denial: Denial, head: RequestHead | None, *, close: bool
    ) -> CommandGenerator[None]:
        fields = head.headers if head is not None else ()
        accept = next((value for name, value in fields if name == b"accept"), b"")
        is_head = head is not None and head.method == "HEAD"
        answer = http1_response(denial, accept=accept, close=close, head=is_head)
        yield commands.SendData(self.context.client, answer)

    def _die(self) -> None:
        self._state = _State.DEAD
        self._turn = None
        self._queue.data = b""
        self._conversation.linger()

    def _close_all(self) -> CommandGenerator[None]:
        self._state = _State.DEAD
        self._client_gone()
        yield from self._drop_upstream()
        yield commands.CloseConnection(self.context.client)

    def _part(self) -> CommandGenerator[None]:
        """The client goes after its last answer; the upstream connection may rest."""
        yield from self._release_upstream()
        yield from self._close_all()

    def _release_upstream(self) -> CommandGenerator[None]:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            yield Rest(upstream)

    def _drop_upstream(self) -> CommandGenerator[None]:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            yield commands.CloseConnection(upstream.server)

    def _where(self) -> str:
        return f"{self._tunnel.host}:{self._tunnel.port}" if self._tunnel is not None else ""

    # the upstream side ----------------------------------------------------------------

    def _send_upstream(self, turn: Turn) -> CommandGenerator[None]:
        if self._upstream is not None and self._upstream.key != key_of(turn.target):
            yield from self._release_upstream()
        upstream = self._upstream or self._wake(turn)
        if turn.exchange.denial is not None:
            yield from self._cut(turn.exchange.denial)
        elif upstream is None:
            target = turn.target
            self._upstream = Upstream(self.context, target, self)
            address = (target.host.name, target.port)
            self._conversation.watch_dial(address, turn.exchange.connecting)
            yield from self._upstream.open()
        elif upstream.opened and turn.unsent:
            yield from upstream.send(turn.take_unsent(upstream))

    def _wake(self, turn: Turn) -> Upstream | None:
        """Take a connection over that rests, for a request that could be sent once more."""
        if turn.is_repeatable and not turn.is_repeated:
            check = turn.exchange.connecting
            self._upstream = self._conversation.wake(key_of(turn.target), check)
        if self._upstream is not None:
            self._upstream.hand_to(self, self.context)
        return self._upstream

    def _send_again(self, turn: Turn) -> CommandGenerator[None]:
        """Send a request once more that a kept connection was too old for."""
        yield from self._drop_upstream()
        turn.begin_again()
        yield from self._send_upstream(turn)

    def upstream_opened(self, error: str | None) -> CommandGenerator[None]:
        """Send what waits, or say why it cannot be sent."""
        self._conversation.hold(self.context.client, hold=False)
        turn = self._turn
        if self._upstream is None or turn is None:
            return
        if error is None:
            self._upstream.opened = True
            yield from self._send_upstream(turn)
            return
        self._upstream = None
        denial = turn.exchange.denial
        if denial is None:
            reason = Reason.UPSTREAM_UNTRUSTED if is_untrusted(error) else Reason.UPSTREAM_FAILED
            denial = turn.exchange.fail(turn.ending(reason, None, error))
        yield from self._cut(denial)

    def upstream_data(self, data: bytes) -> CommandGenerator[None]:
        """Relay the response as it comes."""
        turn = self._turn
        if turn is None:
            yield from self._close_all()  # an answer that nobody asked for
            return
        headless = turn.relay.head is None
        if turn.exchange.redacted:
            turn.relay.note = redacted_line(turn.exchange.redacted)
        try:
            out = turn.relay.feed(data)
        except InputError as error:
            yield from self._broken(turn, f"the upstream's answer is malformed: {error}")
            return
        upstream = self._upstream
        if headless and turn.has_timed_out() and upstream and turn.may_repeat(upstream):
            yield from self._send_again(turn)
            return
        if out:
            yield commands.SendData(self.context.client, out)
        if turn.relay.surplus:
            yield from self._close_all()  # bytes after a response are never another's answer
        elif turn.relay.done:
            yield from self._finish(turn)

    def upstream_closed(self) -> CommandGenerator[None]:
        """End a body that ends with the connection; retry once, or report, what is cut off."""
        upstream, turn = self._upstream, self._turn
        yield from self._drop_upstream()
        if upstream is None or turn is None:
            return
        if turn.relay.ends_with_connection():
            turn.exchange.end(turn.ending(Reason.ALLOWED, upstream))
            self._turn = None
            self._conversation.truncated = not upstream.ended_in_order
            yield from self._close_all()
        elif not turn.relay.begun and turn.may_repeat(upstream):
            yield from self._send_again(turn)
        else:
            why = upstream.server.error
            text = "the upstream closed before its answer ended"
            yield from self._broken(turn, f"{text}: {why}" if why else text)

    def _broken(self, turn: Turn, detail: str) -> CommandGenerator[None]:
        ending = turn.ending(Reason.UPSTREAM_FAILED, self._upstream, detail)
        yield from self._cut(turn.exchange.fail(ending))

    def _finish(self, turn: Turn) -> CommandGenerator[None]:
        """The response is out: record, and go on to the next request or close."""
        upstream, answered = self._upstream, turn.relay.head
        turn.exchange.end(turn.ending(Reason.ALLOWED, upstream))
        self._turn = None
        keeps = turn.body_done and answered is not None and answered.keep_alive
        if upstream is not None:
            clean = upstream.is_clean and turn.leaves_clean()
            upstream.exchanged(keeps=keeps, clean=clean)
            if upstream.exchanges == 1:
                self._remember(upstream)
        if not turn.body_done:  # answered early: the rest of the body is read and dropped
            yield from self._drop_upstream()
            self._die()
        elif not keeps:
            yield from self._close_all()
        elif not turn.head.keep_alive:
            yield from self._part()
        else:
            self._state = _State.HEAD
            if self._queue.data:
                yield from self._next_request()
            elif self._client_finished:
                yield from self._part()

    def _hand_over(self, block: bytes) -> CommandGenerator[None]:
        """Give the connection to the stock layer for an upgrade, with all unread bytes."""
        if self._upgrade is None:
            return
        yield from self._release_upstream()
        data, self._queue.data = block + self._queue.data, b""
        self._state = _State.DEAD
        self._conversation.on_end.remove(self._client_gone)
        yield from self._upgrade(data)
        if self._client_finished:  # the layer that stands in this one's place is told too
            yield from self.handle_event(events.ConnectionClosed(self.context.client))

"""What is relayed unread: two sockets wired to each other, bytes counted, nothing looked at.

Other TCP and passed-through TLS, once decided and dialled. The layers step aside: each
transport's protocol hands its bytes to the other transport. A full buffer pauses the other
side's reading, a half-close is passed on, silence is bounded by the conversation's limit,
and what flowed is in the outcome record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.intercept.egress.upstream import dialled_address
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.host import Host
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.first_bytes import Protocol, recognise

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation
    from aesp_proxy.intercept.port import Exchange

Reread = Callable[[bytes], CommandGenerator[None]]


class _Pipe(asyncio.Protocol):
    """One side: what comes from its socket is written to the other's."""

    __slots__ = ("count", "finished", "other", "own", "relay")

    def __init__(self, relay: Relay, own: asyncio.Transport, other: asyncio.Transport) -> None:
        self.relay = relay
        self.own = own
        self.other = other
        self.count = 0
        self.finished = False

    def data_received(self, data: bytes) -> None:
        """Pass bytes on (asyncio callback)."""
        relay = self.relay
        if self is relay.outward and not relay.exchange.spend(len(data)):
            relay.conversation.abort()
            return
        self.count += len(data)
        relay.conversation.active_at = relay.now()
        self.other.write(data)

    def eof_received(self) -> bool:
        """Pass a half-close on; the other direction stays (asyncio callback)."""
        self.finish()
        return self.own.can_write_eof()

    def finish(self) -> None:
        """This side has sent its last byte."""
        self.finished = True
        if self.other.can_write_eof() and not self.other.is_closing():
            self.other.write_eof()
        self.relay.finish_when_both()

    def connection_lost(self, exc: Exception | None) -> None:
        """End both: what is buffered still goes out (asyncio callback)."""
        del exc
        self.relay.conversation.close()

    def pause_writing(self) -> None:
        """Stop reading what would be written here (asyncio callback)."""
        if not self.other.is_closing():
            self.other.pause_reading()

    def resume_writing(self) -> None:
        """Read again (asyncio callback)."""
        if not self.other.is_closing():
            self.other.resume_reading()


class Relay:
    """Both directions of one connection."""

    def __init__(
        self,
        conversation: Conversation,
        exchange: Exchange,
        client: asyncio.Transport,
        server: asyncio.Transport,
    ) -> None:
        self.conversation = conversation
        self.exchange = exchange
        self.now = asyncio.get_running_loop().time
        self.outward = _Pipe(self, client, server)
        self.inward = _Pipe(self, server, client)
        client.set_protocol(self.outward)
        server.set_protocol(self.inward)

    def finish_when_both(self) -> None:
        """Close when both sides have sent their last byte."""
        if self.outward.finished and self.inward.finished:
            self.conversation.close()


class Unread(Layer):
    """Dials what is to be relayed unread, then wires the sockets together.

    Without first bytes the server is taken to speak first. As long as it has not, the
    client's bytes are still recognised: a client that was only slow goes to ``reread``.
    """

    def __init__(
        self,
        context: Context,
        conversation: Conversation,
        *,
        host: Host,
        port: int,
        exchange: Exchange,
        reread: Reread | None = None,
    ) -> None:
        super().__init__(context)
        self._conversation = conversation
        self._exchange = exchange
        self._server = Server(address=(host.name, port))
        self._held = b""
        self._reread = reread
        self._relay: Relay | None = None
        self._over = False

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield from self._open()
        elif self._over:
            return
        elif self._relay is not None:
            self._pass_on(self._relay, event)
        elif isinstance(event, events.DataReceived) and event.connection is self.context.client:
            self._held += event.data
            yield from self._recognise()
        elif isinstance(event, events.DataReceived | events.ConnectionClosed):
            relay = self._wire()
            if relay is not None:
                self._pass_on(relay, event)

    def _open(self) -> CommandGenerator[None]:
        conversation, server = self._conversation, self._server
        conversation.on_end.append(self._end)
        conversation.await_head(waiting=False)
        if server.address is not None:
            address = (server.address[0], server.address[1])
            conversation.watch_dial(address, self._exchange.connecting)
        conversation.hold(self.context.client, hold=True)
        error = yield commands.OpenConnection(server)
        conversation.hold(self.context.client, hold=False)
        if error is not None:
            self._over = True
            if self._exchange.denial is None:
                self._exchange.fail(self._ending(Reason.UPSTREAM_FAILED, error))
            yield commands.CloseConnection(self.context.client)

    def _recognise(self) -> CommandGenerator[None]:
        if self._reread is None:
            self._wire()
            return
        protocol = recognise(self._held)
        if protocol is Protocol.OTHER:
            self._wire()
        elif protocol is not None:
            self._over = True
            self._exchange.end(self._ending(Reason.ALLOWED, "unused: the client spoke first"))
            yield commands.CloseConnection(self._server)
            yield from self._reread(self._held)

    def _wire(self) -> Relay | None:
        """Let the layers go: from here on bytes are moved by the sockets' own callbacks."""
        transports = self._conversation.let_go(self._server)
        if transports is None:  # one of them is gone already
            self._over = True
            self._conversation.close()
            return None
        relay = self._relay = Relay(self._conversation, self._exchange, *transports)
        if self._held:
            relay.outward.data_received(self._held)
        if not self.context.client.state & ConnectionState.CAN_READ:
            relay.outward.finish()
        return relay

    def _pass_on(self, relay: Relay, event: Any) -> None:  # noqa: ANN401 - any of mitmproxy's
        """Hand over what came while the connection was being made."""
        pipe = relay.outward if event.connection is self.context.client else relay.inward
        if isinstance(event, events.DataReceived):
            pipe.data_received(event.data)
        elif isinstance(event, events.ConnectionClosed) and not pipe.finished:
            pipe.finish()

    def _end(self) -> None:
        gone = Reason.ALLOWED if self._relay is not None else Reason.CLIENT_GONE
        self._exchange.end(self._ending(gone, ""))

    def _ending(self, reason: Reason, detail: str) -> Ending:
        relay = self._relay
        return Ending(
            reason=reason,
            bytes_out=relay.outward.count if relay is not None else 0,
            bytes_in=relay.inward.count if relay is not None else 0,
            upstream_address=dialled_address(self._server),
            detail=detail,
        )

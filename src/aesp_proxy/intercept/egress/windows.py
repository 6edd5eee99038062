"""HTTP/2 flow-control windows that are opened when bytes have gone on, not when they came.

mitmproxy opens windows of 2 GiB and gives back whatever comes at once, so who sends faster
than the other side takes is kept in memory without bound. Here a sender is owed what it sent
until ``pacing`` says that the other side has it (RFC 9113 section 5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import h2.events
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._http2 import Http2Connection, Http2Server
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

STREAM_BYTES: Final = 1024 * 1024
"""What one stream may send ahead."""
CONNECTION_BYTES: Final = 16 * 1024 * 1024
"""What all streams of a connection may send ahead."""


class Settle(events.Event):
    """What these streams (by their number on the connection) have sent, has gone on."""

    def __init__(self, streams: Iterable[int]) -> None:
        self.streams = tuple(streams)


class PacedConnection(BufferedH2Connection):
    """The h2 library's connection; ``owed`` are the bytes of each stream not given back yet."""

    owed: dict[int, int]

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.owed = {}
        self.local_settings.initial_window_size = STREAM_BYTES
        if config.client_side:
            self.local_settings.enable_push = 0
        self.local_settings.acknowledge()  # else the old settings would be sent

    def initiate_connection(self) -> None:
        """Send the settings, with a window for the connection as for its streams."""
        H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_BYTES - self.inbound_flow_control_window)

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Note what came (called by the stock layer when it has handed it on)."""
        if acknowledged_size:
            self.owed[stream_id] = self.owed.get(stream_id, 0) + acknowledged_size

    def settle(self, streams: Iterable[int]) -> None:
        """Give back what is owed for streams."""
        is_open = self.state_machine.state is not ConnectionState.CLOSED
        for stream_id in streams:
            size = self.owed.pop(stream_id, 0)
            if is_open and size:
                super().acknowledge_received_data(size, stream_id)

    def unsent(self, stream_id: int) -> int:
        """Return how many bytes of a stream wait for the peer to open its window."""
        return sum(len(part.data) for part in self.stream_buffers.get(stream_id, ()))


class Paced(Http2Connection):
    """One HTTP/2 end whose windows are opened by ``Settle``."""

    h2_conn: PacedConnection

    def __init__(self, context: Context, *more: object) -> None:
        super().__init__(context, *more)  # type: ignore[arg-type]
        self.h2_conn = PacedConnection(self.h2_conf)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if not isinstance(event, Settle):
            yield from super()._handle_event(event)
            return
        self.h2_conn.settle(event.streams)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)

    def handle_h2_event(self, event: h2.events.Event) -> CommandGenerator[bool]:
        """Take an event of the h2 library; of an error its kind alone, as its text may quote."""
        error: object = event  # the stock layer hands on what the library has raised, too
        if not isinstance(error, ProtocolError):
            return (yield from super().handle_h2_event(event))
        yield from self.protocol_error(f"{type(error).__name__} of HTTP/2", _code_of(error))
        return True

    def protocol_error(
        self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR
    ) -> CommandGenerator[None]:
        """Say GOAWAY and close (called by the stock layer, whose words may quote the peer)."""
        yield from super().protocol_error(_unquoted(message), error_code)

    def close_connection(self, msg: str) -> CommandGenerator[None]:
        """End it (called by the stock layer); nobody is owed anything any more."""
        yield from super().close_connection(_unquoted(msg))
        self.h2_conn.owed.clear()


def _unquoted(message: str) -> str:
    return message.partition(":")[0]


def _code_of(error: ProtocolError) -> int:
    return int(getattr(error, "error_code", None) or ErrorCodes.PROTOCOL_ERROR)


class PacedServer(Paced, Http2Server):
    """HTTP/2 with the agent; ``damaged`` is told what was wrong when it breaks the protocol."""

    def __init__(self, context: Context, damaged: Callable[[str], None]) -> None:
        super().__init__(context)
        self._damaged = damaged

    def protocol_error(
        self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR
    ) -> CommandGenerator[None]:
        """Say GOAWAY and close (called by the stock layer, which would only log it)."""
        self._damaged(_unquoted(message))
        yield from super().protocol_error(message, error_code)

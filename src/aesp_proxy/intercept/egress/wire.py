"""One socket of a conversation: what asyncio calls back becomes an event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mitmproxy import connection
from mitmproxy.proxy import events

from aesp_proxy.intercept.port import Address
from aesp_proxy.model.host import Host

if TYPE_CHECKING:
    from aesp_proxy.intercept.egress.conversation import Conversation

_WRITE_HIGH_BYTES: Final = 256 * 1024

Vouched = tuple[Host, Address]


class Wire(asyncio.Protocol):
    """One socket of a conversation.

    ``vouched`` is the host whose address was checked before it was dialled, and that
    address; None where nobody had to. ``dialled_at`` is loop time in seconds.
    """

    def __init__(self, conversation: Conversation, conn: connection.Connection) -> None:
        self.conversation = conversation
        self.conn = conn
        self.transport: asyncio.Transport | None = None
        self.vouched: Vouched | None = None
        self.dialled_at = 0.0
        self.congested = False
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Adopt the transport (asyncio callback)."""
        self.adopt(transport)  # type: ignore[arg-type]

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over a connected transport."""
        self.transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the layers (asyncio callback)."""
        self.conversation.happen(events.DataReceived(self.conn, data))

    def eof_received(self) -> bool:
        """Keep the socket for writing where it may be half-closed (asyncio callback).

        TCP may, TLS to a corporate proxy not.
        """
        self.conversation.peer_finished(self)
        return self.transport is not None and self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the layers the socket is gone (asyncio callback)."""
        del exc
        self.conversation.wire_lost(self)

    def pause_writing(self) -> None:
        """Stop reading everywhere until this peer reads again (asyncio callback)."""
        self.congested = True
        self.conversation.balance()

    def resume_writing(self) -> None:
        """Read again (asyncio callback)."""
        self.congested = False
        self.conversation.balance()

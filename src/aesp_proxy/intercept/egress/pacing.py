"""Nobody sends faster than the other side takes: HTTP/2 windows, and reads of HTTP/1 answers.

TCP alone does not see it: a client that opens no HTTP/2 window has taken every byte of its
socket, and what an answer brings would pile up here. So what waits for each stream is counted
where it waits, and while that is much, its sender gets no more window, or is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._events import RequestData

from aesp_proxy.intercept.egress.stock_upstream import UpstreamClient, UpstreamHttp1, UpstreamHttp2
from aesp_proxy.intercept.egress.windows import PacedServer, Settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mitmproxy.proxy import events
    from mitmproxy.proxy.layers.http import HttpLayer

_WAITING_BYTES_MAX: Final = 256 * 1024


class Pacing:
    """Keeps the two sides of one HTTP/2 client in step.

    ``hold`` stops or starts reading from a connection.
    """

    def __init__(self, http: HttpLayer, hold: Callable[[Connection, bool], None]) -> None:
        self._http = http
        self._hold = hold
        self._held: set[Server] = set()
        self._upstreams: dict[Server, UpstreamClient] = {}

    def add(self, upstream: UpstreamClient) -> None:
        """Take note of a new upstream connection."""
        self._upstreams[upstream.context.server] = upstream

    def settle(self) -> CommandGenerator[None]:
        """Let go on who may, hold who must wait, forget connections that are over."""
        agent = self._http.connections.get(self._http.context.client)
        if not isinstance(agent, PacedServer):
            return
        taken = [each for each in agent.h2_conn.owed if self._fits(self._of_request(each))]
        if taken:
            yield from self._http.event_to_child(agent, Settle(taken))
        for server, upstream in list(self._upstreams.items()):
            if self._is_over(server):
                self._forget(server)
                continue
            speaker = upstream.speaker
            if isinstance(speaker, UpstreamHttp2):
                yield from self._settle_http2(server, speaker, agent)
            elif isinstance(speaker, UpstreamHttp1):
                stream = speaker.stream_id
                waits = 0 if stream is None else agent.h2_conn.unsent(stream)
                self._keep(server, held=not self._fits(waits))

    def _settle_http2(
        self, server: Server, speaker: UpstreamHttp2, agent: PacedServer
    ) -> CommandGenerator[None]:
        taken = [
            each
            for each in speaker.h2_conn.owed
            if self._fits(agent.h2_conn.unsent(speaker.their_stream_id.get(each, 0)))
        ]
        if taken:
            yield from self._http.event_to_child(self._http.connections[server], Settle(taken))

    def _fits(self, waiting_bytes: int) -> bool:
        return waiting_bytes <= _WAITING_BYTES_MAX

    def _of_request(self, stream_id: int) -> int:
        """Return the bytes of a request that upstream has not taken, dialled or not."""
        stream = self._http.streams.get(stream_id)
        if stream is None:
            return 0
        waiting = _size(stream._paused_event_queue) if stream._paused else 0  # noqa: SLF001
        upstream = self._upstreams.get(stream.context.server)
        if upstream is not None and isinstance(upstream.speaker, UpstreamHttp2):
            waiting += upstream.speaker.unsent(stream_id)
        return waiting

    def _keep(self, server: Server, *, held: bool) -> None:
        if held == (server in self._held):
            return
        (self._held.add if held else self._held.discard)(server)
        self._hold(server, held)

    def _is_over(self, server: Server) -> bool:
        waits = server in self._http.waiting_for_establishment
        return server.state is ConnectionState.CLOSED and not waits

    def _forget(self, server: Server) -> None:
        """Else the next request would be told of its failure, and not try again."""
        self._keep(server, held=False)
        del self._upstreams[server]
        self._http.connections.pop(server, None)


def _size(waiting: Iterable[events.Event]) -> int:
    return sum(len(event.data) for event in waiting if isinstance(event, RequestData))

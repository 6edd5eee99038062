"""The HTTP/2 client of the egress benchmark, by the h2 library.

It keeps a number of streams under way on one connection and opens another for
each that ends, as a gRPC or browser client does.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import h2.config
import h2.connection
import h2.events

from benchmarks.harness import BenchError, Figures
from benchmarks.load import Stream, Target, trusting

CHUNK_BYTES = 1 << 16
WARM_REQUESTS = 20


@dataclass(slots=True, kw_only=True)
class Link:
    """One HTTP/2 connection of the client, through whatever the target says."""

    stream: Stream
    authority: str
    count: int
    h2: h2.connection.H2Connection
    got: dict[int, int]

    def ask(self) -> None:
        """Open another stream."""
        number = self.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", self.authority)]
        self.h2.send_headers(number, [*head, (":path", f"/bytes/{self.count}")], end_stream=True)
        self.got[number] = 0

    def flush(self) -> None:
        """Send what is to be sent."""
        if data := self.h2.data_to_send():
            self.stream.sock.sendall(data)

    def ended(self) -> int:
        """Read once; return how many streams ended. BenchError for any answer but the right one."""
        data = self.stream.sock.recv(CHUNK_BYTES)
        if not data:
            message = "the connection was closed"
            raise BenchError(message)
        return sum(map(self._ends, self.h2.receive_data(data)))

    def _ends(self, event: h2.events.Event) -> bool:
        match event:
            case h2.events.ResponseReceived():
                if dict(event.headers)[b":status"] != b"200":
                    message = f"wrong answer: {event.headers!r}"
                    raise BenchError(message)
            case h2.events.DataReceived():
                self.got[event.stream_id] += len(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                if self.got.pop(event.stream_id) != self.count:
                    message = "an answer was cut off"
                    raise BenchError(message)
                return True
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                message = f"refused: {event!r}"
                raise BenchError(message)
        return False


def _link(target: Target, count: int) -> Link:
    context = trusting(*target.roots)
    context.set_alpn_protocols(["h2"])
    stream = Stream(replace(target, context=context))
    if not isinstance(stream.sock, ssl.SSLSocket) or stream.sock.selected_alpn_protocol() != "h2":
        stream.sock.close()
        message = "HTTP/2 is not offered"
        raise BenchError(message)
    link = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    link.initiate_connection()
    return Link(stream=stream, authority=target.authority.decode(), count=count, h2=link, got={})


def multiplexed(
    target: Target, *, streams: int, seconds: float, count: int, cpu_ns: Callable[[], int]
) -> Figures:
    """Keep ``streams`` requests for ``count`` bytes under way; CPU is the proxy's."""
    link = _link(target, count)
    with link.stream:
        _exchange(link, streams=1, until=lambda done: done >= WARM_REQUESTS)
        before, began = cpu_ns(), time.perf_counter()
        done = _exchange(
            link, streams=streams, until=lambda _: time.perf_counter() - began >= seconds
        )
        took_s, used_ns = time.perf_counter() - began, cpu_ns() - before
    return {
        "cpu_us_per_request_http2": used_ns / 1000 / done,
        "http2_requests_per_s": done / took_s,
    }


def _exchange(link: Link, *, streams: int, until: Callable[[int], bool]) -> int:
    done = 0
    while True:
        while len(link.got) < streams and not until(done):
            link.ask()
        if not link.got:
            return done
        link.flush()
        done += link.ended()

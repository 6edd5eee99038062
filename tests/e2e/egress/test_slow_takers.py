"""Who takes nothing holds up who sends: nothing piles up in the proxy, and others go on."""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import pytest
import websockets.sync.client
import websockets.sync.server
from egress_lab import Proxy
from h2_client import H2Client
from h2_origin import H2Origin
from mitmproxy.websocket import WebSocketData
from scripted import Scripted

from aesp_proxy.intercept.egress.dialler import StaticAddress

LARGE = 24_000_000
BOUND = 12_000_000
"""Windows, sockets and what waits on the way: far less than what is to be sent."""
BLOCK = b"x" * 65_536


def lead(proxy: Proxy, name: str, port: int) -> None:
    place = StaticAddress(address="127.0.0.1", port=port)
    proxy.interceptor._settings.static[name, None] = place


def settled(count: Callable[[], int]) -> int:
    """Wait until a count has not grown for half a second; return it."""
    pause, last = threading.Event(), -1
    for _ in range(100):
        now = count()
        if now == last and now:
            return now
        last = now
        pause.wait(0.5)
    raise AssertionError("it never settled")


class Taker:
    """An HTTP/2 client that takes a body when it is told to, and never before."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()
        self._unread: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()

    def flush(self) -> None:
        self._tls.sendall(self.h2.data_to_send())

    def ask(self, path: str, *, body: bool = False) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        head = [
            (":method", "POST" if body else "GET"), (":scheme", "https"),
            (":authority", "allowed.test"), (":path", path),
        ]  # fmt: skip
        self.h2.send_headers(stream, head, end_stream=not body)
        self.flush()
        return stream

    def read(self, timeout_s: float = 10) -> bool:
        """Read once; False when nothing came."""
        self._tls.settimeout(timeout_s)
        try:
            data = self._tls.recv(65_536)
        except TimeoutError:
            return False
        assert data, "the proxy closed"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.status[event.stream_id] = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                number, size = event.stream_id, event.flow_controlled_length
                self.taken[number] = self.taken.get(number, 0) + len(event.data)
                self._unread[number] = self._unread.get(number, 0) + size
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
        self.flush()
        return True

    def take(self, stream: int) -> None:
        """Open windows for a stream until it has ended."""
        while True:
            if size := self._unread.pop(stream, 0):
                self.h2.acknowledge_received_data(size, stream)
                self.flush()
            if stream in self.ended:
                return
            assert self.read()

    def give(self, stream: int, size: int) -> int:
        """Send what the windows allow until they have stayed shut for half a second."""
        sent = 0
        while sent < size:
            room = min(self.h2.local_flow_control_window(stream), 16_384)
            if room > 0:
                self.h2.send_data(stream, b"y" * room)
                sent += room
                self.flush()
            elif not self.read(0.5):
                break
        return sent


def large_answer(sent: list[int]) -> Callable[[int, int], Iterator[bytes]]:
    """Give a body piece by piece, and count what was asked for."""

    def answer(connection: int, request: int) -> Iterator[bytes]:
        if connection:
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            return
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE
        for start in range(0, LARGE, len(BLOCK)):
            sent[0] += len(BLOCK)
            yield BLOCK[: LARGE - start]

    return answer


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def sent(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Callable[[], int]]:
    """Start an origin that sends as fast as it may; give the count of what it has sent."""
    leaf = proxy.directory / "leaf.pem"
    count = [0]
    origin: H2Origin | Scripted
    if request.param == "HTTP/2":
        origin = server = H2Origin(leaf)
        counted = lambda: server.sent  # noqa: E731
    else:
        origin = Scripted(large_answer(count), leaf)  # type: ignore[arg-type]
        counted = lambda: count[0]  # noqa: E731
    lead(proxy, "allowed.test", origin.port)
    yield counted
    origin.stop()


def test_an_answer_that_is_not_taken_waits_at_its_origin(proxy, sent):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = Taker(tls)
        large = client.ask(f"/big/{LARGE}")
        while client.read(0.5):
            pass
        assert settled(sent) < BOUND
        client.h2.increment_flow_control_window(65_535)  # the connection's own: for the other
        other = client.ask("/other")
        client.take(other)
        assert client.status[other] == "200"
        client.take(large)
        assert client.taken[large] == LARGE


def test_an_answer_whose_client_is_gone_lets_its_origin_go(proxy, sent):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = Taker(tls)
        large = client.ask(f"/big/{LARGE}")
        while client.read(0.5):
            pass
        client.h2.reset_stream(large)
        client.h2.increment_flow_control_window(65_535)
        client.flush()
        other = client.ask("/other")
        client.take(other)
        assert client.status[other] == "200"
    proxy.wait_for(lambda: proxy.interceptor.open_connections == 0, "nothing is left")


def test_a_body_that_upstream_does_not_take_waits_at_its_client(proxy):
    origin = H2Origin(proxy.directory / "leaf.pem")
    lead(proxy, "allowed.test", origin.port)
    try:
        with proxy.tunnel(alpn=("h2",)) as tls:
            client = Taker(tls)
            assert client.give(client.ask("/deaf", body=True), LARGE) < BOUND
            other = client.ask("/other")
            client.take(other)
            assert client.status[other] == "200"
    finally:
        origin.stop()


def test_a_body_for_an_upstream_that_is_not_dialled_yet_waits_at_its_client(proxy):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        lead(proxy, "allowed.test", full.getsockname()[1])
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        try:
            with proxy.tunnel(alpn=("h2",)) as tls:
                client = Taker(tls)
                assert client.give(client.ask("/x", body=True), LARGE) < BOUND
        finally:
            for sock in filling:
                sock.close()


def test_the_next_request_of_a_connection_tries_an_upstream_again_that_was_down(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        lead(proxy, "allowed.test", 1)
        assert client.ask("/x")[0] == 502
        lead(proxy, "allowed.test", proxy.origin.tls_port)
        assert client.ask("/x") == (200, b"0 bytes")


def test_an_http_2_client_leaves_nothing_of_the_requests_that_are_over(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        for _ in range(20):
            assert client.ask("/close-after") == (200, b"ok")
        (conversation,) = proxy.interceptor._conversations
        layer = conversation.layer
        while not hasattr(layer, "streams"):
            layer = layer.layer if hasattr(layer, "layer") and layer.layer else layer.child_layer
        assert len(layer.connections) <= 3
        assert len(layer._pacing._upstreams) <= 2
        assert layer.streams == {}
        assert len(conversation.on_end) <= 1


@contextlib.contextmanager
def flooding(proxy: Proxy, sent: list[int]) -> Iterator[None]:
    """A WebSocket server behind plain.test that sends without end."""

    def serve(connection: websockets.sync.server.ServerConnection) -> None:
        with contextlib.suppress(OSError, websockets.exceptions.ConnectionClosed):
            for _ in itertools.repeat(None, LARGE // len(BLOCK)):
                connection.send(BLOCK)
                sent[0] += len(BLOCK)

    with websockets.sync.server.serve(serve, "127.0.0.1", 0, compression=None) as server:
        lead(proxy, "plain.test", server.socket.getsockname()[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(20)


def test_websocket_messages_that_are_not_taken_wait_at_their_origin(proxy):
    sent = [0]
    with flooding(proxy, sent):
        sock, _ = proxy.connect("plain.test:80")
        with sock:
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert settled(lambda: sent[0]) < BOUND + 8_000_000  # more sockets on the way


def test_websocket_messages_are_not_kept(proxy):
    def serve(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with websockets.sync.server.serve(serve, "127.0.0.1", 0, max_size=None) as server:
        lead(proxy, "plain.test", server.socket.getsockname()[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        sock, _ = proxy.connect("plain.test:80")
        with websockets.sync.client.connect("ws://plain.test/", sock=sock, proxy=None) as client:
            for number in range(30):
                client.send(b"%06d" % number * 40)
                client.recv(10)
            kept = [
                each
                for each in gc.get_objects()
                if isinstance(each, WebSocketData) and each.messages
            ]
            assert kept == []
        server.shutdown()
        thread.join(20)

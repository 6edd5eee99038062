"""WebSocket frames that are damaged, forbidden or a flood: closed, recorded, and others go on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Iterator

import pytest
import websockets.sync.server
from aftermath import leaves_nothing
from egress_lab import Proxy
from frames import websocket_frame as frame
from scripted import Scripted

from aesp_proxy.intercept.egress.dialler import StaticAddress

OPEN = (
    b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("ws"), frame_bytes_max=LIMIT, idle_s_max=3.0)
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture(scope="module")
def echo(running: Proxy) -> Iterator[list[str | bytes]]:
    """A server that sends back each message; what it received."""
    received: list[str | bytes] = []

    def serve(connection: websockets.sync.server.ServerConnection) -> None:
        with contextlib.suppress(OSError):
            for message in connection:
                received.append(message)
                connection.send(message)

    with websockets.sync.server.serve(serve, "127.0.0.1", 0, max_size=None) as server:
        lead(running, server.socket.getsockname()[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join(20)


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    """One for all tests of this module, with nothing in its record."""
    running.journal.records.clear()
    return running


def lead(proxy: Proxy, port: int) -> None:
    place = StaticAddress(address="127.0.0.1", port=port)
    proxy.interceptor._settings.static["plain.test", None] = place


def opened(proxy: Proxy, fields: bytes = b"") -> socket.socket:
    """Open a WebSocket to plain.test by hand."""
    sock, _ = proxy.connect("plain.test:80")
    sock.sendall(OPEN % fields)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def rest(sock: socket.socket) -> bytes:
    """Read until the proxy closes."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65_536):
            got += data
    return got


def closed_with(got: bytes) -> int | None:
    """Return the code of the close frame at the end; None where there is none."""
    at = got.rfind(b"\x88")
    return int.from_bytes(got[at + 2 : at + 4], "big") if at >= 0 else None


def _raw(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


BAD = {
    "a frame that is not masked": (frame(b"x", masked=False), "malformed"),
    "a kind of frame that is none": (frame(b"x", opcode=3), "malformed"),
    "a reserved bit": (frame(b"x", reserved=2), "malformed"),
    "a compressed frame that was not agreed on": (frame(_raw(b"x"), reserved=4), "malformed"),
    "a continuation of nothing": (frame(b"x", opcode=0), "malformed"),
    "a new message within another": (frame(b"a", fin=False) + frame(b"b"), "malformed"),
    "a ping in two fragments": (frame(b"x", opcode=9, fin=False), "malformed"),
    "a ping over 125 bytes": (frame(b"x" * 126, opcode=9), "malformed"),
    "a close frame of one byte": (frame(b"x", opcode=8), "malformed"),
    "a close code that is none": (frame(b"\x00\x01", opcode=8), "malformed"),
    "a close reason that is no text": (frame(b"\x03\xe8\xff\xfe", opcode=8), "malformed"),
    "text that is no UTF-8": (frame(b"\xff\xfe\xfd"), "malformed"),
    "text that ends within a character": (frame("\N{SNOWMAN}".encode()[:2]), "malformed"),
    "a length that is not the shortest": (b"\x81\xfe\x00\x01\0\0\0\0x", "malformed"),
    "a length over the largest": (b"\x81\xff" + b"\xff" * 8 + b"\0" * 8, "malformed"),
    "HTTP in the place of frames": (OPEN, "malformed"),
    "a message over the limit": (frame(b"x" * (LIMIT + 1)), "limit_exceeded"),
    "a message over the limit in fragments": (
        frame(b"x" * 600_000, fin=False) + frame(b"x" * 600_000, opcode=0), "limit_exceeded",
    ),
    "fragments without end": (
        frame(b"", fin=False) + frame(b"", opcode=0, fin=False) * 11_000, "limit_exceeded",
    ),
}  # fmt: skip
BAD_PACKED = {
    "a packed message that does not unpack": (frame(b"\xff\xff\xff", reserved=4), "malformed"),
    "a packed message that unpacks to 200 MB": (
        frame(_raw(b"\0" * 200_000_000), opcode=2, reserved=4), "limit_exceeded",
    ),
    "a packed ping": (frame(_raw(b"x"), opcode=9, reserved=4), "malformed"),
}  # fmt: skip


def judge(proxy: Proxy, fields: bytes, data: bytes, reason: str) -> None:
    with leaves_nothing(proxy):
        with opened(proxy, fields) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
            codes = (1002, 1007) if reason == "malformed" else (1008,)
            assert closed_with(rest(sock)) in codes
        assert reason in {str(record.reason) for record in proxy.journal.records}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_what_no_websocket_client_sends_is_closed_and_recorded(proxy, echo, data, reason):
    judge(proxy, b"", data, reason)
    assert echo == []


@pytest.mark.parametrize(("data", "reason"), BAD_PACKED.values(), ids=BAD_PACKED)
def test_what_does_not_unpack_is_closed_and_recorded(proxy, echo, data, reason):
    judge(proxy, DEFLATE, data, reason)
    assert echo == []


def test_a_frame_that_comes_in_little_pieces_costs_no_more_than_its_size(proxy, echo):
    """Joined anew at each piece, a megabyte in pieces of 200 bytes would copy gigabytes."""
    wire = frame(b"x" * (LIMIT - 10), opcode=2)
    began = time.process_time()
    with opened(proxy) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(wire), 200):
            sock.sendall(wire[at : at + 200])
        got = 0
        while got < LIMIT - 10:
            got += len(sock.recv(65_536))
    assert time.process_time() - began < 4
    assert [len(each) for each in echo] == [LIMIT - 10]
    echo.clear()


@pytest.mark.parametrize("opcode", [9, 10], ids=["pings", "pongs"])
def test_control_frames_beside_messages_do_no_harm(proxy, echo, opcode):
    with leaves_nothing(proxy), opened(proxy) as sock:
        sock.sendall(frame(b"x", opcode=opcode) * 500 + frame(b"hello"))
        got = b""
        while b"hello" not in got:
            got += sock.recv(65_536)
    echo.clear()


BAD_ANSWERS = {
    "a frame that is masked": frame(b"x"),
    "a kind of frame that is none": frame(b"x", opcode=3, masked=False),
    "a reserved bit": frame(b"x", reserved=4, masked=False),
    "text that is no UTF-8": frame(b"\xff\xfe", masked=False),
    "a message over the limit": frame(b"x" * (LIMIT + 1), opcode=2, masked=False),
    "fragments without end": frame(b"", fin=False, masked=False)
    + frame(b"", opcode=0, fin=False, masked=False) * 11_000,
}


@pytest.mark.parametrize("data", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_what_no_websocket_server_sends_ends_both_sides(proxy, data):
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    server = Scripted(lambda *_: [head + data])
    lead(proxy, server.port)
    try:
        with leaves_nothing(proxy):
            with opened(proxy) as sock:
                assert closed_with(rest(sock)) in (1002, 1007, 1009)
            proxy.wait_for(
                lambda: any(r.reason == "upstream_failed" for r in proxy.journal.records),
                "the outcome",
            )
    finally:
        server.stop()

"""A service under honest traffic and abuse, round after round, and what it holds after each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
from aftermath import reset
from egress_lab import CANARY, POLICY, Origin
from entries import hello
from frames import PREFACE, SETTINGS, frame, head, request, websocket_frame
from h2_client import H2Client
from h2_origin import H2Origin
from stalling import Stalling

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
WAIT_S = 60.0
ALLOWED = '"allowed.test", "a.sub.test", "plain.test", "broken.test", "echo.test", "sink.test"'
CONFIG = """\
state_dir: {folder}/state
policy: {folder}/policy.yaml
daemon: {{run_dir: {folder}/run, ca_copy: {folder}/ca.pem}}
limits: {{head_s_max: 1, idle_s_max: {idle_s_max}}}
upstream:
  ca_file: {roots}
  connect_timeout_s: 10
  resolve:
    allowed.test: 127.0.0.1:{tls}
    a.sub.test: 127.0.0.1:{h2}
    plain.test: 127.0.0.1:{plain}
    broken.test: 127.0.0.1:{broken}
    echo.test: 127.0.0.1:{echo}
    sink.test: 127.0.0.1:{sink}
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes of a service hold after a round: bytes resident, open descriptors."""

    resident_bytes: int
    descriptors: int


def growth_per_round(samples: list[Sample]) -> float:
    """Return the bytes by which memory grows each round: the median slope of all pairs.

    It shrugs off rounds in which the allocator happened to hold a page more or less
    (Theil and Sen's estimator).
    """
    slopes = [
        (later.resident_bytes - earlier.resident_bytes) / (at - before)
        for (before, earlier), (at, later) in combinations(enumerate(samples), 2)
    ]
    return statistics.median(slopes)


class Service:
    """``aesp-proxy daemon`` before a small internet of its own."""

    def __init__(self, folder: Path, *, idle_s_max: int, sink: int) -> None:
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.origin = Origin(folder)
        asyncio.run_coroutine_threadsafe(self.origin.start(), self._loop).result(20)
        self.h2 = H2Origin(folder / "leaf.pem")
        self.broken = Stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nab", "reset")
        self.echo = websockets.sync.server.serve(_echo, "127.0.0.1", 0, max_size=None)
        self._echoing = threading.Thread(target=self.echo.serve_forever)
        self._echoing.start()
        policy = POLICY.replace('"allowed.test", "*.sub.test", "localhost", "plain.test"', ALLOWED)
        (folder / "policy.yaml").write_text(policy)
        ports = {
            "tls": self.origin.tls_port, "plain": self.origin.plain_port, "h2": self.h2.port,
            "broken": self.broken.port, "sink": sink, "idle_s_max": idle_s_max,
            "echo": self.echo.socket.getsockname()[1],
        }  # fmt: skip
        text = CONFIG.format(folder=folder, roots=self.origin.roots, **ports)
        (folder / "config.yaml").write_text(text)
        words = [str(PROGRAM), "daemon", "--config", str(folder / "config.yaml")]
        with (folder / "said").open("wb") as said:
            self.process = subprocess.Popen(words, stdout=said, stderr=said)
        self.port = 0
        self._trust: dict[str, ssl.SSLContext] = {}

    def ready(self) -> None:
        """Wait until it decides."""
        deadline, pause = time.monotonic() + WAIT_S, select.poll()
        while (told := self._status()) is None or told["state"] != "running":
            text = (self.folder / "said").read_text()
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            pause.poll(50)
        self.port = told["listen"]["port"]
        for alpn in ("http/1.1", "h2"):
            self._trust[alpn] = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
            self._trust[alpn].set_alpn_protocols([alpn])

    def _status(self) -> dict[str, Any] | None:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError, ValueError):
            sock.connect(str(self.folder / "run/control.sock"))
            sock.sendall(b'{"ask": "status"}\n')
            data = b""
            while more := sock.recv(65_536):
                data += more
            told: dict[str, Any] = json.loads(data)
            return told
        return None

    def processes(self) -> list[int]:
        """Return it and all it has started."""
        found, parents = [self.process.pid], {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().split()[-49])
        for each in found:
            found += [pid for pid, parent in parents.items() if parent == each]
        return found

    def sample(self) -> Sample:
        """Measure once all connections of the round are over and nothing changes any more."""
        pause, before = select.poll(), -1
        for _ in range(60):
            now = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes())  # noqa: PTH208
            if now == before:
                break
            before = now
            pause.poll(300)
        return Sample(self.resident_bytes(), before)

    def resident_bytes(self) -> int:
        """Return what its processes hold in memory now."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes()
        )
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """End all; the service's exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            self.origin.release.set()
            self._loop.call_soon_threadsafe(self.origin.stop)
            self.h2.stop()
            self.broken.stop()
            self.echo.shutdown()
            self._echoing.join(20)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(20)
            self._loop.close()
        return code

    # clients --------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def opened(self, host: str, port: int = 443) -> socket.socket:
        """Open a tunnel."""
        sock = self.connect()
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert b" 200 " in _head(sock)
        return sock

    def trust(self, alpn: str) -> ssl.SSLContext:
        """Return what trusts the host's CA and offers a protocol."""
        return self._trust[alpn]

    def tls(self, host: str, alpn: str = "http/1.1") -> ssl.SSLSocket:
        return self.trust(alpn).wrap_socket(self.opened(host), server_hostname=host)


def _echo(connection: websockets.sync.server.ServerConnection) -> None:
    with contextlib.suppress(OSError, websockets.exceptions.WebSocketException):
        for message in connection:
            connection.send(message)


def _head(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = sock.recv(1)
        if not more:
            break
        data += more
    return data


def _answer(sock: socket.socket) -> bytes:
    said = _head(sock)
    for line in said.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            left = int(line[15:])
            while left and (data := sock.recv(min(left, 65_536))):
                left -= len(data)
    return said


def _rest(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(65_536):
            pass


# one round: what each client does -----------------------------------------------------------


def honest_http1(service: Service) -> None:
    body = b"x" * 300_000
    post = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n%b"
    with service.tls("allowed.test") as tls:
        for number in range(8):
            tls.sendall(b"GET /%d HTTP/1.1\r\nHost: allowed.test\r\n\r\n" % number)
            assert b" 200 " in _answer(tls)
        tls.sendall(post % (len(body), body))
        assert b" 200 " in _answer(tls)


def honest_plain(service: Service) -> None:
    with service.connect() as sock:
        for path in (b"a", b"trailers", b"a"):
            sock.sendall(b"GET http://plain.test/%b HTTP/1.1\r\nHost: plain.test\r\n\r\n" % path)
            assert b" 200 " in _answer(sock)
            if path == b"trailers":
                assert _head(sock)


def honest_http2(service: Service) -> None:
    for host in ("a.sub.test", "allowed.test"):
        with service.tls(host, "h2") as tls:
            client = H2Client(tls)
            for size in (0, 10, 200_000):
                assert client.ask("/up", b"y" * size, authority=host)[0] == 200


def honest_websocket(service: Service) -> None:
    with (
        service.opened("echo.test", 80) as sock,
        websockets.sync.client.connect("ws://echo.test/", sock=sock, proxy=None) as client,
    ):
        for message in ("hello", "z" * 100_000, b"\0" * 9):
            client.send(message)
            assert client.recv(10) == message


def refused(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n")
        assert b" 403 " in _answer(sock)
    with service.tls("allowed.test") as tls:
        tls.sendall(b"GET /%b HTTP/1.1\r\nHost: allowed.test\r\n\r\n" % CANARY)
        assert b" 403 " in _answer(tls)
    with service.tls("a.sub.test", "h2") as tls:
        assert H2Client(tls).ask("/", CANARY, authority="a.sub.test")[0] == 403


def broken_upstream(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(b"GET http://broken.test/ HTTP/1.1\r\nHost: broken.test\r\n\r\n")
        _rest(sock)


def distrust(service: Service) -> None:
    with service.opened("allowed.test") as sock, contextlib.suppress(OSError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="allowed.test")


def halves(service: Service) -> None:
    """Break off at every stage, by reset and by half-closing."""
    stages = (b"", b"CONN", b"\x05\x01", b"GET http://plain.test/ HT", b"\x16\x03\x01\x02")
    for stage in stages:
        sock = service.connect()
        sock.sendall(stage)
        reset(sock)
    for cut in (3, 90):
        with service.opened("allowed.test") as sock:
            sock.sendall(hello("allowed.test")[:cut])
            sock.shutdown(socket.SHUT_WR)
            _rest(sock)
    tls = service.tls("allowed.test")
    tls.sendall(b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 9999\r\n\r\nabc")
    reset(tls)


def slow_head(service: Service) -> None:
    with service.connect() as sock:
        sock.sendall(b"GET http://plain.test/ HTTP/1.1\r\nHost:")
        _rest(sock)


def damaged(service: Service) -> None:
    for bad in (b"GET  / HTTP/1.1\r\n\r\n", b"\0\0\r\n\r\n", b"GET / HTTP/1.1\r\nA : b\r\n\r\n"):
        with service.tls("allowed.test") as tls:
            tls.sendall(bad)
            _rest(tls)
    for frames in (frame(SETTINGS, payload=b"12345"), request(head(("connection", "x")))):
        with service.tls("a.sub.test", "h2") as tls:
            tls.sendall(PREFACE + frames)
            _rest(tls)
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: echo.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with service.opened("echo.test", 80) as sock:
        sock.sendall(upgrade)
        assert b" 101 " in _head(sock)
        sock.sendall(websocket_frame(b"x", opcode=3))
        _rest(sock)


def unread(service: Service) -> None:
    """Ask for much, take a little, and go."""
    tls = service.tls("a.sub.test", "h2")
    tls.sendall(
        PREFACE + frame(SETTINGS) + request(head(path="/big/3000000", authority="a.sub.test"))
    )
    tls.recv(10_000)
    reset(tls)


KINDS: tuple[Callable[[Service], None], ...] = (
    honest_http1, honest_plain, honest_http2, honest_websocket, refused, broken_upstream,
    distrust, halves, damaged, unread,
)  # fmt: skip


def play_round(service: Service, times: int) -> list[str]:
    """Have a client of each kind play at once, ``times`` over; say what went wrong with whom."""
    wrong: list[str] = []

    def play(kind: Callable[[Service], None], count: int) -> None:
        try:
            for _ in range(count):
                kind(service)
        except Exception as error:  # noqa: BLE001 - told to the test, in whose thread it fails
            wrong.append(f"{kind.__name__}: {''.join(traceback.format_exception(error))}")

    plays = [(kind, times) for kind in KINDS] + [(slow_head, 1)]
    threads = [threading.Thread(target=play, args=each) for each in plays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    return wrong


@contextlib.contextmanager
def served(folder: Path, *, idle_s_max: int = 5, sink: int = 1) -> Iterator[Service]:
    """Run a service while the block runs; it must end well. ``sink`` is a port of the caller's."""
    service = Service(folder, idle_s_max=idle_s_max, sink=sink)
    try:
        service.ready()
        yield service
    finally:
        code = service.stop()
    assert code == 0, (folder / "said").read_text()

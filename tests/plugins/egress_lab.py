"""A real proxy (interceptor, pipeline, journal, policy) and a small TLS internet, in threads."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from aesp_proxy.intercept.egress.master import EgressMaster  # isort: skip - stubs mitmproxy.addons
from aesp_proxy.daemon.pipeline import Identity, Pipeline, ScanLimits
from aesp_proxy.daemon.policy_files import load_snapshot
from aesp_proxy.daemon.session import SessionCounter
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import RecordError
from aesp_proxy.intercept.egress.dialler import static_addresses
from aesp_proxy.intercept.egress.interceptor import EgressInterceptor, EgressSettings
from aesp_proxy.intercept.egress.transparent import original_destination
from aesp_proxy.intercept.port import Address
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca
from aesp_proxy.model.context import Claims
from aesp_proxy.model.record import Record, RecordId
from aesp_proxy.normalize.http_head import HeadLimits
from aesp_proxy.record.journal import Journal, JournalOptions

NOW = dt.datetime.now(dt.UTC)
CANARY = b"CORP-" + b"Zx9" * 10 + b"Qw"
POLICY = """
version: "1.2.0"
name: test
guards:
  egress_allowlist:
    enabled: true
    allow: ["allowed.test", "*.sub.test", "localhost", "plain.test", "down.test", "other.test"]
    block: ["evil.test"]
    default_action: block
  secret_leak:
    enabled: true
    patterns:
      - {name: corp_token, pattern: "CORP-[A-Za-z0-9]{32}", severity: critical}
"""


@dataclass
class Seen:
    """One request as the origin saw it."""

    head: bytes
    body: bytearray = field(default_factory=bytearray)
    trailers: bytes = b""
    chunk_lines: bytes = b""
    complete: bool = False


class Origin:
    """A TLS and a plain HTTP/1.1 server that remembers every byte it was sent."""

    def __init__(self, directory: Path) -> None:
        ca_cert, ca_key = make_ca("the internet", now=NOW)
        pair = self.ca = KeyPair(cert_pem=ca_cert, key_pem=ca_key)
        self.roots = directory / "roots.pem"
        self.roots.write_bytes(ca_cert)
        names = ["allowed.test", "a.sub.test", "localhost", "down.test", "plain.test"]
        cert, key = issue_leaf(pair, names, purpose=Purpose.SERVER, now=NOW, days=2)
        leaf = directory / "leaf.pem"
        leaf.write_bytes(cert + key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(leaf)
        self._context.set_alpn_protocols(["http/1.1"])
        self.requests: list[Seen] = []
        self.connections = 0
        self.release = threading.Event()

    async def start(self) -> None:
        tls = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        plain = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.servers = (tls, plain)
        self.tls_port = tls.sockets[0].getsockname()[1]
        self.plain_port = plain.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.release.set()
        for server in self.servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                seen = Seen(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(seen)
                await self._answer(seen, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = seen.head.split(b" ")[1]
        if path == b"/early":
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            return
        if b"100-continue" in seen.head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._read_body(seen, reader)
        seen.complete = True
        if path == b"/events":
            await self._events(writer)
        elif path == b"/hints":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
            writer.write(b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nContent-Length: 2\r\n\r\nok')
        elif path == b"/alt-svc":
            writer.write(b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nContent-Length: 2\r\n\r\nok')
        elif path == b"/trailers":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            writer.write(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
        elif path == b"/close-after":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            raise OSError
        elif path == b"/until-close":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil close")
            await writer.drain()
            raise OSError
        elif path == b"/cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
            raise OSError
        elif path == b"/garbage":
            writer.write(b"HTTP/1.1 two hundred\r\nContent-Length: 0\r\n\r\n")
        else:
            body = b"%d bytes" % len(seen.body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def _events(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(2):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            if number == 0:  # the second event comes only when the client has seen the first
                await asyncio.to_thread(self.release.wait, 10)
        writer.write(b"0\r\n\r\n")

    async def _read_body(self, seen: Seen, reader: asyncio.StreamReader) -> None:
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in seen.head.split(b"\r\n")[1:])
        }
        if fields.get(b"transfer-encoding") == b"chunked":
            while size := await self._chunk_size(seen, reader):
                await self._take(seen, reader, size)
                await reader.readexactly(2)
            while (line := await reader.readline()) != b"\r\n":
                seen.trailers += line
        else:
            await self._take(seen, reader, int(fields.get(b"content-length", b"0")))

    async def _chunk_size(self, seen: Seen, reader: asyncio.StreamReader) -> int:
        line = await reader.readline()
        seen.chunk_lines += line
        return int(line.split(b";")[0], 16)

    async def _take(self, seen: Seen, reader: asyncio.StreamReader, count: int) -> None:
        while count:
            data = await reader.read(min(count, 65_536))
            if not data:
                raise asyncio.IncompleteReadError(b"", count)
            seen.body += data
            count -= len(data)


class TappedJournal:
    """The real journal, with the records also at hand, and a switch that breaks it."""

    def __init__(self, state: Path) -> None:
        self._journal = Journal.open(state, options=JournalOptions())
        self.records: list[Record] = []
        self.broken = False

    def append(self, record: Record) -> RecordId:
        if self.broken:
            raise RecordError("the disk is full")
        record_id = self._journal.append(record)
        self.records.append(record)
        return record_id

    def close(self) -> None:
        self._journal.close()


@lru_cache(maxsize=4)
def snapshot_of(policy: str) -> Snapshot:
    """Compile a policy once for all tests: it is immutable."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(policy)
        file.flush()
        return load_snapshot(Path(file.name), fingerprint_key=b"k" * 32, serial=1)


class Proxy:
    """A running proxy on a loopback port."""

    def __init__(self, directory: Path, policy: str = POLICY, **settings: object) -> None:
        self.directory = directory
        self.origin = Origin(directory)
        state = directory / "state"
        ca_dir = state / "ca"
        ca_dir.mkdir(parents=True, mode=0o700)
        state.chmod(0o700)
        cert, key = make_ca("this host", now=NOW)
        (ca_dir / "mitmproxy-ca.pem").write_bytes(key + cert)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(cert)
        self.journal = TappedJournal(state)
        self.pipeline = Pipeline(
            session=SessionCounter(started_ns=1, claims=Claims()),
            snapshot=snapshot_of(policy),
            journal=self.journal,
            identity=Identity(
                principal_id="alice", agent_id="agent-1", agent_type="test", session_id="s-1"
            ),
            scan=ScanLimits(),
            wall_ns=time.time_ns,
            monotonic_ns=time.monotonic_ns,
        )
        self._tls = settings.pop("tls", None)
        self._ca_dir, self._settings = ca_dir, settings
        self._captured: dict[tuple[str, int], tuple[Address, int]] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self._thread.start()
        if not self._ready.wait(20):
            raise RuntimeError("the proxy did not start")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self.origin.start()
        tls, plain = self.origin.tls_port, self.origin.plain_port
        static = dict.fromkeys(("allowed.test", "a.sub.test", "other.test"), f"127.0.0.1:{tls}")
        static |= {"plain.test": f"127.0.0.1:{plain}", "down.test": "127.0.0.1:1"}
        self.interceptor = EgressInterceptor(
            gate=self.pipeline,
            names_of=lambda address: self.names.get(str(address), ()),
            master=EgressMaster(
                ca_dir=self._ca_dir, upstream_roots=self.origin.roots, http2=True, tls=self._tls
            ),
            settings=EgressSettings(
                head=HeadLimits(),
                static=static_addresses(static),
                **self._settings,  # type: ignore[arg-type]
            ),
        )
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.interceptor.listen(sock)
        self.interceptor._destination_of = self._destination_of
        self._ready.set()
        await self._stopping.wait()
        await self.interceptor.stop(0)
        self.origin.stop()

    def capture(self, address: str, port: int) -> tuple[str, int]:
        """Capture connections to an address and port; return where to connect instead.

        As behind a packet filter that redirects: what the kernel would tell of the original
        destination, this tells.
        """

        async def listen() -> tuple[str, int]:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sock.bind(("127.0.0.1", 0))
            place: tuple[str, int] = sock.getsockname()
            self._captured[place] = ip_address(address), port
            await self.interceptor.listen_transparent(sock)
            return place

        return asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)

    def _destination_of(self, descriptor: int) -> tuple[Address, int]:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            place = sock.getsockname()
        return self._captured.get(place) or original_destination(descriptor)

    def stop(self) -> None:
        self.origin.release.set()
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)
        self.journal.close()

    # clients ------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, authority: str) -> tuple[socket.socket, bytes]:
        """Send a CONNECT; return the socket and the whole answer head (and body if refused)."""
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += _some(sock)
        return sock, answer

    def tunnel(
        self, host: str = "allowed.test", *, sni: str | None = None, alpn: tuple[str, ...] = ()
    ) -> ssl.SSLSocket:
        """Open an intercepted TLS connection to ``host``, trusting the host CA."""
        sock, answer = self.connect(f"{host}:443")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.set_alpn_protocols(list(alpn) or ["http/1.1"])
        return context.wrap_socket(sock, server_hostname=sni or host)

    def ask(self, request: bytes, host: str = "allowed.test") -> bytes:
        """Send bytes inside a tunnel; return all that comes until the answer is complete."""
        with self.tunnel(host) as tls:
            tls.sendall(request)
            return read_answer(tls)

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something another thread does; fails after 10 seconds."""
        deadline = time.monotonic() + 10
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}"
            pause.wait(0.01)


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65_536)
    if not data:
        raise EOFError
    return data


def read_answer(sock: socket.socket) -> bytes:
    """Read one response with a Content-Length, or until the peer closes."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            data += _some(sock)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line[15:])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            None,
        )
        while length is None or len(body) < length:
            more = _some(sock)
            data, body = data + more, body + more
    except (EOFError, ConnectionError, ssl.SSLError):
        pass
    return data


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    running = Proxy(tmp_path)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Start proxies with other settings."""
    started: list[Proxy] = []

    def begin(policy: str = POLICY, **settings: object) -> Proxy:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Proxy(directory, policy, **settings))
        return started[-1]

    try:
        yield begin
    finally:
        for running in started:
            running.stop()


@pytest.fixture
def canary() -> bytes:
    """A secret that the test policy knows."""
    return CANARY


@pytest.fixture
def answer_of() -> Callable[[socket.socket], bytes]:
    return read_answer

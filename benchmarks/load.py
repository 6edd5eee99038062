"""The client of the egress benchmark: CONNECT, TLS, requests, bodies, events, frames.

Blocking sockets and threads: the interpreter lock is free while a thread waits,
and what is measured is the proxy's CPU, not this client's. Certificates are
verified as a real client does. Any answer that is not what was asked for is an
error: a proxy that refuses quickly must not look fast.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.harness import BenchError, Figures, quantile
from benchmarks.origin import CHUNK_BYTES, honest_text

HTTPS_PORT = 443
TIMEOUT_S = 20.0
WARM_REQUESTS = 20
GET = b"GET /bytes/%d HTTP/1.1\r\nHost: %b\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the origin is for one variant: through ``proxy`` (None: straight) as ``host:port``.

    ``context`` trusts ``roots`` and offers HTTP/1.1 only.
    """

    proxy: tuple[str, int] | None
    host: str
    port: int
    context: ssl.SSLContext
    roots: tuple[Path, ...] = ()

    @property
    def authority(self) -> bytes:
        """The authority as it stands in CONNECT and Host."""
        return f"{self.host}:{self.port}".encode()


def trusting(*files: Path) -> ssl.SSLContext:
    """Return a client context that trusts these CA files and offers HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in files:
        context.load_verify_locations(file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Stream:
    """One TLS connection to the origin, maybe through a proxy."""

    def __init__(self, target: Target, *, timeout_s: float = TIMEOUT_S) -> None:
        self.host = target.host.encode() if target.port == HTTPS_PORT else target.authority
        address = target.proxy or ("127.0.0.1", target.port)
        raw = socket.create_connection(address, timeout_s)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if target.proxy:
                _connect(raw, target.authority)
            self.sock = target.context.wrap_socket(raw, server_hostname=target.host)
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> Self:
        """Return itself; the connection is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.sock.close()

    def get(self, count: int) -> int:
        """Ask for ``count`` bytes and read them; return the bytes of the body."""
        self.sock.sendall(GET % (count, self.host))
        return self.drain(count)

    def drain(self, count: int) -> int:
        """Read an answer whose body has ``count`` bytes."""
        head, rest = self.head()
        length = _content_length(head)
        if not head.startswith(b"HTTP/1.1 200") or length != count:
            message = f"wrong answer: {head[:200]!r} {rest[:300]!r}"
            raise BenchError(message)
        left = length - len(rest)
        while left > 0:
            got = len(self.sock.recv(CHUNK_BYTES))
            if not got:
                message = f"the answer ended {left} bytes early"
                raise BenchError(message)
            left -= got
        return length

    def head(self) -> tuple[bytes, bytes]:
        """Read an answer's head; return it and what came after it."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            got = self.sock.recv(CHUNK_BYTES)
            if not got:
                message = f"closed before an answer: {data[:200]!r}"
                raise BenchError(message)
            data += got
        return data[:end], data[end + 4 :]


def _connect(raw: socket.socket, authority: bytes) -> None:
    raw.sendall(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
    data = b""
    while b"\r\n\r\n" not in data:
        got = raw.recv(4096)
        if not got:
            message = f"closed before CONNECT was answered: {data[:200]!r}"
            raise BenchError(message)
        data += got
    if b" 200 " not in data.partition(b"\r\n")[0] + b" ":
        message = f"CONNECT refused: {data[:400]!r}"
        raise BenchError(message)


def _content_length(head: bytes) -> int:
    for row in head.split(b"\r\n")[1:]:
        name, _, value = row.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return -1


def keep_alive(
    target: Target, *, connections: int, seconds: float, count: int, cpu_ns: Callable[[], int]
) -> Figures:
    """Ask for ``count`` bytes again and again on open connections; CPU is the proxy's."""
    times: list[float] = []
    streams: list[Stream] = []
    failures: list[Exception] = []
    start = threading.Event()
    ends_at = 0.0

    def client(stream: Stream) -> None:
        mine = []
        start.wait()
        now = time.perf_counter()
        try:
            while now < ends_at:
                began = now
                stream.get(count)
                now = time.perf_counter()
                mine.append(now - began)
        except (OSError, BenchError) as error:
            failures.append(error)
        times.extend(mine)

    try:
        for _ in range(connections):
            streams.append(Stream(target))
            for _ in range(WARM_REQUESTS):
                streams[-1].get(count)
        threads = [threading.Thread(target=client, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        before, began = cpu_ns(), time.perf_counter()
        ends_at = began + seconds
        start.set()
        for thread in threads:
            thread.join()
        took_s, used_ns = time.perf_counter() - began, cpu_ns() - before
    finally:
        close_all(streams)
    _raise_first(failures)
    return {
        "cpu_us_per_request": used_ns / 1000 / len(times),
        "requests_per_s": len(times) / took_s,
        "p50_us": quantile(times, 0.5) * 1e6,
        "p99_us": quantile(times, 0.99) * 1e6,
    }


def new_connections(
    target: Target, *, clients: int, seconds: float, cpu_ns: Callable[[], int]
) -> Figures:
    """Open a connection, ask once, close, again and again."""
    counts: list[int] = []
    failures: list[Exception] = []
    with Stream(target) as stream:
        stream.get(1024)
    before, began = cpu_ns(), time.perf_counter()

    def client() -> None:
        done = 0
        try:
            while time.perf_counter() < began + seconds:
                with Stream(target) as stream:
                    stream.get(1024)
                done += 1
        except (OSError, BenchError) as error:
            failures.append(error)
        counts.append(done)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s, used_ns = time.perf_counter() - began, cpu_ns() - before
    _raise_first(failures)
    return {
        "cpu_us_per_connection": used_ns / 1000 / sum(counts),
        "connections_per_s": sum(counts) / took_s,
    }


def download(target: Target, count: int) -> float:
    """Read ``count`` bytes and return megabytes (10^6) a second."""
    with Stream(target) as stream:
        stream.get(1024)
        began = time.perf_counter()
        stream.get(count)
        return count / 1e6 / (time.perf_counter() - began)


def upload(target: Target, count: int) -> float:
    """Send ``count`` honest bytes, check that all arrived, return megabytes a second."""
    block = memoryview(honest_text(1 << 20))
    want = b'{"bytes": %d}' % count
    with Stream(target) as stream:
        stream.get(1024)
        began = time.perf_counter()
        stream.sock.sendall(
            b"POST /upload HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (stream.host, count)
        )
        left = count
        while left > 0:
            stream.sock.sendall(block[: min(left, len(block))])
            left -= len(block)
        head, rest = stream.head()
        while len(rest) < len(want) and (got := stream.sock.recv(4096)):
            rest += got
        took_s = time.perf_counter() - began
    if not head.startswith(b"HTTP/1.1 200") or rest != want:
        message = f"wrong answer to an upload: {head[:200]!r} {rest[:300]!r}"
        raise BenchError(message)
    return count / 1e6 / took_s


def events(target: Target, *, number: int, every_ms: int) -> Figures:
    """Read server-sent events; delays are from the origin's write to here."""
    delays_us: list[float] = []
    with Stream(target) as stream:
        stream.get(1024)
        began_ns = time.monotonic_ns()
        stream.sock.sendall(
            b"GET /sse?n=%d&ms=%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (number, every_ms, stream.host)
        )
        head, data = stream.head()
        first_ns = 0
        while len(delays_us) < number:
            while (start := data.find(b"data: ")) >= 0 and (end := data.find(b"\n\n", start)) >= 0:
                now_ns = time.monotonic_ns()
                first_ns = first_ns or now_ns
                delays_us.append((now_ns - int(data[start + 6 : end])) / 1000)
                data = data[end + 2 :]
            if len(delays_us) < number:
                got = stream.sock.recv(CHUNK_BYTES)
                if not got:
                    message = f"{len(delays_us)} of {number} events came: {head[:200]!r}"
                    raise BenchError(message)
                data += got
    return {
        "event_p50_us": quantile(delays_us, 0.5),
        "event_p99_us": quantile(delays_us, 0.99),
        "first_event_ms": (first_ns - began_ns) / 1e6,
    }


def frames(target: Target, *, number: int) -> Figures:
    """Send WebSocket frames of 64 bytes one after the other and time each echo."""
    mask = os.urandom(4)
    payload = os.urandom(64)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    frame = bytes((0x82, 0x80 | len(payload))) + mask + masked
    times = []
    with Stream(target) as stream:
        stream.sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyEhIQ==\r\n\r\n"
            % stream.host
        )
        head, data = stream.head()
        if not head.startswith(b"HTTP/1.1 101"):
            message = f"no WebSocket: {head[:200]!r}"
            raise BenchError(message)
        for _ in range(number):
            began = time.perf_counter()
            stream.sock.sendall(frame)
            while len(data) < len(payload) + 2:
                got = stream.sock.recv(4096)
                if not got:
                    message = "the WebSocket was closed"
                    raise BenchError(message)
                data += got
            times.append(time.perf_counter() - began)
            if data[2:] != payload:
                message = "a WebSocket echo is not what was sent"
                raise BenchError(message)
            data = b""
    return {"websocket_p50_us": quantile(times, 0.5) * 1e6}


def idle(target: Target, *, number: int) -> list[Stream]:
    """Open ``number`` connections, one request on each, and leave them open."""
    opened: list[Stream] = []
    try:
        for _ in range(number):
            stream = Stream(target)
            opened.append(stream)
            stream.get(1024)
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(opened: list[Stream]) -> None:
    """Close what :func:`idle` opened."""
    for stream in opened:
        stream.sock.close()


def _raise_first(failures: list[Exception]) -> None:
    if not failures:
        return
    message = f"{len(failures)} clients failed, the first: {failures[0]}"
    raise BenchError(message)

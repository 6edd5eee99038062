"""Sends bytes through a running proxy, and keeps every byte that it forwards.

The origin answers what llhttp finds in what it was sent; it keeps the bytes as they came,
a stream for each connection, so that other readers can be asked about them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import http_readers
import httptools
from egress_lab import POLICY, Proxy
from http_answers import ANSWER_READERS, Answer
from http_readers import End, Reader, Reading, Request

from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.intercept.egress.pool import PoolLimits

PASSAGE_POLICY = POLICY.replace('"plain.test"', '"plain.test", "hostile.test"')
SOMEWHERE = "203.0.113.7"
HONEST = Answer(200, b"honest")
HONEST_BYTES = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhonest"
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n"
_AS_READ = Request(b"GET", b"/sentinel", b"sentinel", b"")
_PATIENCE_S = 20


class _Connection(asyncio.Protocol):
    """One connection to the origin: its bytes, and an answer for each request."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.data = bytearray()
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.recorder.connections.append(self)
        self.recorder.open += 1

    def data_received(self, data: bytes) -> None:
        self.data += data
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # it was answered, with no upgrade
        except (httptools.HttpParserError, httptools.HttpParserCallbackError):
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def on_message_complete(self) -> None:
        self.transport.write(HONEST_BYTES)
        if not self.parser.should_keep_alive():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.recorder.open -= 1
        self.recorder.changed.set()


class Recorder:
    """An origin on the proxy's own loop."""

    def __init__(self) -> None:
        self.connections: list[_Connection] = []
        self.open = 0

    async def start(self) -> int:
        self.changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def take(self) -> list[bytes]:
        """Wait until the proxy has closed all connections; give what came on each."""
        while self.open:
            await self.changed.wait()
            self.changed.clear()
        taken, self.connections = self.connections, []
        return [bytes(each.data) for each in taken]


class Hostile:
    """An origin on the proxy's own loop that answers a head with what it was told, and closes."""

    def __init__(self) -> None:
        self.answer = b""

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@dataclass
class Passed:
    """What came of one stream: forwarded bytes, decided requests, the client's answer."""

    streams: list[bytes]
    answer: bytes
    decided: list[tuple[str, str, str]] = field(default_factory=list)
    refused: int = 0


class Passage:
    """A proxy of its own, and the way through it to a recording origin.

    No upstream connection rests between two streams, so that each has bytes of its own.
    """

    def __init__(self, directory: Path) -> None:
        pool = PoolLimits(connections_max=0)
        self._proxy = proxy = Proxy(directory, PASSAGE_POLICY, pool=pool)
        self._recorder = Recorder()
        port = self._run(self._recorder.start())
        static = proxy.interceptor._settings.static
        static["plain.test", None] = StaticAddress(address="127.0.0.1", port=port)
        self._hostile = Hostile()
        port = self._run(self._hostile.start())
        static["hostile.test", None] = StaticAddress(address="127.0.0.1", port=port)
        self._captured = proxy.capture(SOMEWHERE, 80)
        proxy.names[SOMEWHERE] = ("plain.test",)
        self._decided: list[tuple[str, str, str]] = []
        self._watch(proxy)

    def _watch(self, proxy: Proxy) -> None:
        decide = proxy.pipeline.request

        def deciding(event: Any, tunnel: Any) -> Any:
            exchange = decide(event, tunnel)
            if exchange.denial is None:
                self._decided.append((event.method, event.target, str(event.host)))
            return exchange

        proxy.pipeline.request = deciding  # type: ignore[method-assign]

    def send(self, entry: str, stream: bytes) -> Passed:
        """Send a stream and half-close; return when the proxy is through with it."""
        before, self._decided = len(self._proxy.journal.records), []
        answer, streams = self._run(self._passed(entry, stream))
        records = self._proxy.journal.records[before:]
        refused = sum(record.reason in ("malformed", "limit_exceeded") for record in records)
        return Passed(streams, answer, self._decided, refused)

    async def _passed(self, entry: str, stream: bytes) -> tuple[bytes, list[bytes]]:
        place = self._captured if entry == "captured" else ("127.0.0.1", self._proxy.port)
        if entry == "tunnel":
            stream = b"CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\n" + stream
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(*place)
            with contextlib.suppress(ConnectionError):
                writer.write(stream)
                writer.write_eof()
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
            writer.close()
            return answer, await self._recorder.take()

    def answer(self, method: str, answer: bytes) -> bytes:
        """Ask a hostile origin, then an honest one, on one connection; give what came back."""
        self._hostile.answer = answer
        asked = b"%b http://hostile.test/ HTTP/1.1\r\nHost: hostile.test\r\n\r\n" % method.encode()
        then = b"GET http://plain.test/honest HTTP/1.1\r\nHost: plain.test\r\n\r\n"
        return self.send("absolute", asked + then).answer

    def close(self) -> None:
        """Stop it and its origins."""
        for origin in (self._recorder, self._hostile):
            self._proxy._loop.call_soon_threadsafe(origin.server.close)
        self._proxy.stop()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._proxy._loop).result(30)


def misled(method: str, received: bytes) -> str:
    """Say how what a client was sent misleads a reader; empty when each gets its own answer.

    Two requests were made, the second to an honest host. Whoever reads a second answer reads
    that; when it has come all have read the same first one, and nobody waits for more of it.
    """
    methods = (method, "GET")
    told = {
        name: read(received, methods)
        for name, read in ANSWER_READERS.items()
        if not (name == "llhttp" and method == "HEAD")  # it would have to be told
    }
    whole = len(told["own"].requests) == len(methods)
    why = http_readers.disagreement(told) if whole else ""
    for name, read in told.items():
        if len(read.requests) > 1 and read.requests[1] != HONEST:
            why = f"{name} takes {read.requests[1]} for the second answer"
    return f"{received!r}\n{why}" if why else ""


def objection(passed: Passed, readers: Mapping[str, Reader]) -> str:
    """Say what is wrong with what was forwarded; empty when all readers see what was decided.

    Where it ends between two requests another one follows, which all must find there.
    """
    seen: list[tuple[str, str, str]] = []
    for stream in passed.streams:
        ours = http_readers.own(stream)
        follows = SENTINEL if ours.end is End.CLEAN else b""
        readings = {name: read(stream + follows) for name, read in readers.items()}
        why = _misread(ours, readings) or http_readers.disagreement(readings)
        if why:
            return f"{stream!r}\n{why}"
        seen += [(r.method.decode(), r.target.decode(), _name(r.host)) for r in ours.requests]
    decided = passed.decided[: len(seen)]
    return "" if seen == decided else f"decided {passed.decided}\nsent {seen}\n{passed.streams!r}"


def _misread(ours: Reading, readings: Mapping[str, Reading]) -> str:
    if ours.end is End.REFUSED:
        return f"what was forwarded would be refused here: {ours.why}"
    follows = (_AS_READ,) if ours.end is End.CLEAN else ()
    for name, reading in readings.items():
        if reading.end is End.CLEAN and reading.requests != ours.requests + follows:
            return f"{name} does not see what follows: {reading}"
    return ""


def _name(host: bytes) -> str:
    return host.decode("latin-1").partition(":")[0]

"""Answers of hostile origins by a grammar, and five readers of what a client is then sent.

A client that keeps its connection to the proxy asks two hosts one after the other. What the
first one answers must not be read as the answer of the second.
"""

from __future__ import annotations

import http.client
import io
import random
from collections.abc import Callable
from typing import NamedTuple

import h11
import httptools
from h11._receivebuffer import ReceiveBuffer
from http_grammar import Choose
from http_readers import End
from mitmproxy import http as mhttp
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy.layers.http._http1 import make_body_reader

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_body import CloseReader, body_reader
from aesp_proxy.normalize.http_head import HeadLimits, parse_response_head

SMUGGLED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
_LIMITS = HeadLimits()
_STARTS = [b"HTTP/1.1 200 OK"] * 90 + [
    b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 205 Reset Content",
    b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1  200 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20",
    b"HTTP/1.1\t200 OK", b"http/1.1 200 OK", b"HTTP/2 200 OK", b"HTTP/1.2 200 OK", b"ICY 200 OK",
    b"HTTP/1.1 200 \xff\xfe", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 600 X", b"",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 099 X",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 +20 OK",
]  # fmt: skip
_LENGTHS = [b"Content-Length: %d"] * 40 + [
    b"content-length:%d", b"Content-Length:\t%d\t", b"Content-Length: 00%d", b"Content-Length: +%d",
    b"Content-Length: %d\r\nContent-Length: %d", b"Content-Length: %d, %d", b"Content-Length: -%d",
    b"Content-Length: %d\r\nContent-Length: 0", b"Content-Length : %d", b"Content-Length: 0x%d",
    b"Content-Length: 1%d", b"Content-Length:", b"Content-Length: %d\0", b"Content_Length: %d",
    b"Content-Length:\r\n %d", b"X: y\nContent-Length: %d", b"Content-Length\xa0: %d",
]  # fmt: skip
_CODINGS = [b"Transfer-Encoding: chunked"] * 40 + [
    b"Transfer-Encoding: Chunked", b"Transfer-Encoding:\tchunked\t", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"TE: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: x\x0bchunked", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding:",
    b'Transfer-Encoding: "chunked"', b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked;x",
]  # fmt: skip
_OTHER = [
    b"X: y", b"Connection: close", b"Connection: keep-alive", b"Connection: Close", b"X:y", b"X:",
    b"Keep-Alive: timeout=5", b"Upgrade: h2c\r\nConnection: upgrade", b"X: a\r\n b", b"X: a\0b",
    b"nonsense", b": y", b"X : y", b"X: a\rb", b"X: \xff", b'Alt-Svc: h3=":443"', b"X: a\x0bb",
    b'Alt-Svc:\r\n h3=":443"', b"alt-svc:h3", b"Trailer: X", b"Set-Cookie: a=b", b"X:\t y \t",
    b"Connection: content-length", b"Proxy-Connection: close", b"Content-Encoding: identity",
]  # fmt: skip
_ENDS = [b"\r\n\r\n"] * 90 + [b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\n", b"\r\r", b"\r\n \r\n"]
_LINES = [b"\r\n"] * 60 + [b"\n", b"\r", b"\r\r\n", b" \r\n"]
_SIZES = [b"%x\r\n"] * 30 + [
    b"0%x\r\n", b"%x;x=y\r\n", b"%x ;x\r\n", b"%x \r\n", b"%x\n", b"0x%x\r\n", b"+%x\r\n",
    b" %x\r\n", b"%x;\xff\r\n", b"%x\t\r\n", b"%x;a\rb\r\n", b'%x;"\n"\r\n',
    b"0000000000000000%x\r\n", b"10000000000000000%x\r\n", b"%x\r\r\n", b"%x\0\r\n",
]  # fmt: skip
_LASTS = [b"0\r\n\r\n"] * 30 + [
    b"0\r\nX: y\r\n\r\n", b"0\n\n", b"0\r\nContent-Length: 4\r\n\r\n", b"0\r\n folded\r\n\r\n",
    b"0\r\n", b"00\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nX: y\n\r\n", b"0\r\nX : y\r\n\r\n", b"",
    b"0\r\n\n", b"0\r\n" + SMUGGLED + b"\r\n\r\n", b"0\r\nX: y\r\n\n",
]  # fmt: skip
_BODIES = [b"ok", b"", SMUGGLED, b"\r\n", b"0\r\n\r\n", b"0\r\n\r\n" + SMUGGLED]
_SURPLUS = [b""] * 8 + [SMUGGLED, b"\r\n", b"x", b"\r\n" + SMUGGLED]


def answer(choose: Choose) -> bytes:
    """Make one answer; its origin closes behind it."""
    body, framing = choose(_BODIES), choose(("length", "length", "chunked", "chunked", "close"))
    fields = [choose(_OTHER) for _ in range(choose((0, 0, 1, 2)))]
    if framing == "length" or choose((False,) * 9 + (True,)):
        fields.append(choose(_LENGTHS).replace(b"%d", b"%d" % len(body)))
    if framing == "chunked":
        fields.append(choose(_CODINGS))
        sized = choose(_SIZES).replace(b"%x", b"%x" % len(body)) + body if body else b""
        body = sized + (choose((b"\r\n", b"\r\n", b"\r\n", b"\n", b"")) if body else b"")
        body += choose(_LASTS)
    head = choose(_LINES).join([choose(_STARTS), *fields]) + choose(_ENDS)
    return head + body + choose(_SURPLUS)


def random_answers(seed: int, count: int) -> list[tuple[str, bytes]]:
    """Give ``count`` of one seed: the method that is answered, and bytes."""
    chance = random.Random(seed)
    methods = ("GET", "GET", "POST", "HEAD")
    return [(chance.choice(methods), answer(chance.choice)) for _ in range(count)]


# what a client is sent, read ------------------------------------------------------------------


class Answer(NamedTuple):
    """One final answer as a reader sees it."""

    status: int
    body: bytes


class Answers(NamedTuple):
    """All final answers that a reader finds, and how reading ended."""

    requests: tuple[Answer, ...]
    end: End
    why: str = ""


AnswerReader = Callable[[bytes, tuple[str, ...]], Answers]


def own(data: bytes, methods: tuple[str, ...]) -> Answers:
    """Read as the proxy does of an upstream."""
    found: list[Answer] = []
    try:
        for method in methods:
            status = 100
            while status < 200:
                block, separator, data = data.partition(b"\r\n\r\n")
                if not separator:
                    return Answers(tuple(found), End.CUT if block else End.CLOSED)
                head = parse_response_head(block + separator, _LIMITS, request_method=method)
                status = head.status
            reader = body_reader(head.body_bytes)
            body, data = (b"", data) if reader.done else reader.feed(data)
            if not reader.done and not isinstance(reader, CloseReader):
                return Answers(tuple(found), End.CUT)
            found.append(Answer(status, body))
            if not head.keep_alive or isinstance(reader, CloseReader):
                return Answers(tuple(found), End.CLOSED)
    except InputError as error:
        return Answers(tuple(found), End.REFUSED, str(error))
    return Answers(tuple(found), End.CLEAN)


def by_h11(data: bytes, methods: tuple[str, ...]) -> Answers:
    """Read as h11 (httpx) does."""
    client, found = h11.Connection(h11.CLIENT, max_incomplete_event_size=65_536), list[Answer]()
    client.receive_data(data)
    client.receive_data(b"")
    try:
        for method in methods:
            client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
            client.send(h11.EndOfMessage())
            status, body = 0, b""
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif not isinstance(event, h11.InformationalResponse):
                    return Answers(tuple(found), End.CLOSED, repr(event))
            found.append(Answer(status, body))
            if client.our_state is h11.MUST_CLOSE or client.their_state is h11.MUST_CLOSE:
                return Answers(tuple(found), End.CLOSED)
            if client.their_state is not h11.DONE:
                return Answers(tuple(found), End.CLOSED)
            client.start_next_cycle()
    except h11.RemoteProtocolError as error:
        if "ConnectionClosed" in str(error):
            return Answers(tuple(found), End.CLOSED)
        cut = "peer closed" in str(error) or "incomplete" in str(error)
        return Answers(tuple(found), End.CUT if cut else End.REFUSED, str(error))
    return Answers(tuple(found), End.CLEAN)


class _Llhttp:
    """What httptools calls back of answers to anything but HEAD."""

    def __init__(self) -> None:
        self.found: list[Answer] = []
        self.closed = self.inside = self.framed = False
        self.status, self.body = 0, b""
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.inside, self.framed, self.body, self.status = True, False, b"", 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.framed |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.inside = False
        if self.status >= 200 and not self.closed:
            self.found.append(Answer(self.status, self.body))
            self.closed = not self.parser.should_keep_alive()


def llhttp(data: bytes, methods: tuple[str, ...]) -> Answers:
    """Read as Node's parser does, which must be told of HEAD and cannot be here."""
    seen, why = _Llhttp(), ""
    try:
        seen.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        seen.closed = True
    except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
        why = str(error) or "refused"
    if seen.inside and seen.status and not seen.framed and not why:
        seen.found.append(Answer(seen.status, seen.body))
        seen.inside, seen.closed = False, True
    found = tuple(seen.found[: len(methods)])
    if seen.closed or len(seen.found) > len(methods):
        return Answers(found, End.CLOSED)
    if why:
        return Answers(found, End.REFUSED, why)
    done = End.CLEAN if len(found) == len(methods) else End.CLOSED
    return Answers(found, End.CUT if seen.inside else done)


class _Socket:
    """Bytes as a socket, for http.client."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Unclosed(self._file))  # type: ignore[arg-type]


class _Unclosed(io.RawIOBase):
    """A file that outlives its readers, and is read byte by byte so that nothing is read ahead."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._file.readinto(memoryview(buffer)[:1])


def stdlib(data: bytes, methods: tuple[str, ...]) -> Answers:
    """Read as Python's http.client (urllib, requests) does."""
    file, found, asked = io.BytesIO(data), list[Answer](), list(methods)
    while asked:
        method = asked.pop(0)
        response = http.client.HTTPResponse(_Socket(file), method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read()
        except http.client.IncompleteRead:
            return Answers(tuple(found), End.CUT)
        except http.client.RemoteDisconnected:
            return Answers(tuple(found), End.CLOSED)
        except (http.client.HTTPException, ValueError, OverflowError) as error:
            return Answers(tuple(found), End.REFUSED, repr(error))
        finally:
            response.close()
        if response.status < 200:  # of interim answers it knows 100 alone
            asked.insert(0, method)
            continue
        found.append(Answer(response.status, body))
        if response.will_close:
            return Answers(tuple(found), End.CLOSED)
    return Answers(tuple(found), End.CLEAN)


def stock(data: bytes, methods: tuple[str, ...]) -> Answers:
    """Read as mitmproxy's client does."""
    buffer, found = ReceiveBuffer(), list[Answer]()
    buffer += data
    try:
        for method in methods:
            request, status = mhttp.Request.make(method, "http://x/"), 100
            while status < 200:
                lines = buffer.maybe_extract_lines()
                if not lines:
                    return Answers(tuple(found), End.CUT if bytes(buffer) else End.CLOSED)
                response = http1.read_response_head([bytes(line) for line in lines])
                validate_headers(response)
                status = response.status_code
            body, ended = _stock_body(buffer, http1.expected_http_body_size(request, response))
            if body is None:
                return Answers(tuple(found), End.CUT)
            found.append(Answer(status, body))
            if ended or http1.connection_close(response.http_version, response.headers):
                return Answers(tuple(found), End.CLOSED)
    except (ValueError, h11.ProtocolError) as error:
        return Answers(tuple(found), End.REFUSED, str(error))
    return Answers(tuple(found), End.CLEAN)


def _stock_body(buffer: ReceiveBuffer, size: int | None) -> tuple[bytes | None, bool]:
    reader, body = make_body_reader(size), b""
    while not isinstance(event := reader(buffer), h11.EndOfMessage):
        if event is None:
            return (body, True) if size == -1 else (None, True)
        body += bytes(event.data)
    return body, False


ANSWER_READERS: dict[str, AnswerReader] = {
    "own": own, "h11": by_h11, "llhttp": llhttp, "http.client": stdlib, "stock": stock,
}  # fmt: skip

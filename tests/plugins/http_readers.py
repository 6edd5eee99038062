"""Five readers of one HTTP/1 byte stream: ours, mitmproxy's stock one, h11, llhttp and nginx.

Each gives the requests that it finds and how it came to an end. Two readings *disagree* when
one holds a request that the other has read differently, or has not seen where it went on
reading: that is what smuggling is made of. A reader that refuses the rest harms nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from itertools import combinations
from typing import NamedTuple

import h11
import httptools
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy.layers.http._http1 import make_body_reader

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_body import body_reader
from aesp_proxy.normalize.http_head import HeadLimits, HeadQueue, parse_request_head


class End(Enum):
    """How reading ended."""

    CLEAN = auto()  # between two messages
    CLOSED = auto()  # after a request that ends the connection: what follows is not read
    REFUSED = auto()  # something is malformed, or not spoken
    CUT = auto()  # inside a message


class Request(NamedTuple):
    """One request as a reader sees it."""

    method: bytes
    target: bytes
    host: bytes
    body: bytes


class Reading(NamedTuple):
    """All that a reader finds in a stream."""

    requests: tuple[Request, ...]
    end: End
    why: str = ""


Reader = Callable[[bytes], Reading]

_LIMITS = HeadLimits()


def own(data: bytes) -> Reading:
    """Read as the proxy does."""
    queue, found = HeadQueue(_LIMITS), list[Request]()
    queue.data = data
    try:
        while (block := queue.take()) is not None:
            head = parse_request_head(block, _LIMITS)
            reader = body_reader(head.body_bytes)
            body, rest = reader.feed(queue.data) if not reader.done else (b"", queue.data)
            if not reader.done:
                return Reading(tuple(found), End.CUT)
            queue.data = rest
            host = head.host.encode("latin-1")
            found.append(Request(head.method.encode(), head.target.encode(), host, body))
            if not head.keep_alive:
                return Reading(tuple(found), End.CLOSED)
    except InputError as error:
        return Reading(tuple(found), End.REFUSED, str(error))
    return Reading(tuple(found), End.CUT if queue.data else End.CLEAN)


def stock(data: bytes) -> Reading:
    """Read as mitmproxy's HTTP/1 layer does, with its validation on."""
    buffer, found = ReceiveBuffer(), list[Request]()
    buffer += data
    try:
        while lines := buffer.maybe_extract_lines():
            request = http1.read_request_head([bytes(line) for line in lines])
            size = http1.expected_http_body_size(request)
            validate_headers(request)
            body = _stock_body(buffer, size)
            if body is None:
                return Reading(tuple(found), End.CUT)
            raw = request.data
            hosts = b", ".join(v for n, v in raw.headers.fields if n.lower() == b"host")
            found.append(Request(raw.method, _target(request), hosts, body))
            if http1.connection_close(request.http_version, request.headers):
                return Reading(tuple(found), End.CLOSED)
    except (ValueError, h11.ProtocolError, NotImplementedError) as error:
        return Reading(tuple(found), End.REFUSED, str(error))
    return Reading(tuple(found), End.CUT if bytes(buffer) else End.CLEAN)


def _stock_body(buffer: ReceiveBuffer, size: int | None) -> bytes | None:
    reader, body = make_body_reader(size), b""
    while not isinstance(event := reader(buffer), h11.EndOfMessage):
        if event is None:
            return None
        body += bytes(event.data)
    if event.headers:
        raise NotImplementedError("trailers")
    return body


def _target(request: object) -> bytes:
    raw = request.data  # type: ignore[attr-defined]
    scheme = raw.scheme + b"://" + raw.authority if raw.scheme else raw.authority
    return bytes(scheme + raw.path)


def by_h11(data: bytes) -> Reading:
    """Read as h11 does."""
    server, found = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536), list[Request]()
    server.receive_data(data)
    head, body = None, b""
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append(_of_h11(head, body))
                server.send(h11.Response(status_code=404, headers=[(b"content-length", b"0")]))
                server.send(h11.EndOfMessage())
                if server.our_state is h11.MUST_CLOSE:
                    return Reading(tuple(found), End.CLOSED)
                server.start_next_cycle()
            else:
                break
    except h11.RemoteProtocolError as error:
        return Reading(tuple(found), End.REFUSED, str(error))
    rest = server.trailing_data[0]
    waits = server.their_state is h11.SEND_BODY or bool(rest)
    return Reading(tuple(found), End.CUT if waits else End.CLEAN)


def _of_h11(head: h11.Request | None, body: bytes) -> Request:
    assert head is not None
    hosts = b", ".join(value for name, value in head.headers if name == b"host")
    return Request(head.method, head.target, hosts, body)


class _Llhttp:
    """What httptools calls back, for one connection."""

    def __init__(self) -> None:
        self.found: list[Request] = []
        self.closed = False
        self.inside = False
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.inside, self.url, self.hosts, self.body = True, b"", list[bytes](), b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"host":
            self.hosts.append(value)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.inside = False
        if not self.closed:
            method = self.parser.get_method()
            self.found.append(Request(method, self.url, b", ".join(self.hosts), self.body))
            self.closed = not self.parser.should_keep_alive()


def llhttp(data: bytes) -> Reading:
    """Read as Node's parser does."""
    seen = _Llhttp()
    why = ""
    try:
        seen.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        seen.closed = True  # an upgrade, or CONNECT: what follows is another protocol
    except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
        why = str(error) or "refused"
    found = tuple(seen.found)
    if seen.closed:
        return Reading(found, End.CLOSED)
    if why:
        return Reading(found, End.REFUSED, why)
    return Reading(found, End.CUT if seen.inside else End.CLEAN)


READERS: dict[str, Reader] = {"own": own, "stock": stock, "h11": by_h11, "llhttp": llhttp}


def disagreement(readings: Mapping[str, Reading]) -> str:
    """Say how readings of one stream disagree; empty when what all of them read is the same.

    A reader may stop earlier than another only by refusing or by closing; one that is left
    waiting inside a message, where another has read it, disagrees.
    """
    for (one, reading), (two, theirs) in combinations(readings.items(), 2):
        why = _differ(reading, theirs)
        if why:
            return f"{one} and {two}: {why}\n  {reading}\n  {theirs}"
    return ""


def _differ(one: Reading, two: Reading) -> str:
    shorter, longer = sorted((one, two), key=lambda r: len(r.requests))
    count = len(shorter.requests)
    if shorter.requests != longer.requests[:count]:
        return "another request"
    if len(longer.requests) > count and shorter.end in (End.CLEAN, End.CUT):
        return "one reads on where the other waits"
    if {one.end, two.end} == {End.CLEAN, End.CUT}:
        return "one waits inside a message, the other is through"
    return ""

"""HTTP/2 that is damaged, forbidden or a flood: refused or cut, recorded, and others go on."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import hpack
import hyperframe.frame
import pytest
from aftermath import leaves_nothing
from egress_lab import Proxy
from frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MORE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RESET,
    SETTINGS,
    WINDOW,
    coded,
    frame,
    head,
    request,
)

SET = frame(SETTINGS)
POST = request(head(method="POST"), ends=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("http2"), head_s_max=1.0, idle_s_max=2.0)
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    """One for all tests of this module, with nothing in its record."""
    running.journal.records.clear()
    running.origin.requests.clear()
    return running


def said(proxy: Proxy, data: bytes, stream: int | None = None) -> list[hyperframe.frame.Frame]:
    """Send bytes; return the frames that come until the connection ends, or a stream does.

    Stream 0 stands for one that is asked for after all others.
    """
    got = b""
    last = frame(PING, payload=b"the last")
    with proxy.tunnel(alpn=("h2",)) as tls, contextlib.suppress(OSError):
        tls.sendall(data)
        tls.sendall(last)
        while (more := tls.recv(65_536)) and not _is_over(got := got + more, stream):
            pass
    return list(_frames(got))


def _frames(data: bytes) -> Iterator[hyperframe.frame.Frame]:
    while len(data) >= 9:
        one, size = hyperframe.frame.Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + size:
            return
        one.parse_body(memoryview(data[9 : 9 + size]))
        yield one
        data = data[9 + size :]


def _is_over(data: bytes, stream: int | None) -> bool:
    """Whether a stream has ended and all that was sent has been read."""
    if stream is None:
        return False
    frames = list(_frames(data)) if stream or data.endswith(b"the last") else []
    answered = any(getattr(each, "opaque_data", b"") == b"the last" for each in frames)
    ended = any(
        each.stream_id == stream
        and ("END_STREAM" in each.flags or isinstance(each, hyperframe.frame.RstStreamFrame))
        for each in frames
    )
    return answered and (ended or not stream)


def status_of(frames: list[hyperframe.frame.Frame]) -> str:
    """Return the status that stream 1 was answered with; empty for none."""
    decoder = hpack.Decoder()
    for each in frames:
        if isinstance(each, hyperframe.frame.HeadersFrame):
            fields = dict(decoder.decode(each.data))
            if each.stream_id == 1:
                return str(fields[":status"])
    return ""


def reasons(proxy: Proxy) -> set[str]:
    return {str(record.reason) for record in proxy.journal.records} - {"allowed"}


CUT = {
    # what breaks the connection: (bytes after the preface, GOAWAY's code)
    "settings of a length that is none": (frame(SETTINGS, payload=b"12345"), 6),
    "settings on a stream": (frame(SETTINGS, stream=1), 1),
    "acknowledged settings with a payload": (frame(SETTINGS, ACK, payload=b"123456"), 1),
    "a window size over the largest": (
        frame(SETTINGS, payload=struct.pack(">HI", 4, 2**31)), 3,
    ),
    "a frame size under the smallest": (frame(SETTINGS, payload=struct.pack(">HI", 5, 1)), 1),
    "a window of the connection that grows by nothing": (
        SET + frame(WINDOW, payload=b"\0\0\0\0"), 1,
    ),
    "a window over the largest": (SET + frame(WINDOW, payload=b"\x7f\xff\xff\xff") * 2, 3),
    "a window frame of 3 bytes": (SET + frame(WINDOW, payload=b"123"), 6),
    "data on no stream": (SET + frame(DATA, payload=b"x"), 1),
    "data on a stream that is none yet": (SET + frame(DATA, stream=1, payload=b"x"), 1),
    "a head on no stream": (SET + request(head(), stream=0), 1),
    "a stream of the server's": (SET + request(head(), stream=2), 1),
    "a promise of the client's": (
        SET + frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + head()), 1,
    ),
    "a head that does not decode": (SET + request(b"\xff\xff\xff\xff\xff"), 1),
    "an index beyond the table": (SET + request(b"\xfe"), 1),
    "padding longer than the frame": (
        SET + frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + head()), 1,
    ),
    "a frame over the size allowed": (SET + frame(DATA, 0, 1, b"x" * 140_000), 6),
    "a continuation of nothing": (SET + frame(MORE, END_HEADERS, 1, head()), 1),
    "a head interrupted by a ping": (
        SET + frame(HEADERS, END_STREAM, 1, head()) + frame(PING, payload=b"12345678"), 1,
    ),
    "a head interrupted by another stream's": (
        SET + frame(HEADERS, END_STREAM, 1, head()) + frame(MORE, END_HEADERS, 3, b""), 1,
    ),
    "a ping of 3 bytes": (SET + frame(PING, payload=b"123"), 6),
    "a ping on a stream": (SET + frame(PING, 0, 1, b"12345678"), 1),
    "a reset of a stream that is none": (SET + frame(RESET, 0, 1, b"\0\0\0\0"), 1),
    "a stream that depends on itself": (
        SET + POST + frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), 1,
    ),
    "a stream number that goes back": (
        SET + request(head(method="POST"), ends=False, stream=5) + request(head(), stream=3), 1,
    ),
    "no method": (SET + request(coded([(":scheme", "https"), (":path", "/")])), 1),
    "a method twice": (SET + request(head((":method", "GET"))), 1),
    "a pseudo-header that is none": (SET + request(head((":secret", "x"))), 1),
    "a pseudo-header after the others": (SET + request(head(("a", "b"), (":path", "/y"))), 1),
    "capital letters in a name": (SET + request(head(("X-Any", "1"))), 1),
    "a field of HTTP/1's connections": (SET + request(head(("connection", "close"))), 1),
    "chunks": (SET + request(head(("transfer-encoding", "chunked"))), 1),
    "te that is not trailers": (SET + request(head(("te", "gzip"))), 1),
    "white space around a value": (SET + request(head(("x-any", " 1 "))), 1),
    "an authority and another host": (SET + request(head(("host", "evil.test"))), 1),
    "more data than its length says": (
        SET + request(head(("content-length", "1"), method="POST"), ends=False)
        + frame(DATA, END_STREAM, 1, b"abc"), 1,
    ),
    "less data than its length says": (
        SET + request(head(("content-length", "9"), method="POST"), ends=False)
        + frame(DATA, END_STREAM, 1, b"abc"), 1,
    ),
    "a head of many continuations": (
        SET + frame(HEADERS, END_STREAM, 1, head()) + frame(MORE, 0, 1, b"") * 200, 1,
    ),
    "a head over the size allowed": (
        SET + request(head(*[(f"x-{n}", "y" * 4_000) for n in range(20)])), 11,
    ),
    "a head that unpacks to megabytes": (
        SET + request(head(("x", "y" * 4_000)) + b"\xbe" * 10_000), 11,
    ),
    "user information in the authority": (SET + request(head(authority="a@allowed.test")), 1),
    "an authority that is none": (SET + request(head(authority="allowed.test/x")), 1),
    "a line end in a value": (SET + request(head(("x-any", "a\r\nHost: evil.test"))), 1),
    "a line end in the path": (SET + request(head(path="/ HTTP/1.1\r\nHost: evil.test")), 1),
    "a method that is none": (SET + request(head(method="GET / HTTP/1.1\r\nX:")), 1),
    "a window that grows by nothing": (SET + POST + frame(WINDOW, 0, 1, b"\0\0\0\0"), 1),
    "more streams than allowed": (
        SET + b"".join(
            request(head(method="POST"), ends=False, stream=2 * number + 1) for number in range(150)
        ), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "code"), CUT.values(), ids=CUT)
def test_what_breaks_http_2_is_told_so_cut_and_recorded(
    proxy: Proxy, data: bytes, code: int
) -> None:
    with leaves_nothing(proxy):
        frames = said(proxy, PREFACE + data)
        away = [each for each in frames if isinstance(each, hyperframe.frame.GoAwayFrame)]
        assert [each.error_code for each in away][:1] == [code], frames
        assert "malformed" in reasons(proxy)
        assert all(not seen.complete for seen in proxy.origin.requests[1:])


REFUSED = {
    # what breaks a stream alone: (bytes after the preface, its status or its reset's code)
    "an end without data where a length is said": (
        request(head(("content-length", "9"), method="POST")), "400",
    ),
    "two lengths": (
        request(head(("content-length", "3"), ("content-length", "5"), method="POST"), ends=False)
        + frame(DATA, END_STREAM, 1, b"abc"), "400",
    ),
    "a signed length": (
        request(head(("content-length", "+3"), method="POST"), ends=False)
        + frame(DATA, END_STREAM, 1, b"abc"), "400",
    ),
    "another authority": (request(head(authority="a.sub.test")), "403"),
    "an absolute path": (request(head(path="https://evil.test/")), "400"),
    "a control character in a value": (request(head(("x-any", "a\x01b"))), "400"),
    "more fields than allowed": (request(head(*[(f"x-{n}", "y") for n in range(250)])), "431"),
    "a path over the size allowed": (request(head(path="/" + "x" * 17_000)), "431"),
    "a fragment": (request(head(path="/a#b")), "400"),
    "a backslash": (request(head(path="/a\\b")), "400"),
    "an asterisk": (request(head(path="*")), "400"),
    "a path with a space": (request(head(path="/a b")), "400"),
    "data after the end": (request(head()) + frame(DATA, 0, 1, b"x"), 5),
    "a stream's window over the largest": (POST + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff") * 2, 3),
}  # fmt: skip


@pytest.mark.parametrize(("data", "told"), REFUSED.values(), ids=REFUSED)
def test_what_breaks_a_stream_is_refused_or_reset_and_recorded(proxy, data, told):
    with leaves_nothing(proxy):
        frames = said(proxy, PREFACE + SET + data, stream=1)
        if isinstance(told, int):
            codes = [f.error_code for f in frames if isinstance(f, hyperframe.frame.RstStreamFrame)]
            assert codes == [told], frames
            proxy.wait_for(lambda: "client_gone" in reasons(proxy), "the outcome")
        else:
            assert status_of(frames) == told, frames
            assert reasons(proxy) & {"malformed", "name_mismatch", "limit_exceeded"}
        assert not [f for f in frames if isinstance(f, hyperframe.frame.GoAwayFrame)]
    assert all(b"evil" not in seen.head for seen in proxy.origin.requests)
    assert [seen.head.split(b" ")[1] for seen in proxy.origin.requests if seen.complete].count(
        b"/x"
    ) <= isinstance(told, int)


IGNORED = {
    "a kind of frame that is none": frame(250, 7, 1, b"anything"),
    "priorities": frame(PRIORITY, 0, 1, b"\0\0\0\3\0") * 50,
    "pings": frame(PING, payload=b"12345678") * 50,
    "settings": frame(SETTINGS, payload=struct.pack(">HI", 1, 0)) * 50,
    "a setting that is none": frame(SETTINGS, payload=struct.pack(">HI", 999, 7)),
    "windows": frame(WINDOW, payload=b"\0\0\0\1") * 50,
}


@pytest.mark.parametrize("data", IGNORED.values(), ids=IGNORED)
def test_what_http_2_allows_beside_a_request_does_it_no_harm(proxy, data):
    padded = frame(DATA, END_STREAM | PADDED, 1, b"\4abc\0\0\0\0")
    frames = said(proxy, PREFACE + SET + POST + data + padded, stream=1)
    assert status_of(frames) == "200", frames
    assert bytes(proxy.origin.requests[-1].body) == b"abc"


def _asked(count: int, then: bytes) -> bytes:
    return b"".join(
        request(head(method="POST"), ends=False, stream=2 * number + 1)
        + frame(RESET, 0, 2 * number + 1, then)
        for number in range(count)
    )


FLOODS = {
    "resets": _asked(200, b"\0\0\0\x08"),
    "pings": frame(PING, payload=b"12345678") * 4_000,
    "settings": frame(SETTINGS, payload=struct.pack(">HI", 4, 70_000)) * 2_000,
    "empty data": POST + frame(DATA, 0, 1, b"") * 4_000,
    "data of one byte": POST + frame(DATA, 0, 1, b"x") * 2_000,
    "priorities": frame(PRIORITY, 0, 1, b"\0\0\0\3\0") * 4_000,
    "windows": frame(WINDOW, payload=b"\0\0\0\1") * 4_000,
    "unknown frames": frame(250, 0, 0, b"x" * 1_000) * 2_000,
    "heads that never end": frame(HEADERS, END_STREAM, 1, head()) + frame(MORE, 0, 1, b"\0") * 50,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_leaves_others_served_and_nothing_behind(proxy, flood):
    with leaves_nothing(proxy):
        said(proxy, PREFACE + SET + flood, stream=0)

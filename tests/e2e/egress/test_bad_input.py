"""Bytes that two parsers could read differently are refused, and the rest goes on."""

from __future__ import annotations

import socket

import pytest

from aesp_proxy.intercept.egress.room import RoomLimits
from aesp_proxy.normalize.http_head import HeadLimits

OK = b"GET /ok HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
HOST = b"Host: allowed.test\r\n"
MALFORMED = {
    "two Host fields": b"GET / HTTP/1.1\r\n" + HOST + b"Host: evil.test\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "user information in Host": b"GET / HTTP/1.1\r\nHost: a@allowed.test\r\n\r\n",
    "length and chunked": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +4\r\n\r\nabcd",
    "unknown coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "coding twice": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF throughout": b"GET / HTTP/1.1\nHost: allowed.test\n\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "backslash": b"GET /a\\b HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form in a tunnel": b"GET http://evil.test/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT in a tunnel": b"CONNECT evil.test:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "binary": b"\x00\x01\x02\x03\r\n\r\n",
    "unknown expectation": b"GET / HTTP/1.1\r\n" + HOST + b"Expect: magic\r\n\r\n",
}
BAD_CHUNKS = {
    "not hexadecimal": b"zz\r\nab\r\n0\r\n\r\n",
    "negative": b"-1\r\nab\r\n0\r\n\r\n",
    "bare LF": b"2\nab\n0\n\n",
    "too long": b"1" * 17 + b"\r\n",
    "no CRLF after the chunk": b"2\r\nabX\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_an_ambiguous_head_is_a_400_and_nothing_is_forwarded(proxy, request_bytes):
    answer = proxy.ask(request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b'"reason": "malformed"' in answer
    assert proxy.origin.requests == []
    assert proxy.journal.records[-1].reason in ("malformed", "allowed")
    assert proxy.ask(OK).endswith(b"0 bytes")


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_bad_chunk_framing_is_refused(proxy, body):
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert proxy.ask(head + body).startswith(b"HTTP/1.1 400 ")
    assert all(not seen.complete for seen in proxy.origin.requests)


@pytest.mark.parametrize(
    "first",
    [b"CONNECT allowed.test HTTP/1.1\r\n\r\n", b"CONNECT allowed.test:0 HTTP/1.1\r\n\r\n",
     b"CONNECT a@allowed.test:443 HTTP/1.1\r\n\r\n", b"CONNECT allowed.test:443 HTTP/1.1\n\n",
     b"CONNECT /allowed.test:443 HTTP/1.1\r\n\r\n", b"GET /relative HTTP/1.1\r\nHost: x\r\n\r\n",
     b"GET https://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
     b"GET http://plain.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", b"\x16\x03\x01\x00\x05hello"],
)  # fmt: skip
def test_an_ambiguous_first_line_is_refused(proxy, answer_of, first):
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(first)
        sock.shutdown(socket.SHUT_WR)
        assert answer_of(sock).startswith(b"HTTP/1.1 400 ")
    assert proxy.origin.connections == 0


def test_a_request_line_of_1_mb_is_refused(proxy):
    answer = proxy.ask(b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"limit_exceeded" in answer


def test_ten_thousand_headers_are_refused(proxy):
    fields = b"".join(b"X-%d: y\r\n" % n for n in range(10_000))
    answer = proxy.ask(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert proxy.origin.requests == []


def test_more_fields_than_allowed_in_a_small_head_are_refused(proxy):
    count = HeadLimits().header_count_max + 1
    fields = b"".join(b"X-%d: y\r\n" % n for n in range(count))
    answer = proxy.ask(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_body_that_ends_early_is_refused_and_never_looks_complete(proxy):
    with proxy.tunnel() as tls:
        tls.sendall(
            b"POST /up HTTP/1.1\r\n" + HOST + b"Content-Length: 5000\r\n\r\n" + b"a" * 4_000
        )
        proxy.wait_for(lambda: proxy.origin.requests, "the upload began")
    proxy.wait_for(
        lambda: any(r.reason in ("malformed", "client_gone") for r in proxy.journal.records),
        "the early end was recorded",
    )
    assert not proxy.origin.requests[0].complete


def test_a_slow_head_is_cut_while_others_are_served(start, answer_of):
    proxy = start(head_s_max=0.2)
    with proxy.tunnel() as slow:
        slow.sendall(b"GET / HT")
        assert proxy.ask(OK).endswith(b"0 bytes")
        assert answer_of(slow) == b""
    assert any(r.reason == "limit_exceeded" for r in proxy.journal.records)


def test_a_client_that_says_nothing_is_cut(start):
    proxy = start(head_s_max=0.2)
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        assert sock.recv(1) == b""


def test_a_connection_made_ahead_of_its_first_request_is_kept(start, answer_of):
    proxy = start(head_s_max=0.2)
    with proxy.tunnel() as tls:
        tls.settimeout(1.5)  # longer than a sweep and the time for a head
        with pytest.raises(TimeoutError):
            tls.recv(1)
        tls.sendall(OK)
        assert answer_of(tls).endswith(b"0 bytes")


def test_connections_over_the_limit_are_refused_and_the_others_live(start, answer_of):
    proxy = start(room=RoomLimits(connections_max=2))
    with proxy.tunnel() as first, proxy.tunnel():
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as third:
            assert b"limit_exceeded" in answer_of(third)
        first.sendall(OK)
        assert answer_of(first).endswith(b"0 bytes")


def test_a_client_that_resets_at_every_stage_harms_nobody(proxy):
    stages = [b"", b"CONN", b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n"]
    for stage in stages:
        sock = socket.create_connection(("127.0.0.1", proxy.port), 10)
        sock.sendall(stage)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    assert proxy.ask(OK).endswith(b"0 bytes")
    proxy.wait_for(lambda: proxy.interceptor.open_connections == 0, "all conversations ended")

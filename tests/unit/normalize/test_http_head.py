"""HTTP/1 heads: one reading or a refusal, and never a looser one than h11's."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_head import (
    HeadLimits,
    opens_websocket,
    parse_request_head,
    parse_response_head,
)
from aesp_proxy.normalize.http_rewrite import response_head, upstream_head

LIMITS = HeadLimits()
HEAD = b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\n\r\n"

_fragments = st.sampled_from(
    [
        b"GET ", b"POST ", b"/", b"/a", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"\0",
        b"Host: a.test", b"Host:b", b" ", b"\t", b":", b"Content-Length: 3", b"Content-Length: 03",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked ", b"Connection: close",
        b"Connection: x, keep-alive", b"X: \xff", b"X:", b": y", b"Expect: 100-continue", b"#",
        b"\\",
    ]
)  # fmt: skip
_heads = st.lists(_fragments, max_size=14).map(lambda parts: b"".join(parts) + b"\r\n\r\n")


def h11_reads(head: bytes) -> h11.Request | None:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


@given(_heads)
@example(HEAD)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
def test_what_we_accept_h11_accepts_and_reads_the_same(head):
    end = head.index(b"\r\n\r\n") + 4
    head = head[:end]
    try:
        ours = parse_request_head(head, LIMITS)
    except InputError:
        return
    if ours.minor_version == 1 and not ours.host:
        return  # refused one step later, by tunnel_target and absolute_target
    theirs = h11_reads(head)
    assert theirs is not None
    assert theirs.method.decode() == ours.method
    assert theirs.target.decode() == ours.target
    assert tuple(theirs.headers) == ours.headers


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_head_or_an_input_error(data):
    for parse in (
        lambda d: parse_request_head(d, LIMITS),
        lambda d: parse_response_head(d, LIMITS, request_method="GET"),
    ):
        with contextlib.suppress(InputError):
            parse(data + b"\r\n\r\n")


def test_a_plain_head_goes_upstream_as_it_came():
    head = parse_request_head(HEAD, LIMITS)
    assert upstream_head(head, head.target, "example.com") == HEAD


@pytest.mark.parametrize(
    "field",
    [
        b"Proxy-Authorization: Basic eA==", b"Proxy-Connection: keep-alive",
        b"Keep-Alive: timeout=5", b"Connection: X-A", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk",
        b"TE: gzip", b"Connection: Upgrade, HTTP2-Settings",
    ],
)  # fmt: skip
def test_fields_of_one_hop_do_not_go_upstream(field):
    head = parse_request_head(HEAD.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n"), LIMITS)
    sent = upstream_head(head, head.target, "example.com").lower()
    name = field.split(b":")[0].lower()
    assert b"\r\n" + name + b":" not in sent
    assert b"\r\nhost: example.com\r\n" in sent
    if field == b"Connection: X-A":
        assert b"x-a" not in sent


def test_te_trailers_is_renewed_for_the_next_hop():
    head = parse_request_head(HEAD.replace(b"X-A: 1", b"TE: trailers"), LIMITS)
    assert upstream_head(head, "/", "x").endswith(b"TE: trailers\r\nConnection: TE\r\n\r\n")


def test_connection_cannot_name_away_what_frames_the_message():
    request = (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        b"Connection: content-length, host, x-b\r\nX-B: 1\r\n\r\n"
    )
    sent = upstream_head(parse_request_head(request, LIMITS), "/", "a").lower()
    assert b"content-length: 3\r\n" in sent
    assert b"host: a\r\n" in sent
    assert b"x-b" not in sent


@pytest.mark.parametrize(
    "field",
    [
        b"X:y", b"X:\ty", b"X: y ", b"X:  y", b"X: y\t", b"X:", b"Content-Length: 007",
        b"Content-Length:\t7", b"Content-Length: 7 ",
    ],
)  # fmt: skip
def test_a_field_that_is_spelled_oddly_goes_upstream_in_the_one_spelling(field):
    name, _, value = field.lower().partition(b":")
    value = b"7" if name == b"content-length" else value.strip()
    head = parse_request_head(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n", LIMITS)
    sent = upstream_head(head, "/", "a").lower()
    assert sent == b"post / http/1.1\r\nhost: a\r\n" + name + b": " + value + b"\r\n\r\n"


def test_a_host_that_is_empty_or_another_is_sent_once_and_as_decided():
    for written in (b"", b"A.TEST", b"a.test."):
        request = b"GET / HTTP/1.0\r\nX: y\r\nHost: " + written + b"\r\n\r\n"
        sent = upstream_head(parse_request_head(request, LIMITS), "/", "a.test")
        assert sent == b"GET / HTTP/1.0\r\nHost: a.test\r\nX: y\r\n\r\n"


def test_an_upgrade_without_a_connection_field_is_none():
    request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
    assert not opens_websocket(parse_request_head(request + b"\r\n", LIMITS))
    assert opens_websocket(parse_request_head(request + b"Connection: Upgrade\r\n\r\n", LIMITS))


def test_an_http_1_0_request_without_host_gets_one():
    head = parse_request_head(b"GET / HTTP/1.0\r\n\r\n", LIMITS)
    assert upstream_head(head, "/", "a.test") == b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "head", "body_bytes"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0),
        ("GET", b"HTTP/1.1 204 No\r\n\r\n", 0),
        ("GET", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", 0),
        ("GET", b"HTTP/1.1 200\r\nContent-Length: 9\r\n\r\n", 9),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\n", -1),
    ],
)
def test_where_a_response_body_ends(method, head, body_bytes):
    parsed = parse_response_head(head, LIMITS, request_method=method)
    assert parsed.body_bytes == body_bytes


def test_alt_svc_is_taken_out_whatever_its_case():
    head = b"HTTP/1.1 200 OK\r\nA: 1\r\nALT-SVC: h3\r\nB: 2\r\n\r\n"
    parsed = parse_response_head(head, LIMITS, request_method="GET")
    assert response_head(parsed) == b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n"

"""HTTP/1.1 through the proxy: what is allowed works unharmed, what is refused never leaves."""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import ssl

import pytest
from egress_lab import CANARY

GET = b"GET /%b HTTP/1.1\r\nHost: allowed.test\r\n\r\n"


def problem(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return json.loads(body)


def post(body: bytes, *fields: bytes) -> bytes:
    lines = b"".join(f + b"\r\n" for f in fields)
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /up HTTP/1.1\r\nHost: allowed.test\r\n" + length + lines + b"\r\n" + body


def test_an_allowed_request_passes_and_is_recorded_before_and_after(proxy):
    assert proxy.ask(GET % b"x").endswith(b"0 bytes")
    proxy.wait_for(lambda: len(proxy.journal.records) >= 4, "four records")
    kinds = [(r.kind.value, r.action, r.reason) for r in proxy.journal.records]
    assert kinds[:3] == [
        ("decision", "tcp.connect", "allowed"),
        ("decision", "http.get", "allowed"),
        ("outcome", "http.get", "allowed"),
    ]
    outcome = proxy.journal.records[2]
    assert outcome.status == 200
    assert outcome.bytes_in == 7
    assert outcome.upstream_address.startswith("127.0.0.1:")
    assert outcome.resource == "https://allowed.test:443/x"


def test_a_query_is_never_recorded(proxy):
    proxy.ask(GET % b"find?q=private")
    assert all("private" not in repr(record) for record in proxy.journal.records)


def test_a_refused_connect_says_why_in_its_body(proxy):
    sock, answer = proxy.connect("evil.test:443")
    sock.close()
    assert answer.startswith(b"HTTP/1.1 403 Forbidden (AESP Proxy: host_blocked)\r\n")
    error = problem(answer)
    assert error["reason"] == "host_blocked"
    assert error["code"] == "POLICY_VIOLATION"
    assert error["message"]
    assert error["remediation_steps"]
    assert error["retry_after_ms"] == 0
    assert error["correlation_id"].endswith("/1")
    assert proxy.journal.records[0].outcome.value == "DENIED"
    assert proxy.origin.connections == 0


def test_a_host_outside_the_allow_list_is_refused(proxy):
    sock, answer = proxy.connect("unknown.test:443")
    sock.close()
    assert problem(answer)["reason"] == "host_not_allowed"


@pytest.mark.parametrize("port", [22, 25, 8443])
def test_another_port_of_an_allowed_host_is_refused(proxy, port):
    sock, answer = proxy.connect(f"allowed.test:{port}")
    sock.close()
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_plain_http_in_absolute_form_goes_through_the_same_policy(proxy, answer_of):
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(b"GET http://plain.test/a HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        assert answer_of(sock).endswith(b"0 bytes")
        sock.sendall(b"GET http://evil.test/a HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        assert b"host_blocked" in answer_of(sock)
        sock.sendall(b"GET http://plain.test/b HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        assert answer_of(sock).endswith(b"0 bytes")
    assert [s.head.split(b" ")[1] for s in proxy.origin.requests] == [b"/a", b"/b"]


BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JAVA = b"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [(BROWSER, b"text/html; charset=utf-8"), (JAVA, b"application/problem+json")],
    ids=["browser", "java"],
)
def test_a_browser_gets_a_page_and_a_program_that_takes_html_does_not(
    proxy, canary, accept, content_type
):
    ask = b"GET /%b HTTP/1.1\r\nHost: allowed.test\r\nAccept: %b\r\n\r\n" % (canary, accept)
    answer = proxy.ask(ask)
    assert b"403" in answer[:20]
    assert b"\r\nContent-Type: %b\r\n" % content_type in answer
    assert b"secret_found" in answer
    assert canary not in answer


@pytest.mark.parametrize(
    "request_with",
    [
        lambda s: GET % (b"a?token=" + s),
        lambda s: GET % (b"a/" + s.replace(b"C", b"%43", 1)),
        lambda s: b"GET / HTTP/1.1\r\nHost: allowed.test\r\nX-Any: " + s + b"\r\n\r\n",
        lambda s: b"GET / HTTP/1.1\r\nHost: allowed.test\r\nCookie: a=b; t=" + s + b"\r\n\r\n",
        lambda s: post(b'{"key": "' + s + b'"}'),
        lambda s: post(gzip.compress(b"x" * 500 + s + b"y" * 500), b"Content-Encoding: gzip"),
    ],
    ids=["query", "percent-encoded path", "header", "cookie", "body", "gzip body"],
)
def test_a_secret_is_refused_and_reaches_nobody(proxy, canary, request_with):
    answer = proxy.ask(request_with(canary))
    error = problem(answer)
    assert error["reason"] == "secret_found"
    assert canary not in answer
    assert all(canary not in s.head + bytes(s.body) for s in proxy.origin.requests)
    assert canary.decode() not in repr(proxy.journal.records)
    finding = next(r for r in proxy.journal.records if r.reason == "secret_found").findings[0]
    assert finding.rule == "corp_token"
    assert finding.masked
    assert canary.decode() not in finding.masked


def test_a_small_leak_does_not_even_open_an_upstream_connection(proxy, canary):
    proxy.ask(post(canary))
    assert proxy.origin.connections == 0


def test_a_secret_inside_a_20_mb_upload_stops_it_before_a_byte_of_it_leaves(proxy, canary):
    body = b"a" * 12_000_000 + canary + b"b" * 8_000_000
    with proxy.tunnel() as tls:
        answer = _send_until_answered(tls, post(body))
        answer += _read(tls) if b"}" not in answer else b""
    assert b"secret_found" in answer
    proxy.wait_for(lambda: proxy.origin.requests, "the upload began")
    seen = proxy.origin.requests[0]
    assert not seen.complete
    assert set(seen.body) == {ord("a")}
    assert len(seen.body) <= 12_000_000


@pytest.mark.parametrize("cut", range(1, 37, 5))
def test_a_secret_split_over_writes_is_stopped(proxy, canary, cut):
    request = post(b"a" * 5_000 + canary + b"b" * 5_000)
    at = request.index(canary) + cut
    with proxy.tunnel() as tls:
        tls.sendall(request[:at])
        tls.sendall(request[at:])
        assert b"secret_found" in _read(tls)
    assert all(canary[:8] not in bytes(s.body) for s in proxy.origin.requests)


def test_a_secret_split_over_chunks_and_one_in_trailers_are_stopped(proxy, canary):
    head = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(p), p) for p in (b"x" * 99, canary[:7], canary[7:], b"y")]
    assert b"secret_found" in proxy.ask(head + b"".join(pieces) + b"0\r\n\r\n")
    assert b"secret_found" in proxy.ask(head + b"1\r\nx\r\n0\r\nX-Sum: " + canary + b"\r\n\r\n")
    assert all(canary not in s.trailers + s.body for s in proxy.origin.requests)


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"rot13"])
def test_a_body_that_cannot_be_scanned_is_refused(proxy, encoding):
    answer = proxy.ask(post(b"anything", b"Content-Encoding: " + encoding))
    assert problem(answer)["reason"] == "unscannable"
    assert proxy.origin.requests == []


def test_a_compression_bomb_is_refused(proxy):
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert problem(proxy.ask(post(bomb, b"Content-Encoding: gzip")))["reason"] == "unscannable"


def test_large_bodies_arrive_whole_both_framings(proxy):
    body = bytes(range(256)) * 12_000
    assert proxy.ask(post(body)).endswith(b"%d bytes" % len(body))
    chunks = b"".join(
        b"%x;ext=1\r\n%b\r\n" % (len(p), p) for p in (body[:1], body[1:9_000], body[9_000:])
    )
    head = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = proxy.ask(head + chunks + b"0\r\nX-Sum: 7\r\n\r\n")
    assert answer.endswith(b"%d bytes" % len(body))
    assert [bytes(s.body) == body for s in proxy.origin.requests] == [True, True]
    assert proxy.origin.requests[1].trailers == b"x-sum: 7\r\n"


def test_events_pass_one_by_one(proxy):
    with proxy.tunnel() as tls:
        tls.sendall(GET % b"events")
        got = b""
        while b"data: 0" not in got:
            got += tls.recv(4096)
        assert b"data: 1" not in got  # the origin waits until we have seen the first
        proxy.origin.release.set()
        while b"data: 1" not in got:
            got += tls.recv(4096)


def test_interim_responses_and_trailers_pass_and_alt_svc_does_not(proxy):
    with proxy.tunnel() as tls:
        tls.sendall(GET % b"hints")
        got = b""
        while not got.endswith(b"\r\n\r\nok"):
            got += tls.recv(4096)
        assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>")
        assert b"alt-svc" not in got.lower()
        tls.sendall(GET % b"trailers")
        got = b""
        while not got.lower().endswith(b"x-sum: 1\r\n\r\n"):
            got += tls.recv(4096)


def test_expect_100_continue_is_answered_by_the_origin_not_by_us(proxy):
    with proxy.tunnel() as tls:
        tls.sendall(post(b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 5"))
        assert tls.recv(4096).startswith(b"HTTP/1.1 100 ")
        tls.sendall(b"hello")
        assert _read(tls).endswith(b"5 bytes")


def test_a_refusal_does_not_invite_the_body(proxy, canary):
    fields = (b"Expect: 100-continue", b"X-T: " + canary)
    with proxy.tunnel() as tls:
        tls.sendall(post(b"", *fields).replace(b"Length: 0", b"Length: 5"))
        assert tls.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_an_early_answer_reaches_the_client(proxy):
    with proxy.tunnel() as tls:
        tls.sendall(b"POST /early HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 9000\r\n\r\n")
        tls.sendall(b"a" * 4_000)
        assert tls.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_connections_are_kept_and_pipelined_requests_answered_in_order(proxy, canary):
    with proxy.tunnel() as tls:
        tls.sendall(GET % b"1" + GET % canary + GET % b"3")
        got = b""
        while got.count(b"0 bytes") < 2:
            got += tls.recv(65_536)
        assert got.index(b"0 bytes") < got.index(b"secret_found") < got.rindex(b"0 bytes")
    assert proxy.origin.connections == 1


def test_a_kept_upstream_connection_that_died_is_replaced(proxy):
    with proxy.tunnel() as tls:
        for _ in range(3):
            tls.sendall(GET % b"close-after")
            assert _read(tls).endswith(b"ok")
    assert proxy.origin.connections == 3


def test_http_1_0_and_bodies_until_close_work(proxy):
    assert proxy.ask(b"GET /until-close HTTP/1.0\r\n\r\n").endswith(b"until close")
    assert proxy.ask(GET % b"until-close").endswith(b"until close")


@pytest.mark.parametrize(
    ("host", "path", "reason"),
    [
        ("down.test", b"x", "upstream_failed"),
        ("other.test", b"x", "upstream_untrusted"),
        ("allowed.test", b"garbage", "upstream_failed"),
    ],
    ids=["refused", "certificate of another name", "malformed answer"],
)
def test_a_broken_upstream_is_a_502_that_says_so(proxy, host, path, reason):
    answer = proxy.ask((GET % path).replace(b"allowed.test", host.encode()), host)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert problem(answer)["reason"] == reason
    outcome = (
        proxy.journal.records[-1]
        if proxy.journal.records[-1].action != "tcp.connect"
        else proxy.journal.records[-2]
    )
    assert (outcome.outcome.value, outcome.reason) == ("FAILURE", reason)


def test_an_answer_that_is_cut_off_is_not_made_to_look_whole(proxy):
    answer = proxy.ask(GET % b"cut")
    assert answer.endswith(b"half")
    proxy.wait_for(
        lambda: any(r.reason == "upstream_failed" for r in proxy.journal.records), "the outcome"
    )


def test_an_allowed_name_that_resolves_to_loopback_is_refused(proxy):
    answer = proxy.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "localhost")
    assert problem(answer)["reason"] == "address_forbidden"
    assert proxy.origin.connections == 0


def test_names_that_disagree_are_refused_and_all_three_recorded(proxy):
    with proxy.tunnel("allowed.test") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a.sub.test\r\n\r\n")
        assert b"name_mismatch" in _read(tls)
    record = next(r for r in proxy.journal.records if r.reason == "name_mismatch")
    assert "a.sub.test" in record.message
    assert "allowed.test" in record.message
    assert proxy.origin.requests == []


def test_an_sni_that_names_another_host_is_refused(proxy):
    with proxy.tunnel("allowed.test", sni="a.sub.test") as tls:
        tls.sendall(GET % b"x")
        assert b"name_mismatch" in _read(tls)


def _send_until_answered(sock: ssl.SSLSocket, data: bytes) -> bytes:
    """Send as a careful client does: read whenever something is there, stop at an answer."""
    view, answer = memoryview(data), b""
    while view and not answer:
        if select.select([sock], [], [], 0)[0]:
            sock.settimeout(0)
            with contextlib.suppress(ssl.SSLWantReadError):  # a session ticket, no data yet
                answer = sock.recv(65_536)
            sock.settimeout(10)
        else:
            view = view[sock.send(view[:262_144]) :]
    return answer


def _read(sock: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            more = sock.recv(65_536)
        except OSError:
            return data
        data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [int(x[15:]) for x in head.split(b"\r\n") if x.startswith(b"Content-Length:")]
        if not more or (lengths and len(body) >= lengths[0]):
            return data


def read_strictly(proxy, target: bytes, fields: bytes = b"") -> bytes:
    """Read to the end of TLS as strict clients do, which take a missing alert for a cut."""
    sock, _ = proxy.connect("allowed.test:443")
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    said = b""
    with context.wrap_socket(
        sock, server_hostname="allowed.test", suppress_ragged_eofs=False
    ) as tls:
        tls.sendall(b"GET %b HTTP/1.1\r\nHost: allowed.test\r\n%b\r\n" % (target, fields))
        while data := tls.recv(65_536):
            said += data
    return said


@pytest.mark.parametrize(
    ("target", "fields", "end"),
    [
        (b"/a", b"Connection: close\r\n", b"0 bytes"),
        (b"/until-close", b"", b"until close"),
        (b"/%b" % CANARY, b"Connection: close\r\n", b"}"),
        (b"/a\0", b"", b"}"),
    ],
    ids=["asked-to-close", "until-close", "refused", "malformed"],
)
def test_tls_ends_with_its_alert_when_the_answer_is_whole(proxy, target, fields, end):
    assert read_strictly(proxy, target, fields).endswith(end)


def test_tls_ends_without_its_alert_when_the_answer_is_cut(proxy):
    with pytest.raises(ssl.SSLEOFError):
        read_strictly(proxy, b"/cut")

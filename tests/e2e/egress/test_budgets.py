"""The operator's bounds on a session: what is over them is refused, recorded, and never leaves."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from egress_lab import POLICY, Proxy
from entries import Peer, rest
from h2_client import H2Client

from aesp_proxy.daemon.budget import SendBudget, SendLimits
from aesp_proxy.intercept.egress.dialler import StaticAddress

GET = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n"


@pytest.fixture
def bounded(start: Callable[..., Proxy]) -> Callable[..., Proxy]:
    """Start a proxy whose session may send so much."""

    def begin(policy: str = POLICY, **limits: int) -> Proxy:
        proxy = start(policy, silence_s=0.05)
        proxy.pipeline.budget = SendBudget(SendLimits(**limits))
        return proxy

    return begin


def problem(answer: bytes) -> dict[str, object]:
    error: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return error


def post(length: int) -> bytes:
    return b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n" % length


def refusals(proxy: Proxy) -> list[str]:
    return [r.guard for r in proxy.journal.records if r.reason == "limit_exceeded"]


def test_requests_over_the_number_of_a_session_are_refused_and_recorded(bounded):
    proxy = bounded(requests_max=2)
    assert all(proxy.ask(GET).startswith(b"HTTP/1.1 200 ") for _ in range(2))
    answer = proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests (AESP Proxy: limit_exceeded)\r\n")
    error = problem(answer)
    assert (error["reason"], error["code"]) == ("limit_exceeded", "QUOTA_EXCEEDED")
    assert error["message"] == "the session has sent 2 requests, as many as it may"
    assert error["retry_after_ms"] == 0
    assert len(proxy.origin.requests) == 2
    assert "budget" in refusals(proxy)


def test_refused_requests_do_not_use_up_the_number(bounded, canary):
    proxy = bounded(requests_max=1)
    secret = b"GET /%b HTTP/1.1\r\nHost: allowed.test\r\n\r\n" % canary
    assert problem(proxy.ask(secret))["reason"] == "secret_found"
    assert proxy.ask(GET).startswith(b"HTTP/1.1 200 ")


def test_requests_over_the_number_a_minute_are_told_to_wait(bounded):
    proxy = bounded(requests_per_minute_max=2)
    now_ns = [10**9]
    proxy.pipeline._monotonic_ns = lambda: now_ns[0]
    assert all(proxy.ask(GET).startswith(b"HTTP/1.1 200 ") for _ in range(2))
    now_ns[0] += 59 * 10**9
    answer = proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 60\r\n" in answer
    assert problem(answer)["message"] == "over 2 requests a minute; the next in 2 s"
    now_ns[0] += 2 * 10**9
    assert proxy.ask(GET).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_says_it_is_too_long_is_refused_before_any_of_it(bounded):
    proxy = bounded(bytes_out_max=10_000)
    answer = proxy.ask(post(10_000))
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert proxy.origin.requests == []
    assert proxy.ask(post(5_000) + b"x" * 5_000).endswith(b"5000 bytes")


def test_a_chunked_body_is_cut_where_the_bytes_are_used_up(bounded, answer_of):
    proxy = bounded(bytes_out_max=100_000)
    with proxy.tunnel() as tls:
        head = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        tls.sendall(head)
        proxy.wait_for(lambda: proxy.origin.requests, "the head")
        for _ in range(20):
            tls.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        answer = answer_of(tls)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert "the session may send 100000 bytes" in str(problem(answer)["message"])
    proxy.wait_for(lambda: "budget" in refusals(proxy), "the refusal")
    seen = proxy.origin.requests[0]
    assert not seen.complete
    assert len(seen.body) <= 100_000


def test_targets_and_fields_count_as_bytes(bounded):
    proxy = bounded(bytes_out_max=3_000)
    long = b"GET /%b HTTP/1.1\r\nHost: allowed.test\r\nX: %b\r\n\r\n" % (b"p" * 1_000, b"f" * 900)
    assert proxy.ask(long).startswith(b"HTTP/1.1 200 ")
    assert proxy.ask(long).startswith(b"HTTP/1.1 429 ")


def test_bodies_at_once_share_one_budget_over_http_2(bounded):
    proxy = bounded(bytes_out_max=50_000)
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        assert client.ask("/a", b"x" * 40_000) == (200, b"40000 bytes")
        status, body = client.ask("/b", b"x" * 40_000)
    assert status == 429
    assert json.loads(body)["reason"] == "limit_exceeded"
    assert sum(len(seen.body) for seen in proxy.origin.requests) <= 50_000


def test_bytes_relayed_unread_are_cut_where_they_are_used_up(bounded):
    policy = POLICY.replace('"plain.test"', '"plain.test", "ssh.test:22"')
    proxy = bounded(policy, bytes_out_max=10_000, requests_max=1)
    peer = Peer(first=b"hello\n")
    proxy.interceptor._settings.static["ssh.test", None] = StaticAddress(
        address="127.0.0.1", port=peer.port
    )
    try:
        sock, answer = proxy.connect("ssh.test:22")
        assert answer.startswith(b"HTTP/1.1 200 ")
        with sock:
            assert sock.recv(100) == b"hello\n"
            sock.sendall(b"x" * 10_000)
            proxy.wait_for(lambda: peer.received and len(peer.received[0]) == 10_000, "bytes")
            sock.sendall(b"y")
            assert rest(sock) == b""
        assert peer.received == [b"x" * 10_000]
        assert "budget" in refusals(proxy)
        assert proxy.ask(GET).startswith(b"HTTP/1.1 429 ")  # the connection was one request
    finally:
        peer.stop()


def test_what_rules_are_told_of_the_session_stays_as_it_is(bounded):
    proxy = bounded(bytes_out_max=100_000)
    proxy.ask(post(5) + b"12345")
    proxy.wait_for(lambda: proxy.pipeline.session.context().session.bytes_out, "the outcome")
    session = proxy.pipeline.session.context().session
    assert (session.egress_count, session.bytes_out) == (1, 5)

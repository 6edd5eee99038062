"""What HTTP/2 clients are answered, by hosts that speak HTTP/2 and by those that do not."""

from __future__ import annotations

import json

import pytest
from h2_client import H2Client
from h2_origin import H2Origin

from aesp_proxy.intercept.egress.dialler import StaticAddress


@pytest.fixture
def h2_origin(proxy):
    origin = H2Origin(proxy.directory / "leaf.pem")
    static = proxy.interceptor._settings.static
    try:
        static["allowed.test", None] = StaticAddress(address="127.0.0.1", port=origin.port)
        yield origin
    finally:
        origin.stop()


@pytest.fixture(params=["HTTP/2", "HTTP/1.1"])
def client(proxy, request):
    """An HTTP/2 client; its origin speaks each version in turn."""
    if request.param == "HTTP/2":
        request.getfixturevalue("h2_origin")
    with proxy.tunnel(alpn=("h2",)) as tls:
        yield H2Client(tls)


def outcome(proxy):
    proxy.wait_for(
        lambda: any(r.kind == "outcome" and r.status for r in proxy.journal.records), "the outcome"
    )
    return next(r for r in proxy.journal.records if r.kind == "outcome" and r.status)


def test_interim_responses_pass(client):
    assert client.ask("/hints")[0] == 200
    assert client.interim == [{":status": "103", "link": "</style.css>"}]
    assert client.ask("/after")[0] == 200


def test_trailers_of_a_response_pass(client):
    assert client.ask("/trailers") == (200, b"ok")
    assert client.trailers == {"x-sum": "1"}


def test_who_waits_for_100_is_told_by_the_origin(client):
    stream = client.begin("/up", expect="100-continue", **{"content-length": "5"})
    assert client.interim[0][":status"] == "100"
    assert client.finish(stream, b"hello") == (200, b"5 bytes")


def test_a_refusal_is_the_answer_to_who_waits_for_100(proxy, canary):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        secret = {"expect": "100-continue", "x-key": canary.decode()}
        assert client.ask("/up", b"hello", **secret)[0] == 403
    assert client.interim == []
    assert proxy.origin.requests == []


def test_trailers_of_a_request_pass_and_are_scanned(proxy, h2_origin, canary):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        client.ask("/first")
        stream = client.begin("/up", expect="100-continue")
        assert client.finish(stream, b"hello", {"x-sum": "7"}) == (200, b"5 bytes")
        stream = client.begin("/up", expect="100-continue")
        status, body = client.finish(stream, b"hello", {"x-sum": canary.decode()})
        assert (status, b"secret_found" in body) == (403, True)
    assert h2_origin.trailers == [{"x-sum": "7"}]


@pytest.mark.parametrize("name", ["content-length", "host", "authorization", "cookie"])
def test_trailers_that_belong_in_the_head_are_refused(proxy, name):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls, is_honest=False)
        stream = client.begin("/up", expect="100-continue")
        assert client.finish(stream, b"hello", {name: "1"})[0] == 400
    assert not proxy.origin.requests[0].complete
    assert proxy.journal.records[-1].reason in ("malformed", "allowed")


def test_trailers_of_a_request_reach_a_host_that_speaks_http_1(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        stream = client.begin("/up", expect="100-continue")
        assert client.finish(stream, b"hello", {"x-sum": "7"}) == (200, b"5 bytes")
    assert proxy.origin.requests[0].trailers == b"x-sum: 7\r\n"


def test_an_early_answer_is_the_whole_answer(proxy, h2_origin):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        assert client.ask("/early", b"x" * 200_000)[0] == 413
        assert client.reset in (None, 0)
        assert client.ask("/after")[0] == 200
    assert (outcome(proxy).status, outcome(proxy).reason) == (413, "allowed")


@pytest.mark.parametrize("path", ["/alt-svc", "/hints"])
def test_alternative_services_are_taken_out(client, path):
    assert client.ask(path)[0] == 200
    assert "alt-svc" not in client.head
    assert all("alt-svc" not in head for head in client.interim)


def test_bodies_until_the_end_of_the_connection_are_whole(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        assert H2Client(tls).ask("/until-close") == (200, b"until close")


def test_an_answer_that_is_cut_off_is_not_made_to_look_whole(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        assert client.ask("/cut") == (200, b"half")
        assert client.reset not in (None, 0)
    proxy.wait_for(
        lambda: any(r.reason == "upstream_failed" for r in proxy.journal.records), "the outcome"
    )


def test_a_malformed_answer_is_a_502(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        status, body = H2Client(tls).ask("/garbage")
    assert (status, json.loads(body)["reason"]) == (502, "upstream_failed")


def test_a_large_body_arrives_whole(proxy, h2_origin):
    with proxy.tunnel(alpn=("h2",)) as tls:
        assert H2Client(tls).ask("/big/3000000") == (200, b"x" * 3_000_000)


def test_tls_sessions_are_resumed(proxy, h2_origin):
    for _ in range(3):
        with proxy.tunnel(alpn=("h2",)) as tls:
            assert H2Client(tls).ask("/x")[0] == 200
    assert h2_origin.resumed == [False, True, True]


# An upgrade that a host declines is answered through the same layer, over HTTP/1.1.

UPGRADE = (
    b"GET /%b HTTP/1.1\r\nHost: allowed.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%b\r\n"
)


@pytest.mark.parametrize(
    ("path", "begins", "ends"),
    [
        (b"x", b"HTTP/1.1 200 OK\r\n", b"0 bytes"),
        (b"hints", b"HTTP/1.1 103 Early Hints\r\n", b"\r\n\r\nok"),
        (b"trailers", b"HTTP/1.1 200 OK\r\n", b"2\r\nok\r\n0\r\n\r\n"),
        (b"garbage", b"HTTP/1.1 502 ", b"}"),
    ],
)
def test_an_upgrade_that_is_declined_is_an_answer(proxy, path, begins, ends):
    with proxy.tunnel() as tls:
        tls.sendall(UPGRADE % (path, b""))
        got = b""
        while not got.rstrip().endswith(ends.rstrip()):
            got += tls.recv(4_096)
        assert got.startswith(begins)
        assert b"alt-svc" not in got.lower()


def test_an_upgrade_with_a_body_is_a_request_like_any_other(proxy, answer_of):
    chunked = b"Transfer-Encoding: chunked\r\n"
    with proxy.tunnel() as tls:
        tls.sendall(UPGRADE % (b"up", chunked) + b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")
        assert answer_of(tls).endswith(b"5 bytes")
    assert b"upgrade" not in proxy.origin.requests[0].head.lower()
    assert proxy.origin.requests[0].trailers == b"x-sum: 7\r\n"

"""HTTP/2 and WebSocket go through the stock layers, guarded the same."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from urllib.parse import unquote

import pytest
import websockets
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
from bypass_forms import compressed_message
from egress_lab import CANARY
from h2_client import H2Client


@pytest.fixture
def h2_client(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        assert tls.selected_alpn_protocol() == "h2"
        yield H2Client(tls)


def test_http_2_is_spoken_only_where_the_client_needs_it(proxy):
    with proxy.tunnel(alpn=("h2", "http/1.1")) as tls:
        assert tls.selected_alpn_protocol() == "http/1.1"


def test_http_2_requests_pass_and_are_recorded(proxy, h2_client):
    assert h2_client.ask("/a") == (200, b"0 bytes")
    assert h2_client.ask("/b", b"x" * 300_000) == (200, b"300000 bytes")
    proxy.wait_for(
        lambda: sum(r.kind.value == "outcome" for r in proxy.journal.records) == 2, "two outcomes"
    )
    outcome = next(r for r in proxy.journal.records if r.kind.value == "outcome" and r.bytes_out)
    assert (outcome.status, outcome.bytes_out) == (200, 300_000)


def test_http_2_refusals_answer_at_once_and_the_connection_lives(proxy, h2_client, canary):
    status, body = h2_client.ask("/" + canary.decode())
    assert status == 403
    assert json.loads(body)["reason"] == "secret_found"
    assert h2_client.ask("/after") == (200, b"0 bytes")


def test_http_2_names_that_disagree_are_refused(proxy, h2_client):
    status, body = h2_client.ask(authority="a.sub.test")
    assert status == 403
    assert json.loads(body)["reason"] == "name_mismatch"
    assert proxy.origin.requests == []


def test_a_secret_in_an_http_2_body_never_leaves(proxy, h2_client, canary):
    status, body = h2_client.ask("/up", b"a" * 200_000 + canary + b"b" * 200_000)
    assert status == 403
    assert json.loads(body)["reason"] == "secret_found"
    assert all(canary[:8] not in bytes(seen.body) for seen in proxy.origin.requests)
    assert all(not seen.complete for seen in proxy.origin.requests)


def test_what_breaks_http_2_itself_is_cut_and_recorded(proxy, answer_of):
    with proxy.tunnel(alpn=("h2",)) as tls:
        headers_that_do_not_decode = b"\0\0\4\1\5\0\0\0\1abcd"
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + headers_that_do_not_decode)
        answer_of(tls)
    proxy.wait_for(
        lambda: any(r.reason == "malformed" for r in proxy.journal.records), "the refusal"
    )
    assert proxy.origin.requests == []


def grpc(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(m).to_bytes(4, "big") + m for m in messages)


GRPC = {"content-type": "application/grpc", "te": "trailers"}


def refused_call(client: H2Client) -> tuple[str | None, str | None]:
    """Return the status and the reason that a refused call was answered with."""
    return client.fields.get("grpc-status"), client.fields.get("aesp-reason")


def test_grpc_messages_pass_whole_and_one_with_a_secret_does_not_begin_to(proxy, h2_client, canary):
    wire = grpc(b"x" * 40_000, b"", b"y")
    assert h2_client.ask("/pkg.Service/Call", wire, **GRPC) == (200, b"%d bytes" % len(wire))
    secret = b"a" * 16_380 + canary + b"b" * 20_000  # split over two frames of data
    answer = h2_client.ask("/pkg.Service/Call", grpc(b"first", secret), **GRPC)
    assert (answer, refused_call(h2_client)) == ((200, b""), ("7", "secret_found"))
    text = unquote(h2_client.fields["grpc-message"])
    assert text.startswith("AESP Proxy: secret_found: ")
    assert canary.decode() not in text
    # The refused call may not even have reached the origin yet: all that came after the first.
    assert all(bytes(r.body) in (b"", grpc(b"first")) for r in proxy.origin.requests[1:])


def test_a_coding_over_grpc_is_taken_off_before_the_scan(proxy, h2_client, canary):
    coded = {**GRPC, "content-encoding": "gzip"}
    body = gzip.compress(b"\0" * 5 + canary + b" ")
    h2_client.ask("/pkg.Service/Call", body, **coded)
    assert refused_call(h2_client) == ("7", "secret_found")
    coded["content-encoding"] = "br"
    h2_client.ask("/pkg.Service/Call", b"\0\0\0\0\1x", **coded)
    assert refused_call(h2_client) == ("7", "unscannable")
    assert all(not seen.body for seen in proxy.origin.requests)


def with_name(data: bytes, name: bytes) -> bytes:
    """Compress with a file name in the gzip header (RFC 1952 section 2.3)."""
    coded = gzip.compress(data)
    return coded[:3] + b"\x08" + coded[4:10] + name + b"\0" + coded[10:]


def test_compressed_grpc_messages_pass_as_they_are(proxy, h2_client):
    wire = b"".join(map(compressed_message, (gzip.compress(b"x" * 40_000), b""))) + grpc(b"plain")
    answer = h2_client.ask("/pkg.Service/Call", wire, **GRPC, **GZIP)
    assert answer == (200, b"%d bytes" % len(wire))
    assert bytes(proxy.origin.requests[0].body) == wire


GZIP = {"grpc-encoding": "gzip"}
BOMB = gzip.compress(b"\0" * 20_000_000)


@pytest.mark.parametrize(
    ("fields", "message", "reason"),
    [
        (GZIP, gzip.compress(b"a" * 9_000 + CANARY + b" "), "secret_found"),
        ({"grpc-encoding": "deflate"}, zlib.compress(CANARY), "secret_found"),
        (GZIP, with_name(b"a", CANARY), "secret_found"),
        (GZIP, BOMB, "unscannable"),
        (GZIP, gzip.compress(b"a" * 9_000)[:-4], "unscannable"),
        (GZIP, b"not compressed", "unscannable"),
        ({"grpc-encoding": "snappy"}, gzip.compress(b"a"), "unscannable"),
        ({"grpc-encoding": "gzip, gzip"}, gzip.compress(b"a"), "unscannable"),
        ({}, gzip.compress(b"a"), "unscannable"),
    ],
    ids=["gzip", "deflate", "name", "bomb", "cut", "damaged", "unknown", "two", "unsaid"],
)
def test_what_a_compressed_grpc_message_hides_does_not_leave(
    proxy, h2_client, fields, message, reason
):
    h2_client.ask("/pkg.Service/Call", compressed_message(message), **GRPC, **fields)
    assert refused_call(h2_client) == ("7", reason)
    assert not any(seen.body for seen in proxy.origin.requests)


def test_a_secret_over_two_grpc_messages_one_of_them_compressed_ends_with_the_second(
    proxy, h2_client
):
    half = len(CANARY) // 2
    wire = grpc(CANARY[:half]) + compressed_message(gzip.compress(CANARY[half:]))
    h2_client.ask("/pkg.Service/Call", wire, **GRPC, **GZIP)
    assert refused_call(h2_client) == ("7", "secret_found")
    assert all(CANARY[half:] not in bytes(seen.body) for seen in proxy.origin.requests)


def test_grpc_to_an_upstream_that_is_down_is_unavailable_which_clients_try_again(proxy):
    with proxy.tunnel("down.test", alpn=("h2",)) as tls:
        client = H2Client(tls)
        client.ask("/pkg.Service/Call", grpc(b"x"), authority="down.test", **GRPC)
    assert refused_call(client) == ("14", "upstream_failed")


def test_an_http_2_upstream_that_is_down_is_a_502(proxy):
    with proxy.tunnel("down.test", alpn=("h2",)) as tls:
        status, body = H2Client(tls).ask(authority="down.test")
    assert status == 502
    assert json.loads(body)["reason"] == "upstream_failed"


@pytest.fixture
def echo(proxy):
    """A WebSocket echo server behind the name plain.test, in cleartext."""
    received: list[str | bytes] = []

    def serve(connection):
        for message in connection:
            received.append(message)
            connection.send(message)

    with websockets.sync.server.serve(serve, "127.0.0.1", 0, max_size=None) as server:
        port = server.socket.getsockname()[1]
        settings = proxy.interceptor._settings
        address = type(next(iter(settings.static.values())))(address="127.0.0.1", port=port)
        settings.static["plain.test", None] = address
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


@pytest.fixture
def socket_client(proxy, echo):
    sock, answer = proxy.connect("plain.test:80")
    assert b"200" in answer
    with websockets.sync.client.connect(
        "ws://plain.test/", sock=sock, proxy=None, max_size=None
    ) as client:
        yield client


def until_closed(client, *messages):
    """Send and read until the proxy closes; return the close frame it sent."""
    try:
        for message in messages:
            client.send(message)
            client.recv(10)
    except websockets.exceptions.ConnectionClosed as closed:
        return closed.rcvd
    pytest.fail("the connection was not closed")


def test_websocket_messages_pass_with_compression(socket_client):
    assert socket_client.response.headers["Sec-WebSocket-Extensions"].startswith("permessage")
    socket_client.send("hello")
    assert socket_client.recv(10) == "hello"
    socket_client.send(b"\x00" * 300_000)
    assert socket_client.recv(10) == b"\x00" * 300_000


def test_a_secret_in_a_websocket_message_closes_the_connection(proxy, socket_client, echo, canary):
    socket_client.send("before")
    socket_client.recv(10)
    assert until_closed(socket_client, "key " + canary.decode()).code == 1008
    assert echo == ["before"]
    assert any(r.reason == "secret_found" for r in proxy.journal.records)


def test_a_secret_split_over_messages_is_stopped_at_the_second(socket_client, echo, canary):
    text = canary.decode()
    until_closed(socket_client, text[:10], text[10:])
    assert echo == [text[:10]]


def test_a_secret_in_a_ping_is_stopped(socket_client, echo, canary):
    socket_client.ping(canary)
    assert until_closed(socket_client, "after").code == 1008


def test_a_websocket_message_over_the_limit_closes_the_connection(start):
    proxy = start(frame_bytes_max=1_000)
    with websockets.sync.server.serve(list, "127.0.0.1", 0) as server:
        settings = proxy.interceptor._settings
        address = type(next(iter(settings.static.values())))(
            address="127.0.0.1", port=server.socket.getsockname()[1]
        )
        settings.static["plain.test", None] = address
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        sock, _ = proxy.connect("plain.test:80")
        with websockets.sync.client.connect("ws://plain.test/", sock=sock, proxy=None) as client:
            until_closed(client, b"x" * 2_000)
        server.shutdown()
        thread.join()
    assert any(r.reason == "limit_exceeded" for r in proxy.journal.records)

"""gRPC by a real client and a real server (grpcio): every kind of call, trailers, refusals."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from egress_lab import Proxy

from aesp_proxy.intercept.egress.dialler import StaticAddress

WAIT_S = 20
SERVICE = "lab.Echo"
GAVE_UP = threading.Event()


def _unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    seen = dict(context.invocation_metadata())
    if request == b"wait":
        context.add_callback(GAVE_UP.set)
        GAVE_UP.wait(WAIT_S)
        return b"late"
    if request == b"fail":
        context.set_trailing_metadata((("x-why", "asked for"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \N{SNOWMAN}")
    context.send_initial_metadata((("x-head", "1"),))
    context.set_trailing_metadata((("x-sum", str(len(request))), ("x-blob-bin", b"\0\xff")))
    return request + str(seen.get("x-from", "")).encode()


def _count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    del context
    for number in range(int(request)):
        yield b"%d" % number


def _collect(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    del context
    return b"%d" % sum(map(len, requests))


def _ping(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    del context
    for request in requests:
        yield request[::-1]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("grpc"))
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    """One for all tests of this module, with nothing in its record."""
    running.journal.records.clear()
    return running


@pytest.fixture(scope="module")
def server(running: Proxy) -> Iterator[int]:
    """An Echo service in TLS behind allowed.test."""
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Count": grpc.unary_stream_rpc_method_handler(_count),
        "Collect": grpc.stream_unary_rpc_method_handler(_collect),
        "Ping": grpc.stream_stream_rpc_method_handler(_ping),
    }
    leaf = (running.directory / "leaf.pem").read_bytes()
    made = grpc.server(ThreadPoolExecutor(4))
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = made.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(leaf[leaf.index(b"-----BEGIN PRI") :], leaf)])
    )
    made.start()
    place = StaticAddress(address="127.0.0.1", port=port)
    running.interceptor._settings.static["allowed.test", None] = place
    yield port
    GAVE_UP.set()
    made.stop(0).wait(WAIT_S)


@pytest.fixture
def channel(proxy: Proxy, server: int) -> Iterator[grpc.Channel]:
    roots = grpc.ssl_channel_credentials(proxy.ca_file.read_bytes())
    options = [("grpc.http_proxy", proxy.url), ("grpc.enable_retries", 0)]
    with grpc.secure_channel("allowed.test:443", roots, options) as made:
        yield made


def test_a_call_has_its_metadata_and_its_trailers(proxy, channel):
    call = channel.unary_unary(f"/{SERVICE}/Unary").with_call
    answer, done = call(b"hello ", timeout=WAIT_S, metadata=(("x-from", "agent"),))
    assert answer == b"hello agent"
    assert dict(done.initial_metadata())["x-head"] == "1"
    trailers = dict(done.trailing_metadata())
    assert (trailers["x-sum"], trailers["x-blob-bin"]) == ("6", b"\0\xff")
    proxy.wait_for(
        lambda: any(r.kind == "outcome" and r.status == 200 for r in proxy.journal.records),
        "the outcome",
    )
    asked = next(r for r in proxy.journal.records if r.action == "http.post")
    assert asked.resource == f"https://allowed.test:443/{SERVICE}/Unary"


def test_a_status_in_trailers_alone_reaches_the_client(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Unary")(b"fail", timeout=WAIT_S)
    error = caught.value
    assert (error.code(), error.details()) == (
        grpc.StatusCode.NOT_FOUND, "no such thing: \N{SNOWMAN}",
    )  # fmt: skip
    assert dict(error.trailing_metadata())["x-why"] == "asked for"


def test_streams_of_either_side_pass_whole(channel):
    counted = channel.unary_stream(f"/{SERVICE}/Count")(b"200", timeout=WAIT_S)
    assert [int(each) for each in counted] == list(range(200))
    parts = iter([b"x" * 50_000] * 20)
    assert channel.stream_unary(f"/{SERVICE}/Collect")(parts, timeout=WAIT_S) == b"1000000"


def test_a_conversation_goes_on_message_by_message(channel):
    """Each message leaves before the next exists; buffering either way would hang here."""
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    heard = channel.stream_stream(f"/{SERVICE}/Ping")(iter(said.get, None), timeout=WAIT_S)
    for number in range(20):
        said.put(b"message %d" % number)
        assert next(heard) == (b"message %d" % number)[::-1]
    said.put(None)
    assert list(heard) == []


@pytest.mark.parametrize("coding", ["Gzip", "Deflate"])
def test_compressed_messages_pass_whole(channel, coding):
    compression = getattr(grpc.Compression, coding)
    text = b"words that compress " * 20_000
    call = channel.unary_unary(f"/{SERVICE}/Unary")
    assert call(text, timeout=WAIT_S, compression=compression) == text
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    ping = channel.stream_stream(f"/{SERVICE}/Ping")
    heard = ping(iter(said.get, None), timeout=WAIT_S, compression=compression)
    said.put(text)
    assert next(heard) == text[::-1]
    said.put(None)
    assert list(heard) == []


def test_a_deadline_ends_the_call_on_both_sides(proxy, channel):
    GAVE_UP.clear()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Unary")(b"wait", timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert GAVE_UP.wait(WAIT_S), "the server was told that nobody waits"
    proxy.wait_for(
        lambda: any(r.reason == "client_gone" for r in proxy.journal.records), "the outcome"
    )
    assert channel.unary_unary(f"/{SERVICE}/Unary")(b"next", timeout=WAIT_S) == b"next"


def test_a_call_that_is_cancelled_leaves_the_others_alone(channel):
    count = channel.unary_stream(f"/{SERVICE}/Count")
    cancelled, other = count(b"1000000", timeout=WAIT_S), count(b"300", timeout=WAIT_S)
    assert next(cancelled) == b"0"
    cancelled.cancel()
    assert len(list(other)) == 300


def test_a_secret_in_a_message_ends_the_call_and_does_not_arrive(proxy, channel, canary):
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    heard = channel.stream_stream(f"/{SERVICE}/Ping")(iter(said.get, None), timeout=WAIT_S)
    said.put(b"harmless")
    assert next(heard) == b"sselmrah"
    said.put(canary)
    with pytest.raises(grpc.RpcError):
        next(heard)
    said.put(None)
    assert any(r.reason == "secret_found" for r in proxy.journal.records)


def test_a_refused_call_is_permission_denied(channel, canary):
    metadata = (("x-key", canary.decode()),)
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Unary")(b"x", timeout=WAIT_S, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_host_that_is_not_allowed_is_not_reached(proxy):
    roots = grpc.ssl_channel_credentials(proxy.ca_file.read_bytes())
    options = [("grpc.http_proxy", proxy.url)]
    with (
        grpc.secure_channel("evil.test:443", roots, options) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(f"/{SERVICE}/Unary")(b"x", timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert any(r.reason == "host_blocked" for r in proxy.journal.records)

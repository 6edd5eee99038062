"""Protocols by real clients and a real server: httpx, curl and websockets against uvicorn."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client
from asgi_origin import CODED, AsgiOrigin
from egress_lab import Proxy

from aesp_proxy.intercept.egress.dialler import StaticAddress

CURL = shutil.which("curl")
with_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")
BLOCK = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("peers"))
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    """One for all tests of this module, with nothing in its record."""
    running.journal.records.clear()
    return running


def behind(proxy: Proxy, name: str, leaf: Path | None) -> AsgiOrigin:
    origin = AsgiOrigin(leaf)
    place = StaticAddress(address="127.0.0.1", port=origin.port)
    proxy.interceptor._settings.static[name, None] = place
    return origin


@pytest.fixture
def secure(proxy: Proxy) -> Iterator[AsgiOrigin]:
    origin = behind(proxy, "allowed.test", proxy.directory / "leaf.pem")
    yield origin
    origin.stop()


@pytest.fixture
def plain(proxy: Proxy) -> Iterator[AsgiOrigin]:
    origin = behind(proxy, "plain.test", None)
    yield origin
    origin.stop()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with httpx.Client(proxy=proxy.url, verify=context, trust_env=False, timeout=20) as made:
        yield made


def curl(proxy: Proxy, *words: str, data: bytes = b"") -> bytes:
    command = [*_curl(proxy), *words]
    return subprocess.run(
        command, input=data, stdout=subprocess.PIPE, check=True, timeout=30
    ).stdout


def _curl(proxy: Proxy) -> list[str]:
    return [str(CURL), "-sS", "-x", proxy.url, "--cacert", str(proxy.ca_file), "-m", "20"]


# server-sent events ------------------------------------------------------------------


def test_events_come_one_by_one_to_httpx(client, secure):
    with client.stream("GET", "https://allowed.test/events") as answer:
        lines = answer.iter_lines()
        assert [next(lines), next(lines)] == ["id: 0", "data: event 0"]
        secure.release.set()
        assert [line for line in lines if line.startswith("data")] == [
            "data: event 1", "data: event 2"
        ]  # fmt: skip


@with_curl
def test_events_come_one_by_one_to_curl(proxy, secure):
    words = [*_curl(proxy), "-N", "https://allowed.test/events"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(2)] == [b"id: 0\n", b"data: event 0\n"]
        secure.release.set()
        assert running.stdout.read().count(b"data: event") == 2


# bodies ------------------------------------------------------------------------------


def test_a_chunked_upload_of_a_generator_arrives_whole(client, secure):
    parts = (BLOCK for _ in range(40))
    answer = client.post("https://allowed.test/up", content=parts)
    assert answer.text == f"{40 * len(BLOCK)} bytes"
    assert secure.heads[0][b"transfer-encoding"] == b"chunked"


@pytest.mark.parametrize("size", [1, 20_000_000])
def test_a_large_download_arrives_whole(client, secure, size):
    taken = hashlib.sha256()
    with client.stream("GET", f"https://allowed.test/big/{size}") as answer:
        for part in answer.iter_bytes():
            taken.update(part)
    wanted = hashlib.sha256((BLOCK * (size // len(BLOCK) + 1))[:size])
    assert taken.digest() == wanted.digest()


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_a_compressed_answer_reaches_the_client_byte_for_byte(client, secure, coding):
    with client.stream("GET", f"https://allowed.test/coded/{coding}") as answer:
        assert answer.headers["content-encoding"] == coding
        assert b"".join(answer.iter_raw()) == CODED[coding]


@with_curl
@pytest.mark.parametrize("fields", [[], ["-H", "Transfer-Encoding: chunked"]])
def test_curl_that_waits_for_100_is_told_by_the_server(proxy, secure, fields):
    words = ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15", "--data-binary"]
    told = subprocess.run(
        [*_curl(proxy), *words, "@-", *fields, "https://allowed.test/up"],
        input=b"x" * 3_000_000,
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert told.stdout == b"3000000 bytes"
    assert b"< HTTP/1.1 100 Continue" in told.stderr
    assert secure.heads[0][b"expect"] == b"100-continue"


# Upgrade -----------------------------------------------------------------------------


@with_curl
def test_curl_that_offers_http_2_over_cleartext_is_served_over_http_1(proxy, plain):
    assert curl(proxy, "--http2", "http://plain.test/x") == b"0 bytes"
    assert b"upgrade" not in plain.heads[0]
    assert b"http2-settings" not in plain.heads[0]


@pytest.fixture(params=["wss", "ws"])
def websocket(proxy, request) -> Iterator[websockets.sync.client.ClientConnection]:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.set_alpn_protocols(["http/1.1"])
    name, extra = (
        ("allowed.test", {"ssl": context}) if request.param == "wss" else ("plain.test", {})
    )
    origin = behind(proxy, name, proxy.directory / "leaf.pem" if extra else None)
    try:
        with websockets.sync.client.connect(
            f"{request.param}://{name}/", proxy=proxy.url, max_size=None, **extra
        ) as made:
            yield made
    finally:
        origin.stop()


def test_websocket_messages_pass_with_compression(websocket):
    agreed = websocket.response.headers["Sec-WebSocket-Extensions"]
    assert agreed.startswith("permessage-deflate")
    text = "words that compress " * 5_000
    for message in ("hello", text, BLOCK * 4, "", "\N{SNOWMAN}"):
        websocket.send(message)
        assert websocket.recv(10) == message
    websocket.send(iter(["in ", "three ", "frames"]))
    assert websocket.recv(10) == "in three frames"
    assert websocket.ping(b"alive").wait(10)


def test_a_secret_in_a_compressed_websocket_message_is_stopped(websocket, canary):
    websocket.send("before")
    assert websocket.recv(10) == "before"
    websocket.send("compressed " * 1_000 + canary.decode())
    with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
        websocket.recv(10)
    assert caught.value.rcvd.code == 1008

"""Redirects: the proxy sees each hop as a request of its own, and decides each."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import unquote

import httpx
import pytest
from egress_lab import Proxy
from h2_client import H2Client

from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.intercept.port import Address


class Redirector(BaseHTTPRequestHandler):
    """Sends the client to what stands in the query."""

    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        _, _, onward = self.path.partition("?")
        self.send_response(302 if onward else 200)
        if onward:
            self.send_header("Location", unquote(onward))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def to_metadata(name: str) -> tuple[Address, ...]:
    del name
    return (ip_address("169.254.169.254"),)


@pytest.fixture
def hops() -> list[str]:
    """The paths that the redirecting host was asked for."""
    return []


@pytest.fixture
def proxy(start: Callable[..., Proxy], hops: list[str]) -> Iterator[Proxy]:
    handler = type("Handler", (Redirector,), {"asked": hops})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    running = start(lookup=to_metadata)
    place = StaticAddress(address="127.0.0.1", port=server.server_address[1])
    running.interceptor._settings.static["plain.test", None] = place
    try:
        yield running
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with httpx.Client(
        proxy=proxy.url, verify=context, follow_redirects=True, trust_env=False, timeout=20
    ) as made:
        yield made


def reasons(proxy: Proxy) -> list[str]:
    return [r.reason for r in proxy.journal.records if r.reason != "allowed"]


def test_a_chain_of_allowed_hops_passes(client, proxy):
    answer = client.get("http://plain.test/?http://plain.test/%3Fhttps://allowed.test/end")
    assert (answer.status_code, answer.text) == (200, "0 bytes")
    assert len(answer.history) == 2
    assert proxy.origin.requests[0].head.startswith(b"GET /end ")


@pytest.mark.parametrize(
    ("onward", "reason"),
    [
        ("http://evil.test/", "host_blocked"),
        ("http://unknown.test/", "host_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/", "address_forbidden"),
        ("http://[::ffff:169.254.169.254]/", "malformed"),
        ("http://127.0.0.1/", "address_forbidden"),
        ("http://meta.sub.test/latest/", "address_forbidden"),
    ],
)
def test_a_redirect_to_what_is_forbidden_is_refused_at_the_second_hop(
    client, proxy, hops, onward, reason
):
    answer = client.get(f"http://plain.test/?{onward}")
    assert answer.status_code == (400 if reason == "malformed" else 403)
    assert answer.json()["reason"] == reason
    assert len(hops) == 1
    assert reasons(proxy)[0] == reason


@pytest.mark.parametrize("onward", ["https://evil.test/", "https://169.254.169.254/"])
def test_a_redirect_into_tls_is_refused_at_its_connect(client, proxy, hops, onward):
    with pytest.raises(httpx.ProxyError, match="403"):
        client.get(f"http://plain.test/?{onward}")
    assert len(hops) == 1
    assert len(reasons(proxy)) == 1


def test_a_redirect_that_carries_a_secret_onward_is_refused(client, proxy, canary):
    answer = client.get(f"http://plain.test/?http://plain.test/%3Ftoken={canary.decode()}")
    assert answer.status_code == 403
    assert answer.json()["reason"] == "secret_found"


def test_alt_svc_is_taken_out_over_http_2_too(proxy):
    with proxy.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        assert client.ask("/alt-svc") == (200, b"ok")
    with proxy.tunnel() as tls:
        tls.sendall(b"GET /alt-svc HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        assert b"alt-svc" not in tls.recv(4_096).lower()

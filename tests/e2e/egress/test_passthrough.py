"""TLS of hosts on the operator's list: passed through, held to its name, counted."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from egress_lab import NOW, POLICY, Proxy
from entries import TlsPeer, hello, rest, socks, with_extension

from aesp_proxy.decide.policy.hosts import HostIndex, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca

SOMEWHERE = "203.0.113.7"
PINNED_POLICY = POLICY.replace('"plain.test"', '"plain.test", "pinned.test"')
ENTRIES = pytest.mark.parametrize("entry", ["connect", "socks", "transparent"])


@pytest.fixture(scope="module")
def origin_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that only its own root vouches for; the proxy knows nothing of it."""
    directory = tmp_path_factory.mktemp("pinned")
    ca_cert, ca_key = make_ca("the origin's own", now=NOW)
    pair = KeyPair(cert_pem=ca_cert, key_pem=ca_key)
    cert, key = issue_leaf(
        pair, ["pinned.test", "evil.test"], purpose=Purpose.SERVER, now=NOW, days=2
    )
    (directory / "leaf.pem").write_bytes(cert + key)
    (directory / "ca.pem").write_bytes(ca_cert)
    return directory


@pytest.fixture
def origin(origin_ca: Path) -> Iterator[TlsPeer]:
    peer = TlsPeer(str(origin_ca / "leaf.pem"), b"pinned answer")
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture
def sealed(start: Callable[..., Proxy], origin: TlsPeer) -> Proxy:
    rules = [parse_host_rule(Sourced(name, "test:1")) for name in ("pinned.test", "evil.test")]
    index = HostIndex(rules, ports_without=None, any_is_address=False)
    proxy = start(PINNED_POLICY, sealed=index)
    static = proxy.interceptor._settings.static
    for name in ("pinned.test", "evil.test"):
        static[name, None] = StaticAddress(address="127.0.0.1", port=origin.port)
    return proxy


@contextmanager
def entered(proxy: Proxy, entry: str, host: str) -> Iterator[socket.socket]:
    if entry == "connect":
        sock, answer = proxy.connect(f"{host}:443")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    elif entry == "socks":
        sock, code = socks(proxy.port, host.encode(), 443)
        assert code == 0
    else:
        sock = socket.create_connection(proxy.capture(SOMEWHERE, 443), 10)
    with sock:
        yield sock


@ENTRIES
def test_the_client_sees_the_origins_own_certificate(
    sealed: Proxy, origin: TlsPeer, origin_ca: Path, entry: str
) -> None:
    context = ssl.create_default_context(cafile=str(origin_ca / "ca.pem"))
    with (
        entered(sealed, entry, "pinned.test") as sock,
        context.wrap_socket(sock, server_hostname="pinned.test") as tls,
    ):
        tls.sendall(b"in the seal")
        assert tls.recv(100) == b"pinned answer"
    assert origin.served == [b"in the seal"]
    noted = [r for r in sealed.journal.records if r.metadata]
    sealed.wait_for(
        lambda: len([r for r in sealed.journal.records if r.metadata]) == 2, "decision and outcome"
    )
    noted = [r for r in sealed.journal.records if r.metadata]
    assert [r.kind.value for r in noted] == ["decision", "outcome"]
    assert {dict(r.metadata)["content"] for r in noted} == {
        "not read: TLS passed through by the operator's setting"
    }
    assert noted[0].target_host == "pinned.test"
    assert noted[1].bytes_out > 300
    assert noted[1].bytes_in > 300


def decisions(proxy: Proxy) -> list[str]:
    return [r.reason for r in proxy.journal.records if r.kind == "decision"]


@ENTRIES
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_extension(hello("pinned.test"), 0xFE0D, bytes(40)), "unsupported"),
        (hello("pinned.test") + b"", ""),
    ],
    ids=["ech", "plain"],
)
def test_a_clienthello_that_may_hide_a_name_is_refused(
    sealed: Proxy, origin: TlsPeer, entry: str, data: bytes, reason: str
) -> None:
    with entered(sealed, entry, "pinned.test") as sock:
        sock.sendall(data)
        if not reason:
            assert sock.recv(1) == b"\x16"
            return
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x31"
    assert decisions(sealed)[-1] == reason
    assert not origin.served


@pytest.mark.parametrize("entry", ["connect", "socks"])
@pytest.mark.parametrize("server_name", ["allowed.test", "evil.test", None])
def test_another_name_than_the_one_that_was_named_is_refused(
    sealed: Proxy, origin: TlsPeer, entry: str, server_name: str | None
) -> None:
    with entered(sealed, entry, "pinned.test") as sock:
        sock.sendall(hello(server_name))
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x31"
    assert decisions(sealed)[-1] == "name_mismatch"
    assert not origin.served


def test_captured_tls_without_a_name_is_not_passed_through(sealed: Proxy, origin: TlsPeer) -> None:
    sealed.names[SOMEWHERE] = ("pinned.test",)
    with entered(sealed, "transparent", "") as sock:
        sock.sendall(hello(None))
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x31"
    assert decisions(sealed)[-1] == "name_mismatch"
    assert not origin.served


def test_the_list_does_not_allow_what_the_policy_blocks(sealed: Proxy, origin: TlsPeer) -> None:
    with entered(sealed, "transparent", "") as sock:
        sock.sendall(hello("evil.test"))
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x31"
    assert decisions(sealed) == ["host_blocked"]
    assert not origin.served


def test_http_to_a_listed_host_is_read_all_the_same(sealed: Proxy, canary: bytes) -> None:
    sock, _ = sealed.connect("pinned.test:80")
    with sock:
        sock.sendall(b"GET /%b HTTP/1.1\r\nHost: pinned.test\r\n\r\n" % canary)
        assert b"AESP-Reason: secret_found" in sock.recv(65_536)

"""Other TCP: relayed unread where an entry says its port, counted, refused everywhere else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from egress_lab import POLICY, Proxy, read_answer
from entries import Peer, rest, socks, take

from aesp_proxy.intercept.egress.dialler import StaticAddress

BANNER = b"SSH-2.0-fake_1.0\r\n"
CLIENT = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"
SOMEWHERE = "203.0.113.7"
RAW_POLICY = POLICY.replace(
    '"plain.test"', '"plain.test", "ssh.test:22", "ssh.test", "any.test:*", "web.test:443"'
).replace("default_action: block", "default_action: allow")
SAME = ("ssh.test", "any.test", "web.test", "other.example", "plain.test")


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = Peer(first=BANNER, bye=b"bye")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def raw(start: Callable[..., Proxy], peer: Peer) -> Proxy:
    return lead(start(RAW_POLICY, silence_s=0.05), peer)


def lead(proxy: Proxy, peer: Peer) -> Proxy:
    """Have all names lead to the peer, whatever the port."""
    static = proxy.interceptor._settings.static
    for name in SAME:
        static[name, None] = StaticAddress(address="127.0.0.1", port=peer.port)
    return proxy


@contextmanager
def entered(proxy: Proxy, entry: str, host: str, port: int) -> Iterator[socket.socket]:
    """Come in by an entry, to a host that the proxy's resolver has told."""
    if entry == "connect":
        sock, answer = proxy.connect(f"{host}:{port}")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    elif entry == "socks":
        sock, code = socks(proxy.port, host.encode(), port)
        assert code == 0
    else:
        proxy.names[SOMEWHERE] = (host,)
        sock = socket.create_connection(proxy.capture(SOMEWHERE, port), 10)
    with sock:
        yield sock


ENTRIES = pytest.mark.parametrize("entry", ["connect", "socks", "transparent"])


def raw_records(proxy: Proxy) -> list[object]:
    return [r for r in proxy.journal.records if dict(r.metadata).get("content")]


@ENTRIES
def test_a_client_that_speaks_first_is_relayed_and_counted(
    raw: Proxy, peer: Peer, entry: str
) -> None:
    with entered(raw, entry, "ssh.test", 22) as sock:
        sock.sendall(CLIENT)
        assert take(sock, len(BANNER)) == BANNER
        sock.sendall(b"\0\1\2")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b"bye"
    assert peer.received == [CLIENT + b"\0\1\2"]
    raw.wait_for(lambda: len(raw_records(raw)) == 2, "decision and outcome")
    decision, outcome = raw_records(raw)
    assert (decision.kind, decision.verdict, decision.target_host, decision.target_port) == (
        "decision", "allow", "ssh.test", 22,
    )  # fmt: skip
    assert (outcome.kind, outcome.reason) == ("outcome", "allowed")
    assert (outcome.bytes_out, outcome.bytes_in) == (len(CLIENT) + 3, len(BANNER) + 3)
    assert outcome.upstream_address == f"127.0.0.1:{peer.port}"
    assert dict(outcome.metadata) == {"content": "not read: neither TLS nor HTTP"}


@ENTRIES
def test_a_client_that_waits_for_the_server_is_relayed(raw: Proxy, peer: Peer, entry: str) -> None:
    with entered(raw, entry, "any.test", 3306) as sock:
        assert take(sock, len(BANNER)) == BANNER
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b"bye"
    assert peer.received == [b"hello"]


@ENTRIES
@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("ssh.test", 443),  # an entry without port means web ports, and those are read
        ("web.test", 443),  # so does one that says 443
        ("any.test", 80),
        ("any.test", 443),
        ("other.example", 443),  # default_action is allow
    ],
)
def test_bytes_on_a_web_port_are_never_relayed_unread(
    raw: Proxy, peer: Peer, entry: str, host: str, port: int
) -> None:
    with entered(raw, entry, host, port) as sock:
        sock.sendall(CLIENT)
        assert BANNER not in rest(sock)
    assert peer.received == []
    raw.wait_for(lambda: any(r.outcome == "DENIED" for r in raw_records(raw)), "recorded")
    assert raw_records(raw)[0].reason in ("host_not_allowed", "address_forbidden")


@pytest.mark.parametrize("speaks", [CLIENT, b""])
def test_a_port_that_no_entry_says_is_refused(raw: Proxy, peer: Peer, speaks: bytes) -> None:
    raw.names[SOMEWHERE] = ("ssh.test",)
    with socket.create_connection(raw.capture(SOMEWHERE, 2222), 10) as sock:
        sock.sendall(speaks)
        assert rest(sock) == b""
    assert peer.received == []
    assert [r.reason for r in raw.journal.records] == ["host_not_allowed"]
    assert "port 2222 of ssh.test is not allowed" in raw.journal.records[0].message


def test_names_that_are_both_allowed_leave_the_address(raw: Proxy, peer: Peer) -> None:
    raw.names[SOMEWHERE] = ("ssh.test", "any.test")
    with socket.create_connection(raw.capture(SOMEWHERE, 22), 10) as sock:
        sock.sendall(CLIENT)
        assert rest(sock) == b""
    assert peer.received == []
    assert [r.target_host for r in raw.journal.records] == [SOMEWHERE]


@ENTRIES
def test_a_slow_client_that_speaks_http_after_all_is_read(
    start: Callable[..., Proxy], entry: str
) -> None:
    quiet = Peer()
    try:
        proxy = lead(start(RAW_POLICY, silence_s=0.05), quiet)
        with entered(proxy, entry, "any.test", 8080) as sock:
            proxy.wait_for(lambda: quiet.received, "the proxy has dialled")
            sock.sendall(
                b"GET /CORP-" + b"Zx9" * 10 + b"Qw HTTP/1.1\r\nHost: any.test:8080\r\n\r\n"
            )
            assert b"AESP-Reason: secret_found" in read_answer(sock)
        assert quiet.received == [b""]
    finally:
        quiet.stop()


def test_undecided_text_is_not_relayed(start: Callable[..., Proxy], peer: Peer) -> None:
    proxy = lead(start(RAW_POLICY, silence_s=0.05, head_s_max=0.2), peer)
    with entered(proxy, "transparent", "ssh.test", 22) as sock:
        sock.sendall(b"SSH-2.0-")
        assert rest(sock) == b""
    assert peer.received == []
    assert [r.reason for r in proxy.journal.records] == ["limit_exceeded"]


def test_a_name_that_resolves_to_a_private_address_is_refused(
    start: Callable[..., Proxy], peer: Peer
) -> None:
    proxy = start(POLICY.replace('"plain.test"', f'"localhost:{peer.port}"'))
    sock, answer = proxy.connect(f"localhost:{peer.port}")
    with sock:
        assert answer.startswith(b"HTTP/1.1 200 ")
        sock.sendall(CLIENT)
        rest(sock)
    assert peer.received == []
    reasons = [r.reason for r in proxy.journal.records if r.kind == "decision"]
    assert reasons[-1] == "address_forbidden"


def test_an_upstream_that_is_down_is_told_and_recorded(start: Callable[..., Proxy]) -> None:
    proxy = start(POLICY.replace('"down.test"', '"down.test:22"'))
    with entered(proxy, "socks", "down.test", 22) as sock:
        sock.sendall(CLIENT)
        assert rest(sock) == b""
    proxy.wait_for(
        lambda: any(r.reason == "upstream_failed" for r in proxy.journal.records), "recorded"
    )


def test_silence_is_bounded(start: Callable[..., Proxy], peer: Peer) -> None:
    proxy = lead(start(RAW_POLICY, idle_s_max=0.2), peer)
    with entered(proxy, "connect", "ssh.test", 22) as sock:
        sock.sendall(CLIENT)
        assert rest(sock) == BANNER
    proxy.wait_for(lambda: len(raw_records(proxy)) == 2, "the outcome")


def test_a_reader_that_does_not_read_stops_the_writer(raw: Proxy, peer: Peer) -> None:
    """Bytes that the client does not take are not piled up; what it takes later is all there."""
    with entered(raw, "connect", "ssh.test", 22) as sock:
        sock.sendall(CLIENT)
        for _ in range(64):
            sock.sendall(b"x" * 65_536)
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == BANNER + b"bye"
    assert len(peer.received[0]) == len(CLIENT) + 64 * 65_536


RULES = (
    RAW_POLICY
    + """
rules:
  - policy_id: web-raw
    applies_to: ["egress:rule.test:443"]
    rule: {condition: "true", effect: ALLOW, actions: [{action}]}
"""
)


@pytest.mark.parametrize(("action", "allowed"), [("tcp.connect", True), ("http.get", False)])
def test_a_rule_lets_raw_bytes_pass_only_when_it_says_connections(
    start: Callable[..., Proxy], peer: Peer, action: str, *, allowed: bool
) -> None:
    proxy = start(RULES.replace("{action}", action))
    proxy.interceptor._settings.static["rule.test", None] = StaticAddress(
        address="127.0.0.1", port=peer.port
    )
    with entered(proxy, "connect", "rule.test", 443) as sock:
        sock.sendall(CLIENT)
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock).startswith(BANNER if allowed else b"HTTP/1.1 403")
    assert bool(peer.received) == allowed

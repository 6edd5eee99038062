"""SOCKS5: the path of CONNECT behind a few bytes; what is not spoken has its own reply."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable

import pytest
from egress_lab import Proxy, read_answer
from entries import GREETING, rest, socks, socks_request, take


def tunnel(proxy: Proxy, host: str = "allowed.test") -> ssl.SSLSocket:
    sock, code = socks(proxy.port, host.encode(), 443)
    assert code == 0
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    return context.wrap_socket(sock, server_hostname=host)


def test_tls_in_socks_is_read_and_recorded_before_and_after(proxy: Proxy) -> None:
    with tunnel(proxy) as tls:
        tls.sendall(b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        assert read_answer(tls).startswith(b"HTTP/1.1 200 ")
    proxy.wait_for(lambda: len(proxy.journal.records) == 4, "two decisions, two outcomes")
    told = [(r.kind.value, r.action, r.target_host) for r in proxy.journal.records]
    assert told[:2] == [
        ("decision", "tcp.connect", "allowed.test"),
        ("decision", "http.get", "allowed.test"),
    ]


def test_plain_http_in_socks_is_read(proxy: Proxy, canary: bytes) -> None:
    sock, _ = socks(proxy.port, b"plain.test", 80)
    with sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        assert read_answer(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"GET /%b HTTP/1.1\r\nHost: plain.test\r\n\r\n" % canary)
        assert b"AESP-Reason: secret_found" in read_answer(sock)


def test_the_host_inside_must_be_the_one_that_was_named(proxy: Proxy) -> None:
    with tunnel(proxy) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a.sub.test\r\n\r\n")
        assert b"AESP-Reason: name_mismatch" in read_answer(tls)
    assert not proxy.origin.requests


@pytest.mark.parametrize(
    ("data", "reply", "reason"),
    [
        (socks_request(b"evil.test", 443), 2, "host_blocked"),
        (socks_request(b"allowed.test", 22), 2, "host_not_allowed"),
        (b"\x05\x01\0\x01\x7f\0\0\x01\0\x50", 2, "address_forbidden"),
        (b"\x05\x01\0\x04" + bytes(15) + b"\x01\0\x50", 2, "address_forbidden"),
        (socks_request(b"a b.test", 443), 1, "malformed"),
        (socks_request(b"allowed.test", 443, command=2), 7, "unsupported"),
        (socks_request(b"allowed.test", 443, command=3), 7, "unsupported"),
        (b"\x05\x01\0\x09", 8, "unsupported"),
    ],
)
def test_a_refusal_has_its_reply_and_its_record(
    proxy: Proxy, data: bytes, reply: int, reason: str
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(GREETING + data)
        assert rest(sock) == b"\x05\0" + bytes((5, reply, 0, 1)) + bytes(6)
    assert [r.reason for r in proxy.journal.records] == [reason]


GIVEN = "203.0.113.7"


def by_socks(proxy: Proxy) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", proxy.port), 10)
    sock.sendall(GREETING + b"\x05\x01\0\x01" + socket.inet_aton(GIVEN) + b"\x01\xbb")
    assert take(sock, 12)[2:4] == b"\x05\0"
    return sock


def by_connect(proxy: Proxy) -> socket.socket:
    sock, answer = proxy.connect(f"{GIVEN}:443")
    assert answer.startswith(b"HTTP/1.1 200 ")
    return sock


@pytest.mark.parametrize("through", [by_socks, by_connect], ids=["socks", "connect"])
def test_an_address_that_our_resolver_gave_leads_to_the_host_of_the_server_name(
    proxy: Proxy, through: Callable[[Proxy], socket.socket]
) -> None:
    proxy.names[GIVEN] = ("allowed.test",)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with context.wrap_socket(through(proxy), server_hostname="allowed.test") as tls:
        tls.sendall(b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        assert read_answer(tls).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(ssl.SSLError, match="access denied"):
        context.wrap_socket(through(proxy), server_hostname="evil.test")
    assert [r.reason for r in proxy.journal.records if r.target_host == "evil.test"] == [
        "host_blocked"
    ]


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x02\x01\x02", b"\x05\xff"),
        (b"\x04\x01\x01\xbb\x01\x02\x03\x04\0", b"\0\x5b" + bytes(6)),
        (b"\x04\x01\x01\xbb\0\0\0\x01\0allowed.test\0", b"\0\x5b" + bytes(6)),
    ],
)
def test_credentials_and_socks4_are_refused_clearly(
    proxy: Proxy, greeting: bytes, answer: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(greeting)
        assert rest(sock) == answer
    assert [r.reason for r in proxy.journal.records] == ["unsupported"]


def test_greeting_and_request_may_come_byte_by_byte(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        for byte in GREETING + socks_request(b"evil.test", 443):
            sock.sendall(bytes([byte]))
        assert rest(sock)[2:4] == b"\x05\x02"


def test_half_a_request_is_not_waited_for_for_ever(start) -> None:
    proxy = start(head_s_max=0.2)
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(GREETING + b"\x05\x01")
        assert rest(sock) == b"\x05\0"
    assert [r.reason for r in proxy.journal.records] == ["limit_exceeded"]


@pytest.mark.parametrize("scheme", ["https://allowed.test/x", "http://plain.test/x"])
def test_curl_by_socks_is_served(proxy: Proxy, scheme: str) -> None:
    done = curl(proxy, scheme)
    assert (done.returncode, done.stdout) == (0, b"0 bytes"), done.stderr


def test_curl_by_socks_is_refused(proxy: Proxy) -> None:
    assert curl(proxy, "https://evil.test/x").returncode == 97  # "proxy handshake error"
    assert [r.reason for r in proxy.journal.records] == ["host_blocked"]


def curl(proxy: Proxy, url: str) -> subprocess.CompletedProcess[bytes]:
    place = f"127.0.0.1:{proxy.port}"
    command = ["curl", "-sS", "--cacert", str(proxy.ca_file), "--socks5-hostname", place, url]
    return subprocess.run(command, capture_output=True, check=False, timeout=30)

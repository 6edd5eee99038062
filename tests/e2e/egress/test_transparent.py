"""Captured connections: the client meant an address and knows of no proxy."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from egress_lab import POLICY, Proxy, read_answer
from entries import hello, rest, with_extension

from aesp_proxy.intercept.egress.transparent import original_destination

SOMEWHERE = "203.0.113.7"
GET = b"GET /x HTTP/1.1\r\nHost: %b\r\n\r\n"


@contextmanager
def captured(proxy: Proxy, port: int, address: str = SOMEWHERE) -> Iterator[socket.socket]:
    with socket.create_connection(proxy.capture(address, port), 10) as sock:
        yield sock


@contextmanager
def captured_tls(
    proxy: Proxy, sni: str | None, port: int = 443, address: str = SOMEWHERE
) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.check_hostname = sni is not None
    with (
        captured(proxy, port, address) as sock,
        context.wrap_socket(sock, server_hostname=sni) as tls,
    ):
        yield tls


def refused(proxy: Proxy, reason: str) -> str:
    """Wait for the refusal's record; return its message. The origin has seen nothing."""
    records = proxy.journal.records
    proxy.wait_for(lambda: any(r.reason == reason for r in records), f"{reason} recorded")
    assert not proxy.origin.requests
    return next(r.message for r in records if r.reason == reason)


# TLS ---------------------------------------------------------------------------------


def test_tls_is_decided_by_its_server_name_and_recorded_before_and_after(proxy: Proxy) -> None:
    with captured_tls(proxy, "allowed.test") as tls:
        tls.sendall(GET % b"allowed.test")
        assert read_answer(tls).startswith(b"HTTP/1.1 200 ")
    assert proxy.origin.requests[0].head.startswith(b"GET /x ")
    proxy.wait_for(lambda: len(proxy.journal.records) == 4, "two decisions, two outcomes")
    connect, request, *outcomes = proxy.journal.records
    assert (connect.action, connect.target_host, connect.target_port, connect.verdict) == (
        "tcp.connect", "allowed.test", 443, "allow",
    )  # fmt: skip
    assert (request.action, request.target_host) == ("http.get", "allowed.test")
    assert {r.kind.value for r in outcomes} == {"outcome"}


@pytest.mark.parametrize(
    ("sni", "reason"),
    [
        ("evil.test", "host_blocked"),
        ("unknown.test", "host_not_allowed"),
        ("allowed.test.evil.example", "host_not_allowed"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused_before_any_certificate(
    proxy: Proxy, sni: str, reason: str
) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"), captured_tls(proxy, sni):
        pass
    refused(proxy, reason)


def test_the_host_inside_must_be_the_server_name(proxy: Proxy) -> None:
    with captured_tls(proxy, "allowed.test") as tls:
        tls.sendall(GET % b"hidden.example")
        assert b"AESP-Reason: name_mismatch" in read_answer(tls)
    refused(proxy, "name_mismatch")


def test_the_server_name_decides_whatever_the_address_was_known_as(proxy: Proxy) -> None:
    proxy.names[SOMEWHERE] = ("a.sub.test",)
    with captured_tls(proxy, "allowed.test") as tls:
        tls.sendall(GET % b"allowed.test")
        assert read_answer(tls).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(ssl.SSLError), captured_tls(proxy, "evil.test"):
        pass


def test_without_a_server_name_the_one_allowed_name_of_the_address_is_meant(proxy: Proxy) -> None:
    proxy.names[SOMEWHERE] = ("evil.test", "allowed.test", "unknown.test")
    with captured_tls(proxy, None) as tls:
        tls.sendall(GET % b"allowed.test")
        assert read_answer(tls).startswith(b"HTTP/1.1 200 ")
        tls.sendall(GET % b"a.sub.test")
        assert b"AESP-Reason: name_mismatch" in read_answer(tls)


def test_the_one_name_of_an_address_is_told_when_it_is_refused(proxy: Proxy) -> None:
    proxy.names[SOMEWHERE] = ("evil.test",)
    with pytest.raises(ssl.SSLError), captured_tls(proxy, None):
        pass
    assert "evil.test" in refused(proxy, "host_blocked")


@pytest.mark.parametrize(
    "names", [(), ("evil.test", "unknown.test"), ("allowed.test", "a.sub.test")]
)
def test_without_a_name_an_address_is_an_address(proxy: Proxy, names: tuple[str, ...]) -> None:
    proxy.names[SOMEWHERE] = names
    with pytest.raises(ssl.SSLError), captured_tls(proxy, None):
        pass
    assert SOMEWHERE in refused(proxy, "address_forbidden")


@pytest.mark.parametrize("sni", [b"10.0.0.1", b"2130706433", b"user@allowed.te", b"allowed..te"])
def test_a_server_name_that_is_no_host_is_refused(proxy: Proxy, sni: bytes) -> None:
    bad = sni.ljust(12, b"t")
    with captured(proxy, 443) as sock:
        sock.sendall(hello("allowed.test").replace(b"allowed.test", bad[:12]))
        assert rest(sock)[:1] in (b"\x15", b"")
    proxy.wait_for(lambda: proxy.journal.records, "recorded")
    assert {r.outcome.value for r in proxy.journal.records} == {"DENIED"}
    assert not proxy.origin.requests


def test_a_clienthello_may_come_byte_by_byte(proxy: Proxy) -> None:
    data = hello("evil.test")
    with captured(proxy, 443) as sock:
        for byte in data:
            sock.sendall(bytes([byte]))
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x31"
    refused(proxy, "host_blocked")


def test_a_broken_clienthello_is_refused_as_malformed(proxy: Proxy) -> None:
    with captured(proxy, 443) as sock:
        sock.sendall(b"\x16\x03\x01\x00\x04\x02\0\0\0")
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x32"
    refused(proxy, "malformed")


def test_half_a_clienthello_is_not_waited_for_for_ever(start: Callable[..., Proxy]) -> None:
    proxy = start(head_s_max=0.2)
    with captured(proxy, 443) as sock:
        sock.sendall(hello("allowed.test")[:40])
        assert rest(sock) == b""
    refused(proxy, "limit_exceeded")


# plain HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize("port", [80, 8080])
def test_http_on_any_port_is_read_and_its_host_decides(
    start: Callable[..., Proxy], port: int
) -> None:
    proxy = start(POLICY.replace('"plain.test"', '"plain.test", "plain.test:8080"'))
    with captured(proxy, port) as sock:
        sock.sendall(GET % (b"plain.test" if port == 80 else b"plain.test:8080"))
        assert read_answer(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(GET % b"evil.test")
        assert b"AESP-Reason: host_blocked" in read_answer(sock)
    assert len(proxy.origin.requests) == 1
    assert proxy.journal.records[0].target_port == port


def test_a_secret_in_captured_http_does_not_leave(proxy: Proxy, canary: bytes) -> None:
    with captured(proxy, 80) as sock:
        sock.sendall(GET.replace(b"/x", b"/" + canary) % b"plain.test")
        assert b"AESP-Reason: secret_found" in read_answer(sock)
    refused(proxy, "secret_found")


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: plain.test:8080\r\n\r\n", "name_mismatch"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (b"GET / HTTP/1.0\r\n\r\n", "address_forbidden"),
        (b"GET http://evil.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n", "malformed"),
        (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", "malformed"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unsupported"),
    ],
)
def test_captured_http_that_names_something_else_is_refused(
    proxy: Proxy, request_line: bytes, reason: str
) -> None:
    with captured(proxy, 80) as sock:
        sock.sendall(request_line)
        assert b"AESP-Reason: " + reason.encode() in read_answer(sock)
    refused(proxy, reason)


def test_http_1_0_without_host_goes_to_the_one_allowed_name(proxy: Proxy) -> None:
    proxy.names[SOMEWHERE] = ("plain.test",)
    with captured(proxy, 80) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 200 " in read_answer(sock)
    assert proxy.journal.records[0].target_host == "plain.test"


# destinations ----------------------------------------------------------------------------


def test_the_destination_is_what_the_socket_was_connected_to() -> None:
    for address in ("127.0.0.5", "::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]
            with socket.create_connection((address, port), 10):
                sock, _ = server.accept()
                with sock:
                    assert original_destination(sock.fileno()) == (ip_address(address), port)


def test_the_proxys_own_listener_is_no_destination(proxy: Proxy) -> None:
    for first in (hello(None), b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\x08"):
        with captured(proxy, proxy.port, "127.0.0.1") as sock:
            sock.sendall(first)
            rest(sock)
    assert {r.reason for r in proxy.journal.records} == {"address_forbidden"}


def test_curl_that_knows_of_no_proxy_is_served_and_refused(proxy: Proxy) -> None:
    address, port = proxy.capture(SOMEWHERE, 443)
    command = [
        "curl", "-sS", "--noproxy", "*", "--cacert", str(proxy.ca_file), "--connect-to",
    ]  # fmt: skip
    good = subprocess.run(
        [*command, f"allowed.test:443:{address}:{port}", "https://allowed.test/x"],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert (good.returncode, good.stdout) == (0, b"0 bytes"), good.stderr
    bad = subprocess.run(
        [*command, f"evil.test:443:{address}:{port}", "https://evil.test/x"],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert bad.returncode == 35  # "SSL connect error"
    assert "host_blocked" in {r.reason for r in proxy.journal.records}


def test_ech_hides_nothing_where_tls_is_taken_off(proxy: Proxy) -> None:
    with captured(proxy, 443) as sock:
        sock.sendall(with_extension(hello("evil.test"), 0xFE0D, bytes(40)))
        assert rest(sock) == b"\x15\x03\x03\x00\x02\x02\x31"
    refused(proxy, "host_blocked")

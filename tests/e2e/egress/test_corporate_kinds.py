"""Corporate proxies that speak TLS or SOCKS5: what they are told, and what is checked first."""

from __future__ import annotations

import datetime as dt
import json
import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from corporate_lab import Corporate, Socks
from egress_lab import POLICY, Proxy
from entries import Peer, take
from h2_client import H2Client

from aesp_proxy.daemon.config_upstream import Upstream
from aesp_proxy.daemon.reaching import way_out
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.egress.tls_settings import TlsSettings, client_certificates
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca

GET = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
NOW = dt.datetime.now(dt.UTC)
PRIVATE, PUBLIC, OTHER_PUBLIC = "10.9.9.9", "93.184.215.14", "93.184.215.15"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roots of the corporation, its proxy's certificate, one for another name, one for us."""
    folder = tmp_path_factory.mktemp("corporation")
    ca_cert, ca_key = make_ca("the corporation", now=NOW)
    pair = KeyPair(cert_pem=ca_cert, key_pem=ca_key)
    (folder / "roots.pem").write_bytes(ca_cert)
    for file, names, purpose in (
        ("proxy.pem", ["127.0.0.1"], Purpose.SERVER),
        ("elsewhere.pem", ["elsewhere.test"], Purpose.SERVER),
        ("us.pem", ["us"], Purpose.CLIENT),
    ):
        path = folder / file
        path.touch(mode=0o600)
        path.write_bytes(b"".join(issue_leaf(pair, names, purpose=purpose, now=NOW, days=1)))
    return folder


def server_context(leaf: Path, **options: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf)
    for name, value in options.items():
        setattr(context, name, value)
    return context


@pytest.fixture
def led(start: Callable[..., Proxy], pki: Path) -> Iterator[Callable[..., tuple[Proxy, Corporate]]]:
    """Start a proxy that is led by a corporate one of a kind, and that one."""
    running: list[Corporate] = []

    def begin(scheme: str, policy: str = POLICY, **options: object) -> tuple[Proxy, Corporate]:
        user, shown = options.pop("user", ""), options.pop("shown", None)
        addresses = options.pop("addresses", (PUBLIC,))
        connect_s_max = options.pop("connect_s_max", 10.0)
        leaf = pki / str(options.pop("leaf", "proxy.pem"))
        if scheme == "https":
            options.setdefault("tls", server_context(leaf))
        elif scheme.startswith("socks"):
            options.setdefault("socks", Socks())
        corporate = Corporate({}, **options)  # type: ignore[arg-type]
        running.append(corporate)
        names = [(f"127.0.0.1:{corporate.port}", str(shown))] if shown else []
        upstream = Upstream(proxy=f"{scheme}://{user}127.0.0.1:{corporate.port}")
        way = way_out(
            upstream,
            roots=pki / "roots.pem",
            tls=TlsSettings(certificates=client_certificates(names)),
        )

        async def lookup(name: str):
            del name
            return tuple(map(ip_address, addresses))

        proxy = start(
            policy, corporate=way, lookup=lookup, silence_s=0.05, connect_s_max=connect_s_max
        )
        proxy.interceptor._settings.static.clear()
        for host in ("allowed.test", *addresses):
            shown_host = f"[{host}]" if ":" in host and scheme != "socks5" else host
            corporate.places[f"{shown_host}:443"] = proxy.origin.tls_port
        return proxy, corporate

    try:
        yield begin
    finally:
        for corporate in running:
            corporate.stop()


def problem(answer: bytes) -> dict[str, str]:
    error: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return error


def failure(proxy: Proxy, reason: str = "upstream_failed") -> str:
    answer = proxy.ask(GET)
    assert problem(answer)["reason"] == reason, answer
    assert proxy.origin.requests == []
    return problem(answer)["message"]


# every kind --------------------------------------------------------------------------

KINDS = ["https", "socks5", "socks5h"]


@pytest.mark.parametrize("scheme", KINDS)
def test_requests_of_both_versions_and_large_bodies_go_through(led, scheme):
    proxy, corporate = led(scheme)
    assert proxy.ask(GET).endswith(b"0 bytes")
    with proxy.tunnel(alpn=("h2",)) as tls:
        assert H2Client(tls).ask("/x", b"y" * 300_000) == (200, b"300000 bytes")
    body = b"z" * 3_000_000
    post = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n"
    assert proxy.ask(post % len(body) + body).endswith(b"3000000 bytes")
    assert len(corporate.asked) == 3
    proxy.wait_for(
        lambda: any(
            r.upstream_address == f"127.0.0.1:{corporate.port}" for r in proxy.journal.records
        ),
        "the outcome names the address that was dialled",
    )


@pytest.mark.parametrize("scheme", KINDS)
def test_what_the_host_says_first_is_heard_from_its_first_byte(led, scheme):
    policy = POLICY.replace('"plain.test"', '"plain.test", "ssh.test:22"')
    proxy, corporate = led(scheme, policy)
    peer = Peer(first=b"SSH-2.0-x\r\n")
    where = PUBLIC if scheme == "socks5" else "ssh.test"
    corporate.places[f"{where}:22"] = peer.port
    try:
        sock, _ = proxy.connect("ssh.test:22")
        with sock:
            assert take(sock, 11) == b"SSH-2.0-x\r\n"
            sock.sendall(b"abc")
            proxy.wait_for(lambda: peer.received == [b"abc"], "the bytes of the client")
    finally:
        corporate.stop()
        peer.stop()


@pytest.mark.parametrize("scheme", KINDS)
def test_clients_share_what_was_led_through(led, scheme):
    proxy, corporate = led(scheme)
    for _ in range(2):
        assert proxy.ask(GET).endswith(b"0 bytes")
        proxy.wait_for(lambda: len(proxy.interceptor._pool) == 1, "the connection rests")
    assert len(corporate.asked) == 1


@pytest.mark.parametrize("scheme", KINDS)
def test_one_that_is_silent_or_down_is_a_failed_upstream(led, scheme, pki):
    proxy, corporate = led(scheme)
    corporate.stop()
    assert failure(proxy).startswith("cannot connect to the corporate proxy: ")


# TLS ---------------------------------------------------------------------------------


def test_the_certificate_of_the_corporate_proxy_is_verified(led, pki):
    proxy, corporate = led("https", leaf="elsewhere.pem")
    message = failure(proxy, "upstream_untrusted")
    assert message.startswith("the corporate proxy's certificate does not convince: ")
    assert corporate.asked == []


def test_it_is_shown_the_client_certificate_that_the_settings_name(led, pki):
    context = server_context(pki / "proxy.pem", verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(pki / "roots.pem")
    proxy, corporate = led("https", tls=context, shown=pki / "us.pem")
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert "us" in repr(corporate.certificates[0])


def test_without_one_its_refusal_is_a_failed_upstream(led, pki):
    context = server_context(pki / "proxy.pem", verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(pki / "roots.pem")
    proxy, _ = led("https", tls=context)
    assert "the corporate proxy" in failure(proxy)


def test_a_version_that_is_too_old_is_a_failed_upstream(led, pki):
    context = server_context(
        pki / "proxy.pem",
        minimum_version=ssl.TLSVersion.TLSv1_2,
        maximum_version=ssl.TLSVersion.TLSv1_2,
    )
    proxy, _ = led("https", tls=context)
    proxy.interceptor._dialler._corporate.tls.minimum_version = ssl.TLSVersion.TLSv1_3
    assert failure(proxy).startswith("no TLS with the corporate proxy: ")


def test_one_that_speaks_no_tls_is_a_failed_upstream(led):
    proxy, _ = led("https", tls=None, connect_s_max=0.3)
    assert failure(proxy) == "cannot connect to the corporate proxy: timed out"
    peer = Peer(first=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    proxy.interceptor._dialler._corporate = way_out(
        Upstream(proxy=f"https://127.0.0.1:{peer.port}")
    )
    try:
        assert failure(proxy).startswith("no TLS with the corporate proxy: ")
    finally:
        peer.stop()


def test_its_password_goes_in_tls(led):
    proxy, corporate = led("https", authorization=b"YWxpY2U6YQ==", user="alice:a@")
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert b"Basic YWxpY2U6YQ==" in corporate.asked[0]


# SOCKS5 ------------------------------------------------------------------------------


def test_socks5_is_told_checked_addresses_and_socks5h_names(led):
    proxy, corporate = led("socks5")
    proxy.ask(GET)
    assert corporate.asked == [f"{PUBLIC}:443".encode()]
    proxy, corporate = led("socks5h", addresses=(PRIVATE,))
    proxy.ask(GET)
    assert corporate.asked == [b"allowed.test:443"]


def test_an_address_that_is_forbidden_is_not_told_by_socks5(led):
    for addresses in ((PRIVATE,), (PUBLIC, PRIVATE), ("169.254.169.254",)):
        proxy, corporate = led("socks5", addresses=addresses)
        assert "address_forbidden" in proxy.ask(GET).decode()
        assert corporate.asked == []


def test_an_address_that_the_agent_names_is_checked_for_socks5h_too(led):
    policy = POLICY.replace("default_action: block", "default_action: allow")
    proxy, corporate = led("socks5h", policy)
    sock, answer = proxy.connect(f"{PRIVATE}:80")
    with sock:
        if answer.startswith(b"HTTP/1.1 200"):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % PRIVATE.encode())
            answer = sock.recv(4_096)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert corporate.asked == []


def test_of_several_addresses_the_next_is_asked_for_where_one_is_not_reached(led):
    proxy, corporate = led("socks5", addresses=("2606:4700::1111", OTHER_PUBLIC, PUBLIC))
    for gone in ("2606:4700::1111", OTHER_PUBLIC):
        del corporate.places[f"{gone}:443"]
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert corporate.asked == [
        b"2606:4700::1111:443", f"{OTHER_PUBLIC}:443".encode(), f"{PUBLIC}:443".encode()
    ]  # fmt: skip


def test_a_login_is_given_where_it_is_asked_for_and_stands_nowhere_else(led, caplog):
    for scheme in ("socks5", "socks5h"):
        socks = Socks((b"alice", b"p:a%"))
        proxy, _ = led(scheme, socks=socks, user="alice:p%3Aa%25@")
        assert proxy.ask(GET).endswith(b"0 bytes")
        assert socks.given == [(b"alice", b"p:a%")]
        told = repr(proxy.journal.records) + caplog.text + repr(proxy.interceptor._settings)
        assert "p:a%" not in told


@pytest.mark.parametrize(
    ("socks", "user", "says"),
    [
        (Socks((b"alice", b"a")), "", "wants credentials (SOCKS5)"),
        (Socks((b"alice", b"a")), "bob:b@", "does not take the credentials (SOCKS5)"),
        (Socks(method=0xFF), "bob:b@", "takes no method that is spoken here (SOCKS5)"),
        (Socks(method=1), "", "wants credentials (SOCKS5)"),
        (Socks(code=2), "", f"{PUBLIC}:443 is forbidden there (SOCKS5 reply 2)"),
        (Socks(code=5), "", f"{PUBLIC}:443 refused it (SOCKS5 reply 5)"),
        (Socks(code=77), "", f"{PUBLIC}:443 failed (SOCKS5 reply 77)"),
        (Socks(bound=b"\x09" + bytes(4)), "", "does not speak SOCKS5"),
    ],
    ids=["wants", "wrong", "no method", "gssapi", "forbidden", "refused", "unknown", "no reply"],
)
def test_what_it_refuses_is_a_failed_upstream_that_says_so(led, socks, user, says):
    proxy, _ = led("socks5", socks=socks, user=user)
    assert failure(proxy).removeprefix("the corporate proxy").lstrip(": ") == says


@pytest.mark.parametrize("bound", [b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x05a.net"])
def test_the_address_it_has_bound_is_read_over_whatever_its_kind(led, bound):
    proxy, _ = led("socks5", socks=Socks(bound=bound))
    assert proxy.ask(GET).endswith(b"0 bytes")


def test_what_speaks_something_else_than_socks_is_a_failed_upstream(led):
    proxy, _ = led("socks5")
    peer = Peer(first=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    proxy.interceptor._dialler._corporate = way_out(
        Upstream(proxy=f"socks5://127.0.0.1:{peer.port}")
    )
    try:
        assert failure(proxy) == "the corporate proxy does not speak SOCKS5"
    finally:
        peer.stop()


@pytest.mark.parametrize("login", ["alice:" + "a" * 256, "alice:", "é" * 200 + ":a"])
def test_a_login_that_socks5_cannot_say_is_a_configuration_error(login):
    with pytest.raises(ConfigError) as caught:
        way_out(Upstream(proxy=f"socks5://{login}@proxy.test:1080"))
    assert "aaa" not in str(caught.value)

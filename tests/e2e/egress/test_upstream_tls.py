"""TLS as the operator wants it: versions, suites, client certificates, sessions, leaves."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from egress_lab import NOW, Proxy
from h2_client import H2Client
from OpenSSL import SSL

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.intercept.egress.tls import EgressTls
from aesp_proxy.intercept.egress.tls_settings import (
    TlsSettings,
    client_certificates,
    parse_ciphers,
)
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca

GET = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
SUITE_1_2 = "ECDHE-ECDSA-AES256-GCM-SHA384"
SUITE_1_3 = "TLS_CHACHA20_POLY1305_SHA256"


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA for clients, and two clients: certificate, then key, in one file."""
    directory = tmp_path_factory.mktemp("identities")
    ca_cert, ca_key = make_ca("clients", now=NOW)
    (directory / "ca.pem").write_bytes(ca_cert)
    pair = KeyPair(cert_pem=ca_cert, key_pem=ca_key)
    for name in ("one", "two"):
        cert, key = issue_leaf(pair, [name], purpose=Purpose.CLIENT, now=NOW, days=2)
        file = directory / f"{name}.pem"
        file.write_bytes(cert + key)
        file.chmod(0o600)
    return directory


class Server:
    """A TLS server for ``allowed.test`` that notes each handshake and answers one request."""

    def __init__(self, proxy: Proxy, fit: Callable[[ssl.SSLContext], object]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(proxy.directory / "leaf.pem")
        fit(context)
        self._context = context
        self.seen: list[ssl.SSLSocket] = []
        self.reused: list[bool | None] = []
        self.clients: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        address = StaticAddress(address="127.0.0.1", port=self._listening.getsockname()[1])
        for name in ("allowed.test", "a.sub.test"):
            proxy.interceptor._settings.static[name, None] = address

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            plain.settimeout(20)
            with suppress(OSError), self._context.wrap_socket(plain, True) as sock:
                sock.recv(65_536)
                self.seen.append(sock)
                self.reused.append(sock.session_reused)
                subject = dict(x[0] for x in (sock.getpeercert() or {}).get("subject", ()))
                self.clients.append(subject.get("commonName", ""))
                self.version, self.suite = sock.version(), sock.cipher()
                sock.sendall(OK)

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)


@contextmanager
def served(proxy: Proxy, fit: Callable[[ssl.SSLContext], object]) -> Iterator[Server]:
    server = Server(proxy, fit)
    try:
        yield server
    finally:
        server.stop()


def at_most(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def fit(context: ssl.SSLContext) -> None:
        context.maximum_version = version

    return fit


def demanding(identities: Path) -> Callable[[ssl.SSLContext], None]:
    def fit(context: ssl.SSLContext) -> None:
        context.load_verify_locations(identities / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED

    return fit


def agent(proxy: Proxy, fit: Callable[[ssl.SSLContext], object]) -> ssl.SSLSocket:
    """Shake hands as an agent with TLS of its own choosing."""
    sock, answer = proxy.connect("allowed.test:443")
    assert answer.startswith(b"HTTP/1.1 200")
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    fit(context)
    try:
        return context.wrap_socket(sock, server_hostname="allowed.test")
    except OSError:
        sock.close()
        raise


def reason(answer: bytes) -> object:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["reason"]


# versions ---------------------------------------------------------------------------


def test_an_upstream_of_an_older_version_than_the_operator_wants_is_not_talked_to(start):
    proxy = start(tls=TlsSettings(version_min="1.3"))
    with served(proxy, at_most(ssl.TLSVersion.TLSv1_2)) as server:
        answer = proxy.ask(GET)
        assert server.seen == []
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert reason(answer) == "upstream_failed"


def test_an_upstream_of_version_1_2_is_talked_to_when_nothing_is_said(proxy):
    with served(proxy, at_most(ssl.TLSVersion.TLSv1_2)) as server:
        assert proxy.ask(GET).endswith(b"ok")
        assert server.version == "TLSv1.2"


def test_an_agent_of_an_older_version_than_the_operator_wants_gets_no_handshake(start):
    proxy = start(tls=TlsSettings(version_min="1.3"))
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.*version"):
        agent(proxy, at_most(ssl.TLSVersion.TLSv1_2))
    proxy.wait_for(
        lambda: any("TLS with the agent failed" in r.message for r in proxy.journal.records),
        "the outcome says it",
    )
    assert proxy.origin.requests == []


def test_versions_before_1_2_are_spoken_with_nobody(proxy):
    def old(context: ssl.SSLContext) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(ssl.SSLError):
        agent(proxy, old)
    with served(proxy, old) as server:
        assert reason(proxy.ask(GET)) == "upstream_failed"
        assert server.seen == []


# suites -----------------------------------------------------------------------------


def test_suites_of_1_2_are_those_of_the_operator_on_both_sides(start):
    proxy = start(tls=TlsSettings(ciphers=parse_ciphers(SUITE_1_2)))
    with served(proxy, at_most(ssl.TLSVersion.TLSv1_2)) as server:
        with agent(proxy, at_most(ssl.TLSVersion.TLSv1_2)) as tls:
            assert tls.cipher()[0] == SUITE_1_2
            tls.sendall(GET)
            assert tls.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.suite[0] == SUITE_1_2


def test_suites_of_1_3_are_those_of_the_operator_on_both_sides(start):
    proxy = start(tls=TlsSettings(version_min="1.3", ciphers=parse_ciphers(SUITE_1_3)))
    for _ in range(2):
        with served(proxy, lambda _: None) as server:
            with agent(proxy, lambda _: None) as tls:
                assert tls.cipher()[0] == SUITE_1_3
                tls.sendall(GET)
                assert tls.recv(100).startswith(b"HTTP/1.1 200 ")
            assert server.suite[0] == SUITE_1_3


def test_an_upstream_with_other_suites_is_not_talked_to(start):
    proxy = start(tls=TlsSettings(ciphers=parse_ciphers(SUITE_1_2)))

    def other(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")

    with served(proxy, other) as server:
        assert reason(proxy.ask(GET)) == "upstream_failed"
        assert server.seen == []


@pytest.mark.parametrize("text", ["nonsense", "TLS_NONSENSE", "HIGH:é"])
def test_unknown_suites_are_a_configuration_error(text):
    with pytest.raises(ConfigError, match="knows no such suites"):
        parse_ciphers(text)


@pytest.mark.parametrize("text", ["aNULL:HIGH", "eNULL"])
def test_suites_that_protect_nothing_are_a_configuration_error(text):
    with pytest.raises(ConfigError, match="does not encrypt"):
        parse_ciphers(text)


def test_the_security_level_of_openssl_cannot_be_lowered():
    with pytest.raises(ConfigError, match="security level"):
        parse_ciphers("DEFAULT:@SECLEVEL=0")


# client certificates ----------------------------------------------------------------


def test_a_host_is_shown_the_certificate_that_the_settings_name_for_it(start, identities):
    files = [
        ("allowed.test", str(identities / "one.pem")),
        ("*.test", str(identities / "two.pem")),
    ]
    proxy = start(tls=TlsSettings(certificates=client_certificates(files)))
    with served(proxy, demanding(identities)) as server:
        assert proxy.ask(GET).endswith(b"ok")
        assert proxy.ask(GET.replace(b"allowed", b"a.sub"), "a.sub.test").endswith(b"ok")
        assert server.clients == ["one", "two"]


def test_a_host_is_shown_its_certificate_over_http_2_too(start, identities):
    files = [("allowed.test:443", str(identities / "one.pem"))]
    proxy = start(tls=TlsSettings(certificates=client_certificates(files)))
    with served(proxy, demanding(identities)) as server:
        with proxy.tunnel(alpn=("h2",)) as tls:
            assert H2Client(tls).ask("/x") == (200, b"ok")
        assert server.clients == ["one"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_host_that_demands_a_certificate_it_has_none_for_is_a_failed_upstream(
    proxy, identities, version
):
    def fit(context: ssl.SSLContext) -> None:
        demanding(identities)(context)
        context.maximum_version = version

    with served(proxy, fit) as server:
        answer = proxy.ask(GET)
        assert server.seen == []
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert reason(answer) == "upstream_failed"


def test_a_certificate_is_shown_to_no_other_host_and_the_other_is_still_verified(start, identities):
    files = [("a.sub.test", str(identities / "one.pem"))]
    proxy = start(tls=TlsSettings(certificates=client_certificates(files)))

    def optional(context: ssl.SSLContext) -> None:
        demanding(identities)(context)
        context.verify_mode = ssl.CERT_OPTIONAL

    with served(proxy, optional) as server:
        assert proxy.ask(GET).endswith(b"ok")
        assert server.clients == [""]


def test_a_host_with_a_client_certificate_is_verified_like_any_other(start, identities):
    files = [("other.test", str(identities / "one.pem"))]
    proxy = start(tls=TlsSettings(certificates=client_certificates(files)))
    # The origin's certificate does not name other.test.
    answer = proxy.ask(GET.replace(b"allowed", b"other"), "other.test")
    assert reason(answer) == "upstream_untrusted"
    assert proxy.origin.requests == []


def test_a_key_that_others_may_read_is_a_configuration_error(identities, tmp_path):
    file = tmp_path / "open.pem"
    file.write_bytes((identities / "one.pem").read_bytes())
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read it \(mode 0640\)"):
        client_certificates([("allowed.test", str(file))])


def test_a_key_of_another_certificate_or_none_is_a_configuration_error(identities, tmp_path):
    file = tmp_path / "mixed.pem"
    one, two = ((identities / f"{name}.pem").read_bytes() for name in ("one", "two"))
    key = two[two.index(b"-----BEGIN PRIVATE KEY") :]
    cert = one[: one.index(b"-----BEGIN PRIVATE KEY")]
    file.touch(mode=0o600)
    for content, says in ((cert + key, "not that of"), (cert, "does not hold"), (b"", "not hold")):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=says):
            client_certificates([("allowed.test", str(file))])


def test_a_key_with_a_passphrase_is_a_configuration_error_and_nobody_is_asked(identities, tmp_path):
    data = (identities / "one.pem").read_bytes()
    locked = serialization.load_pem_private_key(data, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    file = tmp_path / "locked.pem"
    file.touch(mode=0o600)
    file.write_bytes(data[: data.index(b"-----BEGIN PRIVATE KEY")] + locked)
    with pytest.raises(ConfigError, match="asks for a passphrase"):
        client_certificates([("allowed.test", str(file))])


# memory -----------------------------------------------------------------------------


def test_a_connection_that_waits_keeps_no_room_for_records(proxy, monkeypatch):
    # OpenSSL's room is 17 KiB a direction; a mode of the connection gives it back.
    kept: list[SSL.Connection] = []

    def noting(start: Callable[..., None]) -> Callable[..., None]:
        def noted(self, data):
            start(self, data)
            kept.append(data.ssl_conn)

        return noted

    for way in ("tls_start_client", "tls_start_server"):
        monkeypatch.setattr(EgressTls, way, noting(getattr(EgressTls, way)))
    assert proxy.ask(GET)
    assert len(kept) == 2
    for one in kept:
        assert SSL._lib.SSL_set_mode(one._ssl, 0) & SSL.MODE_RELEASE_BUFFERS


# sessions and leaves ----------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_upstream_sessions_are_resumed_by_the_connections_that_follow(proxy, version):
    with served(proxy, at_most(version)) as server:
        for _ in range(4):
            assert proxy.ask(GET).endswith(b"ok")
        assert server.reused == [False, True, True, True]


def test_a_session_is_not_taken_to_another_host(proxy):
    with served(proxy, at_most(ssl.TLSVersion.TLSv1_3)) as server:
        assert proxy.ask(GET).endswith(b"ok")
        assert proxy.ask(GET.replace(b"allowed", b"a.sub"), "a.sub.test").endswith(b"ok")
        assert server.reused == [False, False]


def test_resumed_sessions_keep_the_client_certificate(start, identities):
    files = [("allowed.test", str(identities / "one.pem"))]
    proxy = start(tls=TlsSettings(certificates=client_certificates(files)))

    def fit(context: ssl.SSLContext) -> None:
        demanding(identities)(context)
        context.maximum_version = ssl.TLSVersion.TLSv1_3

    with served(proxy, fit) as server:
        for _ in range(3):
            assert proxy.ask(GET).endswith(b"ok")
        assert server.clients == ["one"] * 3


def test_a_host_is_issued_one_certificate_however_often_it_is_asked_for(proxy):
    seen = set()
    for _ in range(3):
        with agent(proxy, lambda _: None) as tls:
            seen.add(tls.getpeercert(binary_form=True))
    assert len(seen) == 1
    with proxy.tunnel("a.sub.test") as tls:
        seen.add(tls.getpeercert(binary_form=True))
    assert len(seen) == 2

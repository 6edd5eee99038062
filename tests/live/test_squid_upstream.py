"""A real squid as the corporate proxy, as it is installed by Debian, with passwords."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from egress_lab import POLICY, Proxy, read_answer, start
from siem_lab import Got, Said, SealingHost, receiving, storing, syslog_over_tls

from aesp_proxy.aggregator.export.run import deliver_all
from aesp_proxy.aggregator.export.settings import ExportSettings, SinkSettings
from aesp_proxy.daemon.config_upstream import Upstream
from aesp_proxy.daemon.reaching import way_out
from aesp_proxy.intercept.egress.pool import PoolLimits
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca
from aesp_proxy.model.record import Outcome, Record, RecordKind

__all__ = ["start"]

SQUID = shutil.which("squid", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
AUTH = Path("/usr/lib/squid/basic_ncsa_auth")
NTLM = Path("/usr/lib/squid/ntlm_fake_auth")
pytestmark = pytest.mark.skipif(
    SQUID is None or not AUTH.is_file(), reason="squid is not installed"
)

ANY_PORT = POLICY.replace('"allowed.test"', '"allowed.test:*", "nowhere.test:*"')
BASIC = "auth_param basic program {auth} {folder}/passwords\nauth_param basic realm corporate"
LISTEN = {
    "http": "http_port 127.0.0.1:{port}",
    "https": "https_port 127.0.0.1:{port} tls-cert={folder}/squid.pem tls-key={folder}/squid.pem",
}
RECORDED = Record(
    kind=RecordKind.DECISION, time_ns=1_790_000_000_000_000_000, event_type="policy_violation",
    action="http.get", outcome=Outcome.DENIED, verdict="deny", reason="host_blocked", guard="g",
    severity="warning", message="m", resource="https://evil.test/",
)  # fmt: skip
CONFIGURATION = """\
{listen}
{login}
acl known proxy_auth REQUIRED
acl open port {open}
http_access deny CONNECT !open
http_access allow known
http_access deny all
hosts_file {folder}/hosts
dns_nameservers 127.0.0.1
dns_timeout 1 second
cache deny all
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache_store_log none
pid_filename none
coredump_dir {folder}
pinger_enable off
netdb_filename none
shutdown_lifetime 0 seconds
"""


@dataclass
class Squid:
    folder: Path
    port: int

    def log(self) -> str:
        """Give what it logged of the requests."""
        return (self.folder / "access.log").read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def squid(open_port: int, scheme: str, login: str) -> Iterator[Squid]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)  # started by root it becomes another user
        with _squid(Path(name), open_port, scheme, login) as running:
            yield running


@contextlib.contextmanager
def _squid(folder: Path, open_port: int, scheme: str, login: str) -> Iterator[Squid]:
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "hunter2"], capture_output=True, text=True, check=True
    )
    (folder / "passwords").write_text(f"alice:{hashed.stdout}")
    (folder / "hosts").write_text("127.0.0.1 allowed.test\n")
    _write_certificate(folder)
    port = free_port()
    places = {"port": port, "auth": AUTH, "folder": folder, "open": open_port}
    text = CONFIGURATION.format(
        listen=LISTEN[scheme].format(**places), login=login.format(**places), **places
    )
    (folder / "squid.conf").write_text(text)
    words = [str(SQUID), "-N", "-f", str(folder / "squid.conf")]
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        _await(process, port, folder)
        yield Squid(folder, port)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _write_certificate(folder: Path) -> None:
    now = datetime.now(UTC)
    cert, key = make_ca("the corporation", now=now)
    pair = KeyPair(cert_pem=cert, key_pem=key)
    leaf = issue_leaf(pair, ["127.0.0.1"], purpose=Purpose.SERVER, now=now, days=1)
    (folder / "roots.pem").write_bytes(cert)
    (folder / "squid.pem").write_bytes(b"".join(leaf))
    (folder / "squid.pem").chmod(0o644)


def _await(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline, pause = time.monotonic() + 30, threading.Event()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, (folder / "out").read_text()
        assert time.monotonic() < deadline, "squid never listened"
        pause.wait(0.05)


@pytest.fixture
def chained(tmp_path: Path, start: Callable[..., Proxy]) -> Iterator[Callable[..., object]]:
    with contextlib.ExitStack() as stack:

        def begin(
            password: str, *, is_open: bool = True, scheme: str = "http", login: str = BASIC
        ) -> tuple[Proxy, Squid]:
            proxy = start(ANY_PORT, pool=PoolLimits(connections_max=0))  # squid logs at the end
            proxy.interceptor._settings.static.clear()
            open_port = proxy.origin.tls_port if is_open else 1
            other = stack.enter_context(squid(open_port, scheme, login))
            credentials = tmp_path / "credentials"
            credentials.touch(mode=0o600)
            credentials.write_text(password)
            settings = Upstream(
                proxy=f"{scheme}://127.0.0.1:{other.port}",
                proxy_credentials_file=credentials if password else None,
            )
            proxy.interceptor._dialler._corporate = way_out(
                settings, roots=other.folder / "roots.pem"
            )
            return proxy, other

        yield begin


def ask(proxy: Proxy, host: str = "allowed.test") -> bytes:
    port = proxy.origin.tls_port
    sock, answer = proxy.connect(f"{host}:{port}")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with context.wrap_socket(sock, server_hostname=host) as tls:
        tls.sendall(f"GET /x HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return read_answer(tls)


def test_hosts_are_reached_through_squid_with_a_password(chained):
    proxy, other = chained("alice:hunter2")
    assert ask(proxy).endswith(b"0 bytes")
    proxy.wait_for(lambda: "CONNECT allowed.test:" in other.log(), "squid's own log")


def test_hosts_are_reached_through_squid_in_tls(chained):
    proxy, other = chained("alice:hunter2", scheme="https")
    assert ask(proxy).endswith(b"0 bytes")
    proxy.wait_for(lambda: "CONNECT allowed.test:" in other.log(), "squid's own log")


@pytest.mark.parametrize(
    ("kind", "scheme"), [("webhook", "http"), ("webhook", "https"), ("syslog", "http")]
)
def test_sinks_of_the_aggregator_are_reached_through_squid(kind, scheme, tmp_path: Path):
    certificate, roots = _receiver_certificate(tmp_path)
    got: list[Got] = []
    with contextlib.ExitStack() as stack:
        data, store = stack.enter_context(storing(tmp_path / "agg"))
        store(SealingHost(RECORDED), 3)
        if kind == "syslog":
            lines = stack.enter_context(syslog_over_tls({"right_server": certificate}))
            port = int(lines.address.rpartition(":")[2])
        else:
            receiver = stack.enter_context(receiving(lambda it: got.append(it) or Said(200)))
            receiver.take_tls(certificate)
            port = receiver.server.server_port
        other = stack.enter_context(squid(port, scheme, BASIC))
        sink = SinkSettings(
            name="soc", type=kind, secret="token", format="ocsf", ca_file=roots,
            url=f"https://allowed.test:{port}", address=f"allowed.test:{port}",
            proxy=f"{scheme}://127.0.0.1:{other.port}", proxy_user="alice",
            proxy_secret="wrong", proxy_ca_file=other.folder / "roots.pem",
        )  # fmt: skip
        assert deliver_all(data, ExportSettings(sinks=(sink,))) == {"soc": False}
        assert got == []
        sink = dataclasses.replace(sink, proxy_secret="hunter2")
        assert deliver_all(data, ExportSettings(sinks=(sink,))) == {"soc": True}
        assert kind != "syslog" or lines.ended.wait(10)
        assert (len(lines.messages) if kind == "syslog" else len(got)) > 0


def _receiver_certificate(folder: Path) -> tuple[Path, Path]:
    now = datetime.now(UTC)
    cert, key = make_ca("the receivers", now=now)
    pair = KeyPair(cert_pem=cert, key_pem=key)
    leaf = issue_leaf(pair, ["allowed.test"], purpose=Purpose.SERVER, now=now, days=1)
    server, roots = folder / "server.pem", folder / "receivers.pem"
    server.write_bytes(b"".join(leaf))
    roots.write_bytes(cert)
    return server, roots


@pytest.mark.skipif(not NTLM.is_file(), reason="squid's helper for NTLM is not installed")
def test_squid_that_takes_ntlm_only_is_told_with_what_to_do(chained):
    proxy, _ = chained("alice:hunter2", login=f"auth_param ntlm program {NTLM}")
    answer = ask(proxy)
    assert b"the corporate proxy wants NTLM, which is not spoken here (407)" in answer
    assert b"cntlm" in answer


@pytest.mark.parametrize(
    ("password", "says"),
    [("", "wants credentials (407)"), ("alice:wrong", "does not take the credentials (407)")],
)
def test_squid_without_the_right_password_is_a_failed_upstream(chained, password, says):
    proxy, _ = chained(password)
    answer = ask(proxy)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert f"the corporate proxy {says}".encode() in answer


def test_a_port_that_squid_does_not_open_is_told(chained):
    proxy, _ = chained("alice:hunter2", is_open=False)
    assert b"the corporate proxy forbids CONNECT to allowed.test" in ask(proxy)


def test_a_name_that_squid_cannot_resolve_is_told(chained):
    proxy, _ = chained("alice:hunter2")
    assert b"the corporate proxy cannot reach nowhere.test" in ask(proxy, "nowhere.test")

"""The real transport against a real TLS server on loopback, with real certificates."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.forward.ship_process import make_shipper, take_turn
from aesp_proxy.forward.shipper import Shipped
from aesp_proxy.forward.transport import HttpsTransport, load_destination
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca, write_atomic
from aesp_proxy.record.signature import public_to_pem

NOW = datetime.now(UTC)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.region.post(body)  # type: ignore[attr-defined]
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        return


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        return


def leaf(ca: KeyPair, purpose: Purpose, name: str, now: datetime = NOW) -> KeyPair:
    cert_pem, key_pem = issue_leaf(ca, [name], purpose=purpose, now=now, days=2)
    return KeyPair(cert_pem=cert_pem, key_pem=key_pem)


def authority() -> KeyPair:
    cert_pem, key_pem = make_ca("region", now=NOW - timedelta(days=20))
    return KeyPair(cert_pem=cert_pem, key_pem=key_pem)


@pytest.fixture
def ca() -> KeyPair:
    return authority()


@pytest.fixture
def server(tmp_path: Path, region, ca: KeyPair) -> Iterator[QuietServer]:
    file = tmp_path / "server.pem"
    write_atomic(file, leaf(ca, Purpose.SERVER, "127.0.0.1").combined_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=ca.cert_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    http = QuietServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    http.region, http.requests = region, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield http
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def forward(tmp_path: Path, server: QuietServer, region, ca: KeyPair) -> Path:
    directory = tmp_path / "state" / "forward"
    directory.mkdir(parents=True)
    client = leaf(ca, Purpose.CLIENT, "h-test")
    write_atomic(directory / "ca.pem", ca.cert_pem)
    write_atomic(directory / "client.pem", client.cert_pem)
    write_atomic(directory / "client.key", client.key_pem)
    write_atomic(directory / "aggregator.pub", public_to_pem(region.public_key))
    write_atomic(directory / "url", f"https://127.0.0.1:{server.server_port}\n".encode())
    return directory


def test_batches_go_over_one_connection_of_mutual_tls(host, server, forward) -> None:
    host.seal(3)
    shipper, transport = make_shipper(host.paths, forward)
    try:
        assert shipper.ship_once() == Shipped(sent=3, covered=3, waiting=0)
    finally:
        transport.close()
    path, headers = server.requests[0]
    assert path == "/v1/batches"
    assert headers["Content-Type"] == "application/vnd.aesp.batch"


def test_a_proxy_in_the_environment_is_not_used(
    host, forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.seal(1)
    shipper, transport = make_shipper(host.paths, forward)
    assert shipper.ship_once().covered == 1
    transport.close()


def _post(forward: Path) -> None:
    transport = HttpsTransport(load_destination(forward), timeout_s=5)
    try:
        transport.post(b"body")
    finally:
        transport.close()


def test_a_server_of_another_authority_is_not_talked_to(server, forward) -> None:
    write_atomic(forward / "ca.pem", authority().cert_pem)
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        _post(forward)
    assert server.requests == []


def test_a_client_of_another_authority_is_turned_away(server, forward) -> None:
    stranger = leaf(authority(), Purpose.CLIENT, "h-test")
    write_atomic(forward / "client.pem", stranger.cert_pem)
    write_atomic(forward / "client.key", stranger.key_pem)
    with pytest.raises(UnavailableError):
        _post(forward)
    assert server.requests == []


def test_a_server_under_another_name_is_not_talked_to(server, forward) -> None:
    (forward / "url").write_text(f"https://localhost:{server.server_port}")
    with pytest.raises(UnavailableError, match=r"mismatch|not valid"):
        _post(forward)


def test_nobody_listening_is_unavailable(forward) -> None:
    (forward / "url").write_text("https://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        _post(forward)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("url", b"http://127.0.0.1:1", "no https URL"),
        ("url", b"https://user@host/", "no https URL"),
        ("url", b"https://host:99999/", "no URL"),
        ("url", b"", "no https URL"),
        ("ca.pem", b"not a certificate", "cannot be used for TLS"),
        ("client.pem", b"nothing", "no readable certificate"),
        ("client.key", b"nothing", "no readable private key"),
        ("aggregator.pub", b"nothing", "not a PEM public key"),
        ("aggregator.pub", None, "cannot be read"),
    ],
)
def test_wrong_settings_are_named(forward, file: str, content: bytes | None, told: str) -> None:
    if content is None:
        (forward / file).unlink()
    else:
        (forward / file).write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        load_destination(forward)
    assert str(forward) in str(caught.value)


def test_an_expired_certificate_is_named_before_anything_is_sent(forward, ca: KeyPair) -> None:
    expired = leaf(ca, Purpose.CLIENT, "h-test", now=NOW - timedelta(days=9))
    write_atomic(forward / "client.pem", expired.cert_pem)
    write_atomic(forward / "client.key", expired.key_pem)
    with pytest.raises(ConfigError, match="has expired"):
        load_destination(forward)


def _process(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE)


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        assert process.stdin is not None
        process.stdin.close()
        return process.wait(30)
    finally:
        process.kill()
        process.wait()


def test_the_sealer_process_ships_through_its_child_and_the_end_waits_for_it(
    host, server, forward
) -> None:
    host.seal(2)
    state = str(host.directory)
    sealer = _process(
        "aesp_proxy.record.sealer_process", "--state", state, "--forward", str(forward)
    )
    assert _end(sealer) == 0
    assert server.region.head.batch_no >= 2
    assert host.paths.receipt.exists()


def _until(holds: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s, what
        select.select([], [], [], 0.05)


def _enrol(place: Path, forward: Path) -> None:
    """Put in place what enrolling writes, in its order: the address last."""
    place.mkdir(exist_ok=True)
    for name in ("ca.pem", "client.key", "client.pem", "aggregator.pub", "url"):
        write_atomic(place / name, (forward / name).read_bytes())


def test_a_host_that_is_enrolled_while_its_sealer_runs_ships_without_a_restart(
    host, server, forward, tmp_path: Path
) -> None:
    host.seal(2)
    place = tmp_path / "later"
    sealer = _process(
        "aesp_proxy.record.sealer_process",
        "--state", str(host.directory), "--forward-when-enrolled", str(place),
    )  # fmt: skip
    try:
        _until((host.paths.status).exists, "the sealer runs")
        assert not server.requests
        (place).mkdir()
        write_atomic(place / "ca.pem", b"half of an enrolment")
        _enrol(place, forward)
        _until(host.paths.receipt.exists, "it ships")
    finally:
        assert _end(sealer) == 0
    assert server.region.head.batch_no >= 2


def test_a_shipper_goes_where_the_host_is_enrolled_anew(host, server, forward) -> None:
    host.seal(1)
    there = (forward / "url").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as other:
        elsewhere = f"https://127.0.0.1:{other.getsockname()[1]}\n".encode()
    write_atomic(forward / "url", elsewhere)
    shipper = _process(
        "aesp_proxy.forward.ship_process", "--state", str(host.directory), "--forward", str(forward)
    )
    try:
        said = host.paths.root / "forward.json"
        _until(lambda: said.exists() and "cannot be reached" in said.read_text(), "it fails")
        write_atomic(forward / "url", b"no URL")
        _until(lambda: "no https URL" in said.read_text(), "what is not whole is told")
        write_atomic(forward / "url", there)
        _until(host.paths.receipt.exists, "it ships")
    finally:
        assert _end(shipper) == 0


def test_a_shipper_without_settings_says_so_and_sealing_goes_on(host, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    shipper = _process(
        "aesp_proxy.forward.ship_process", "--state", str(host.directory), "--forward", absent
    )
    assert _end(shipper) == 3
    sealer = _process(
        "aesp_proxy.record.sealer_process", "--state", str(host.directory), "--forward", absent
    )
    assert _end(sealer) == 0


def test_an_unreachable_aggregator_does_not_hold_up_the_end(host, forward) -> None:
    (forward / "url").write_text("https://127.0.0.1:9")
    host.seal(1)
    shipper = _process(
        "aesp_proxy.forward.ship_process",
        "--state", str(host.directory), "--forward", str(forward),
    )  # fmt: skip
    assert _end(shipper) == 0
    assert '"error": "127.0.0.1:9: ' in (host.paths.root / "forward.json").read_text()


def test_only_one_process_ships_a_state(host) -> None:
    lock = take_turn(host.paths)
    assert lock is not None
    assert take_turn(host.paths) is None
    lock.release()
    again = take_turn(host.paths)
    assert again is not None
    again.release()

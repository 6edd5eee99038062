"""The real transport against a real TLS server on loopback, with real certificates."""

from __future__ import annotations

import json
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

from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.forward.addresses import learn
from aesp_proxy.forward.ship_process import make_shipper, take_turn
from aesp_proxy.forward.shipper import PAUSE_FIRST_S, PAUSE_S_MAX, Shipped, pause_s
from aesp_proxy.forward.transport import ADDRESSES_MAX, HttpsTransport, load_destination, urls
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

    def do_GET(self) -> None:
        status, headers, body = self.server.says  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
        ("url", b"", "1 to 16 URLs"),
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


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens, held so that nobody else comes to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing, as a stopped process does."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield f"https://127.0.0.1:{held.getsockname()[1]}"


def several(forward: Path, *others: str) -> Path:
    """Put other aggregators before the one that answers."""
    one = (forward / "url").read_text()
    (forward / "url").write_text("".join(f"{url}\n" for url in others) + one)
    return forward


def said(*lines: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({"urls": "\n".join(lines)}).encode()


def test_after_a_failure_the_next_is_asked_and_the_one_that_answers_is_kept(
    host, server, forward, dead: str, silent: str
) -> None:
    host.seal(2)
    destination = load_destination(several(forward, dead, silent))
    transport = HttpsTransport(destination, timeout_s=0.5)
    for address in (dead, silent):
        with pytest.raises(UnavailableError) as failed:
            transport.post(b"")
        assert failed.value.where in address
    server.says = said()
    for _ in range(3):
        assert transport.get("addresses").status == 200
        assert transport.turn == 2
    transport.close()


def test_one_that_can_store_nothing_is_left_for_the_next(forward, server) -> None:
    again = (forward / "url").read_text().strip() + "/other"
    transport = HttpsTransport(load_destination(several(forward, again)))
    server.says = (503, {"Retry-After": "7"}, b"")
    assert transport.get("addresses").status == 503
    assert (transport.turn, transport.asked_s) == (1, 7.0)
    server.says = (404, {}, b"")
    assert transport.get("addresses").status == 404
    assert (transport.turn, transport.asked_s) == (1, 0.0)
    transport.close()


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("99999", 60.0), ("-1", 0.0), ("soon", 0.0)]
)
def test_what_an_aggregator_asks_for_is_bounded(forward, server, header, seconds) -> None:
    transport = HttpsTransport(load_destination(forward))
    server.says = (503, {"Retry-After": header}, b"")
    transport.get("addresses")
    assert transport.asked_s == seconds
    transport.close()


def test_with_several_the_next_is_tried_soon_and_the_pause_grows_when_all_have_failed() -> None:
    longest = [pause_s(failures, 0.999_999, addresses=3) for failures in range(1, 31)]
    assert all(round(pause, 3) == PAUSE_FIRST_S for pause in longest[0::3] + longest[1::3])
    laps = longest[2::3]
    assert laps == sorted(laps)
    assert round(laps[0], 3) == 2 * PAUSE_FIRST_S
    assert round(laps[-1], 3) == PAUSE_S_MAX
    assert pause_s(1, 0.0, addresses=3) > 0
    assert pause_s(1, 0.5, asked_s=4.0) == 6.0
    assert pause_s(1, 0.5, addresses=2, asked_s=4.0) < PAUSE_FIRST_S


class TestLearning:
    """One aggregator says where all are."""

    @pytest.fixture
    def transport(self, forward) -> Iterator[HttpsTransport]:
        made = HttpsTransport(load_destination(forward))
        yield made
        made.close()

    def test_all_are_kept_and_the_one_that_answered_stays(
        self, forward, server, transport: HttpsTransport
    ) -> None:
        (own,) = urls(forward)
        server.says = said("https://a.example.test:1", "https://b.example.test")
        assert learn(forward, transport)
        assert urls(forward) == ("https://a.example.test:1", "https://b.example.test", own)
        assert len(load_destination(forward).addresses) == 3

    def test_the_same_in_another_order_is_nothing_new(
        self, forward, server, transport: HttpsTransport
    ) -> None:
        (own,) = urls(forward)
        server.says = said("https://a.example.test:1", own)
        assert learn(forward, transport)
        server.says = said(own, "https://a.example.test:1")
        again = HttpsTransport(load_destination(forward), first=1)
        assert not learn(forward, again)
        again.close()

    @pytest.mark.parametrize(
        "answer",
        [(404, {}, b""), (503, {}, b""), said()],
        ids=["older", "unavailable", "nothing-said"],
    )
    def test_what_says_nothing_changes_nothing(
        self, forward, server, transport: HttpsTransport, answer
    ) -> None:
        server.says = answer
        before = (forward / "url").read_bytes()
        assert not learn(forward, transport)
        assert (forward / "url").read_bytes() == before

    @pytest.mark.parametrize(
        "answer",
        [
            (200, {}, b"nonsense"),
            (200, {}, b'{"urls": ["https://a.test"]}'),
            said("http://a.example.test"),
            said("https://a.example.test", "ftp://b"),
            said("https://user@a.example.test"),
            said("https://a.example.test/" + "x" * 400),
            said("https://a.example.test/\x1b[2J"),
        ],
        ids=["no-json", "list", "http", "one-wrong", "user", "long", "control"],
    )
    def test_an_answer_with_one_wrong_address_is_refused_whole(
        self, forward, server, transport: HttpsTransport, answer
    ) -> None:
        server.says = answer
        before = (forward / "url").read_bytes()
        with pytest.raises((InputError, ConfigError)):
            learn(forward, transport)
        assert (forward / "url").read_bytes() == before

    def test_there_are_never_too_many(self, forward, server, transport: HttpsTransport) -> None:
        (own,) = urls(forward)
        server.says = said(*(f"https://a{n}.example.test" for n in range(40)))
        assert learn(forward, transport)
        assert len(urls(forward)) == ADDRESSES_MAX
        assert own in urls(forward)


@pytest.mark.parametrize(
    "lines", ["", "\n \n", "https://a\n" + "".join(f"https://{n}.test\n" for n in range(16))]
)
def test_no_address_and_too_many_are_wrong_settings(forward, lines: str) -> None:
    (forward / "url").write_text(lines)
    with pytest.raises(ConfigError, match="1 to 16 URLs"):
        load_destination(forward)


def test_a_process_that_ships_goes_on_at_another_when_one_is_gone(
    host, server, forward, dead: str
) -> None:
    several(forward, dead, dead + "/twin")
    server.says = (404, {}, b"")
    host.seal(3)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "aesp_proxy.forward.ship_process",
            "--state",
            str(host.paths.root.parent),
            "--forward",
            str(forward),
        ],
        stdin=subprocess.PIPE,
    )
    try:
        end_s = time.monotonic() + 30
        while not (host.paths.root / "receipts" / "newest").exists():
            assert time.monotonic() < end_s
            select.select([], [], [], 0.05)
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0

"""The aggregator as a process: real TLS, real disk, real signals, loopback only."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from aesp_proxy import keys
from aesp_proxy.aggregator import enrolment
from aesp_proxy.aggregator.identity import (
    DataDir,
    FileLock,
    ensure_server_certificate,
    load_ca,
    prepare,
)
from aesp_proxy.aggregator.run import ServeOptions, serve
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.aggregator.store.ledger import SqliteLedger
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.cli.aggregator import aggregator
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.forward.transport import Answer, Destination, HttpsTransport, load_destination
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.batch import decode_batch, draft, encode_batch, seal, verify_batch
from aesp_proxy.record.canonical import encode
from aesp_proxy.record.head import Head, advance, genesis
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.receipt import verify_receipt
from aesp_proxy.record.signature import (
    Signer,
    key_id_of,
    new_private_pem,
    public_to_pem,
    signer_from_pem,
)

START_NS = 1_790_000_000_000_000_000
WAIT_S = 20.0
COMMAND = [sys.executable, "-c", "from aesp_proxy.cli import main; main()", "aggregator"]
SCRIPT = """
import sys
from hashlib import sha256
from pathlib import Path
from aesp_proxy.aggregator.limits import ServerLimits
from aesp_proxy.aggregator.run import ServeOptions, serve
{before}
serve(
    ServeOptions(data=Path(sys.argv[1]), port=0, ready_fd=int(sys.argv[2]), limits={limits}),
    announce=lambda url: None,
)
"""


@dataclass
class Host:
    """A host's chain: seals records and follows its own head."""

    origin: str
    key: tuple[bytes, Signer] = field(default_factory=lambda: signer_from_pem(new_private_pem()))
    head: Head | None = None
    next_seq: int = 1

    def take(self, count: int = 3, **changes: Any) -> bytes:
        head = self.head or genesis(self.origin)
        plain = Record(
            kind=RecordKind.DECISION,
            time_ns=START_NS,
            event_type="http",
            action="http.get",
            outcome=Outcome.DENIED,
            verdict="deny",
            reason="host_blocked",
            guard="egress_allowlist",
            severity="warning",
            message="m",
            resource="r",
            target_host="evil.example.test",
            agent_id="agent",
        )
        numbers = range(self.next_seq, self.next_seq + count)
        rows = [
            encode(
                replace(plain, time_ns=START_NS + seq, **changes),
                RecordId(origin=self.origin, epoch=1, seq=seq),
            )
            for seq in numbers
        ]
        header = draft(
            head,
            key_id=key_id_of(self.key[0]),
            epoch=1,
            first_seq=self.next_seq,
            wall_ns=START_NS + head.batch_no,
            mono_ns=1 + head.batch_no,
            boot_id="b",
            first_time_ns=START_NS + numbers[0],
            last_time_ns=START_NS + numbers[-1],
        )
        batch = seal(rows, header=header, sign=self.key[1])
        full = decode_header(batch.header_bytes)
        self.head = advance(head, full, header_hash(batch.header_bytes))
        self.next_seq += count
        return encode_batch(batch)

    def enrol(self, data: DataDir, out: Path, url: str) -> HttpsTransport:
        enrolment.enrol_host(
            data,
            enrolment.HostKey(origin=self.origin, public_key=self.key[0]),
            out=out,
            url=url,
            tenants=(),
            now=datetime.now(UTC),
        )
        return HttpsTransport(load_destination(out), timeout_s=WAIT_S)


INDEXING = "aesp_proxy.aggregator.index_process"


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@dataclass
class Server:
    """A running aggregator."""

    data: DataDir
    url: str
    process: subprocess.Popen[bytes]
    errors: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def children(self, module: str = "") -> list[int]:
        """Name the processes beside the server, those that run ``module``."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        # The index keeper forks from a thread of its own.
        for task in Path(f"/proc/{pid}/task").iterdir():
            text += " " + (task / "children").read_text()
        found = {int(word) for word in text.split()}
        return sorted(pid for pid in found if module.encode() in command_line(pid))

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=WAIT_S)


def read_line(descriptor: int) -> bytes:
    """Wait for the server's word, or for its end."""
    line = b""
    end_s = time.monotonic() + WAIT_S
    while not line.endswith(b"\n") and time.monotonic() < end_s:
        readable, _, _ = select.select([descriptor], [], [], 1)
        if readable:
            more = os.read(descriptor, 4096)
            if not more:
                break
            line += more
    return line


@contextmanager
def running(
    root: Path, *, before: str = "", limits: str = "ServerLimits()", wait: bool = True
) -> Iterator[Server]:
    """Start a real server process on a free port; end it, whatever happens."""
    reader, writer = os.pipe()
    errors = root.parent / f"{root.name}.err"
    script = SCRIPT.format(before=before, limits=limits)
    with errors.open("ab") as error_file:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(root), str(writer)],
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=error_file,
        )
    os.close(writer)
    try:
        line = read_line(reader)
        assert line or not wait, errors.read_text()
        url = json.loads(line)["url"] if line else ""
        yield Server(data=DataDir(root), url=url, process=process, errors=errors)
    finally:
        os.close(reader)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(holds: Callable[[], bool]) -> None:
    """Wait for another process, a little at a time."""
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, "it did not come to pass"
        select.select([], [], [], 0.02)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def done(*arguments: str) -> Result:
    """Run a command in this process; an error of ours comes as ``exception``."""
    return CliRunner().invoke(aggregator, list(arguments))


def events(*arguments: str) -> Any:
    result = done("query", "--format", "json", *arguments)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def prepared(root: Path) -> DataDir:
    """Make a data directory as a first start does, without a server."""
    data = prepare(root, now=datetime.now(UTC))
    ensure_server_certificate(data, ("127.0.0.1", "localhost"), now=datetime.now(UTC))
    objects = DirectoryObjects(root)
    SqliteLedger(data.ledger, objects).close()
    SqliteControl(data.control).close()
    objects.close()
    return data


def at_port(destination: Destination, port: int) -> Destination:
    """Give the same aggregator where it listens now."""
    (address,) = destination.addresses
    return replace(destination, addresses=(replace(address, port=port),))


def receipt_of(server: Server, answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    public_key = load_destination(server.data.root.parent / "out").public_key
    return verify_receipt(answer.body, public_key=public_key)


def stored(server: Server, origin: str) -> list[bytes]:
    directory = server.data.root / "batches" / origin
    names = sorted(directory.iterdir()) if directory.exists() else []
    return [path.read_bytes() for path in names]


def assert_chain_verifies(batches: list[bytes], public_key: bytes) -> None:
    head = None
    for data in batches:
        head = verify_batch(decode_batch(data), public_key=public_key, previous=head).head


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = "ServerLimits(body_s_max=0.6, headers_s_max=0.6, handshake_s_max=0.6)"
    with running(tmp_path_factory.mktemp("aggregator") / "data", limits=limits) as made:
        yield made


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Host:
    return Host(origin=f"h-{sha256(request.node.name.encode()).hexdigest()[:16]}")


def https(server: Server, directory: Path, **more: Any) -> http.client.HTTPSConnection:
    context = load_destination(directory).tls
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=WAIT_S, context=context)


def test_what_a_host_ships_is_stored_receipted_and_found(
    server: Server, host: Host, tmp_path: Path
) -> None:
    transport = host.enrol(server.data, tmp_path / "out", server.url)
    destination = load_destination(tmp_path / "out")
    for number in (1, 2, 3):
        answer = transport.post(host.take())
        assert answer.status == 200
        receipt = verify_receipt(answer.body, public_key=destination.public_key, origin=host.origin)
        assert receipt.batch_no == number
    transport.close()
    assert_chain_verifies(stored(server, host.origin), host.key[0])
    here = events("--data", str(server.data.root), "--origin", host.origin)
    assert [event["seq"] for event in here["events"]] == list(range(9, 0, -1))
    out = str(tmp_path / "out")
    page = events("--client", out, "--verdict", "deny", "--limit", "4")
    assert [event["seq"] for event in page["events"]] == [9, 8, 7, 6]
    rest = events("--client", out, "--cursor", page["cursor"], "--full")
    assert [event["record"]["message"] for event in rest["events"]] == ["m"] * 5


def test_a_host_sees_its_own_events_and_a_reader_all(
    server: Server, host: Host, tmp_path: Path
) -> None:
    other = Host(origin=host.origin[:40] + "-other")
    for shipper, place in ((host, "one"), (other, "two")):
        transport = shipper.enrol(server.data, tmp_path / place, server.url)
        assert transport.post(shipper.take(agent_id=host.origin)).status == 200
        transport.close()
    enrolment.admit_reader(
        server.data, "soc", out=tmp_path / "soc", url=server.url, now=datetime.now(UTC)
    )

    def seen(place: str) -> set[str]:
        answer = events("--client", str(tmp_path / place), "--agent", host.origin)
        return {event["origin"] for event in answer["events"]}

    until(lambda: len(seen("soc")) == 2)
    assert seen("soc") == {host.origin, other.origin}
    assert seen("one") == {host.origin}
    refused = done("query", "--client", str(tmp_path / "one"), "--origin", other.origin)
    assert isinstance(refused.exception, InputError)


def test_the_identity_is_told_to_whom_it_knows(server: Server, host: Host, tmp_path: Path) -> None:
    host.enrol(server.data, tmp_path / "out", server.url).close()
    connection = https(server, tmp_path / "out")
    connection.request("GET", "/v1/identity")
    answer = json.loads(connection.getresponse().read())
    assert answer["public_key"] == (tmp_path / "out" / "aggregator.pub").read_text()
    assert answer["peer"] == {"role": "host", "name": host.origin}
    for path in ("/health", "/ready"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (200, True)
    connection.request("GET", "/v1/events?agent=a&agent=b")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (400, "bad_parameter")
    connection.close()


def attempt(server: Server, context: ssl.SSLContext) -> bytes:
    """Say hello; return what comes back."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        return tls.recv(4096)


def anonymous(server: Server) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.data.ca))


def with_certificate(server: Server, directory: Path, pems: tuple[bytes, bytes]) -> ssl.SSLContext:
    (directory / "c.pem").write_bytes(pems[0])
    (directory / "c.key").write_bytes(pems[1])
    context = anonymous(server)
    context.load_cert_chain(directory / "c.pem", directory / "c.key")
    return context


def client_pems(ca: keys.KeyPair, *, now: datetime, days: int = 10) -> tuple[bytes, bytes]:
    return keys.issue_leaf(ca, (), purpose=keys.Purpose.CLIENT, now=now, days=days, common_name="h")


def ours(server: Server, directory: Path) -> ssl.SSLContext:
    ca = load_ca(server.data, now=datetime.now(UTC))
    return with_certificate(server, directory, client_pems(ca, now=datetime.now(UTC)))


def no_certificate(server: Server, directory: Path) -> ssl.SSLContext:
    return anonymous(server)


def other_authority(server: Server, directory: Path) -> ssl.SSLContext:
    now = datetime.now(UTC)
    cert_pem, key_pem = keys.make_ca("AESP Proxy aggregator CA", now=now)
    other = keys.KeyPair(cert_pem=cert_pem, key_pem=key_pem)
    return with_certificate(server, directory, client_pems(other, now=now))


def expired(server: Server, directory: Path) -> ssl.SSLContext:
    ca = load_ca(server.data, now=datetime.now(UTC))
    past = datetime.now(UTC) - timedelta(days=30)
    return with_certificate(server, directory, client_pems(ca, now=past, days=10))


def server_certificate(server: Server, directory: Path) -> ssl.SSLContext:
    pems = (server.data.server.read_bytes(), server.data.server_key.read_bytes())
    return with_certificate(server, directory, pems)


def old_tls(server: Server, directory: Path) -> ssl.SSLContext:
    ca = load_ca(server.data, now=datetime.now(UTC))
    context = with_certificate(server, directory, client_pems(ca, now=datetime.now(UTC)))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    "make", [no_certificate, other_authority, expired, server_certificate, old_tls]
)
def test_tls_lets_in_nobody_without_a_certificate_of_ours(
    server: Server, tmp_path: Path, make: Callable[[Server, Path], ssl.SSLContext]
) -> None:
    context = make(server, tmp_path)
    answer = b""
    # In TLS 1.3 the client hears of the refusal at its first read (RFC 8446, section 4.4.2.4).
    with suppress(ssl.SSLError, ConnectionError):
        answer = attempt(server, context)
    assert answer == b""
    assert b" 200 " in attempt(server, ours(server, tmp_path))


def test_a_certificate_that_is_not_in_the_store_opens_nothing(
    server: Server, tmp_path: Path
) -> None:
    ca = load_ca(server.data, now=datetime.now(UTC))
    context = with_certificate(server, tmp_path, client_pems(ca, now=datetime.now(UTC)))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, timeout=WAIT_S, context=context
    )
    for method, path in (("POST", "/v1/batches"), ("GET", "/v1/events"), ("GET", "/v1/identity")):
        connection.request(method, path, body=b"x" if method == "POST" else None)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (
            403,
            "unknown_certificate",
        )
        connection.close()


def test_a_revoked_host_is_shut_out_at_once_and_enrolling_lets_it_in_again(
    server: Server, host: Host, tmp_path: Path
) -> None:
    transport = host.enrol(server.data, tmp_path / "out", server.url)
    first, second = host.take(), host.take()
    assert transport.post(first).status == 200
    shut = done("revoke", "--data", str(server.data.root), host.origin)
    assert shut.exit_code == 0, shut.exception
    assert transport.post(second).status == 403
    transport.close()
    transport = host.enrol(server.data, tmp_path / "again", server.url)
    assert transport.post(second).status == 200
    transport.close()


def open_tls(server: Server, directory: Path) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    return load_destination(directory).tls.wrap_socket(plain, server_hostname="127.0.0.1")


def request_head(*lines: str) -> bytes:
    return "\r\n".join(("POST /v1/batches HTTP/1.1", "Host: a", *lines, "", "")).encode()


def answer_to_the_end(tls: ssl.SSLSocket) -> bytes:
    answer = b""
    with suppress(ssl.SSLError, ConnectionError):
        while more := tls.recv(65_536):
            answer += more
    return answer


def test_a_gigabyte_is_refused_by_its_declared_size(
    server: Server, host: Host, tmp_path: Path
) -> None:
    host.enrol(server.data, tmp_path / "out", server.url).close()
    with open_tls(server, tmp_path / "out") as tls:
        tls.sendall(request_head("Content-Length: 1073741824") + b"x" * 1000)
        answer = answer_to_the_end(tls)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b'"code":"oversize"' in answer


def test_a_body_without_an_end_is_refused_at_the_limit(
    server: Server, host: Host, tmp_path: Path
) -> None:
    host.enrol(server.data, tmp_path / "out", server.url).close()
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    sent = 0
    with open_tls(server, tmp_path / "out") as tls:
        tls.sendall(request_head("Transfer-Encoding: chunked"))
        with suppress(ssl.SSLError, ConnectionError):
            while sent < 64:
                tls.sendall(chunk)
                sent += 1
        answer = answer_to_the_end(tls)
    # On a busy machine its time is over before its limit is.
    assert sent < 64 or answer.split(b" ")[1] in {b"413", b"408"}


def test_a_slow_body_is_ended(server: Server, host: Host, tmp_path: Path) -> None:
    host.enrol(server.data, tmp_path / "out", server.url).close()
    with open_tls(server, tmp_path / "out") as tls:
        tls.sendall(request_head("Content-Length: 1000") + b"slowly")
        answer = answer_to_the_end(tls)
    assert b" 408 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize(
    "body", [b"", b"\x00" * 100, b"AESPBAT1" + b"\xff" * 100, os.urandom(5000)]
)
def test_what_is_no_batch_is_a_problem_and_the_connection_goes_on(
    server: Server, host: Host, tmp_path: Path, body: bytes
) -> None:
    transport = host.enrol(server.data, tmp_path / "out", server.url)
    answer = transport.post(body)
    assert answer.status in {413, 422}
    assert json.loads(answer.body)["status"] == answer.status
    assert transport.post(host.take()).status == 200
    transport.close()


def test_connections_that_say_nothing_are_ended_and_others_served(
    server: Server, host: Host, tmp_path: Path
) -> None:
    transport = host.enrol(server.data, tmp_path / "out", server.url)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    silent: list[socket.socket] = []
    address = ("127.0.0.1", server.port)
    try:
        silent += [socket.create_connection(address, timeout=WAIT_S) for _ in range(1000)]
        shaken = [open_tls(server, tmp_path / "out") for _ in range(5)]
        silent += shaken
        half = open_tls(server, tmp_path / "out")
        half.sendall(b"POST /v1/batches HTTP/1.1\r\nX-Slow: ")
        silent.append(half)
        assert transport.post(host.take()).status == 200
        for connection in silent:
            with suppress(ConnectionError, ssl.SSLError):
                while connection.recv(4096):
                    pass
    finally:
        for connection in silent:
            connection.close()
    transport.close()


def test_every_answer_but_200_is_a_problem(server: Server, host: Host, tmp_path: Path) -> None:
    host.enrol(server.data, tmp_path / "out", server.url).close()
    for method, path, status, code in (
        ("GET", "/nosuch", 404, "not_found"),
        ("POST", "/v1/events", 405, "method_not_allowed"),
    ):
        connection = https(server, tmp_path / "out")
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/problem+json"
        said = json.loads(answer.read())
        assert (answer.status, said["status"], said["code"]) == (status, status, code)
        assert status != 405 or answer.headers["Allow"] in {"GET, HEAD", "HEAD, GET"}
        connection.close()


def test_malformed_http_is_answered_with_400_and_ends(
    server: Server, host: Host, tmp_path: Path
) -> None:
    host.enrol(server.data, tmp_path / "out", server.url).close()
    for bad in (b"\x00\x01\x02\r\n\r\n", request_head("Content-Length: -5"), b"GET " + b"a" * 200):
        with open_tls(server, tmp_path / "out") as tls:
            tls.sendall(bad)
            answer = answer_to_the_end(tls)
        assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0]
    with open_tls(server, tmp_path / "out") as tls:
        with suppress(ssl.SSLError, ConnectionError):
            for number in range(10_000):
                tls.sendall(b"GET /health HTTP/1.1\r\n" if number == 0 else b"X: y\r\n" * 100)
        answer_to_the_end(tls)
    connection = https(server, tmp_path / "out")
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


KILL_BEFORE_ANSWER = """
import os, signal
from aesp_proxy.aggregator import writer
writer.Writer._receipt = lambda self, head: os.kill(os.getpid(), signal.SIGKILL)
"""
KILL_BEFORE_COMMIT = """
import os, signal
from aesp_proxy.aggregator.store import ledger
ledger.encode_head = lambda head: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("before", "kept"), [(KILL_BEFORE_ANSWER, 1), (KILL_BEFORE_COMMIT, 0)])
def test_a_server_killed_before_it_answers_stores_the_batch_exactly_once(
    tmp_path: Path, host: Host, before: str, kept: int
) -> None:
    root = tmp_path / "data"
    host.enrol(prepared(root), tmp_path / "out", "https://127.0.0.1:1").close()
    first, second = host.take(), host.take()
    with running(root, before=before) as server:
        transport = HttpsTransport(
            at_port(load_destination(tmp_path / "out"), server.port), timeout_s=WAIT_S
        )
        with pytest.raises(UnavailableError):
            transport.post(first)
        assert server.process.wait(timeout=WAIT_S) == -signal.SIGKILL
    with running(root) as server:
        assert len(stored(server, host.origin)) == kept
        destination = at_port(load_destination(tmp_path / "out"), server.port)
        transport = HttpsTransport(destination, timeout_s=WAIT_S)
        for _ in range(2):
            answer = transport.post(first)
            assert answer.status == 200
            receipt = verify_receipt(answer.body, public_key=destination.public_key)
            assert receipt.batch_no == 1
        assert transport.post(second).status == 200
        transport.close()
        assert stored(server, host.origin) == [first, second]
        assert len(events("--data", str(root))["events"]) == 6


def test_a_server_whose_writer_ends_answers_503_and_ends_too(tmp_path: Path, host: Host) -> None:
    broken = "from aesp_proxy.aggregator import writer; writer.judge = None"
    with running(tmp_path / "data", before=broken) as server:
        transport = host.enrol(server.data, tmp_path / "out", server.url)
        assert transport.post(host.take()).status == 503
        assert server.process.wait(timeout=WAIT_S) != 0
        transport.close()


# Where the other end dies between connection and handshake, ssl of Python 3.12 leaves the socket
# to the collector of garbage.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_killed_at_any_moment_nothing_receipted_is_lost(tmp_path: Path, host: Host) -> None:
    root = tmp_path / "data"
    host.enrol(prepared(root), tmp_path / "out", "https://127.0.0.1:1").close()
    batches: list[bytes] = []
    receipted = 0
    for kill_after in (1, 4, 9):
        with running(root) as server:
            destination = at_port(load_destination(tmp_path / "out"), server.port)
            transport = HttpsTransport(destination, timeout_s=WAIT_S)
            number = receipted
            try:
                while number < receipted + 200:
                    if number == len(batches):
                        batches.append(host.take(20))
                    if number >= receipted + kill_after:
                        server.process.kill()
                    answer = transport.post(batches[number])
                    assert answer.status == 200
                    receipt = verify_receipt(answer.body, public_key=destination.public_key)
                    number = receipt.batch_no
            except UnavailableError:
                assert server.process.wait(timeout=WAIT_S) == -signal.SIGKILL
            transport.close()
            receipted = number
            kept = stored(server, host.origin)
            assert kept[:receipted] == batches[:receipted]
            assert_chain_verifies(kept[:receipted], host.key[0])


def test_a_signal_ends_the_server_cleanly_with_everything_indexed(
    tmp_path: Path, host: Host
) -> None:
    with running(tmp_path / "data") as server:
        transport = host.enrol(server.data, tmp_path / "out", server.url)
        assert transport.post(host.take(500)).status == 200
        children = server.children()
        assert children
        assert server.stop() == 0
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        transport.close()
    found = command("query", "--data", str(server.data.root), "--limit", "1000", "--format", "json")
    assert len(json.loads(found.stdout)["events"]) == 500


def test_the_indexing_process_is_started_again_and_never_left_behind(
    tmp_path: Path, host: Host
) -> None:
    with running(tmp_path / "data") as server:
        transport = host.enrol(server.data, tmp_path / "out", server.url)
        until(lambda: len(server.children(INDEXING)) == 1)
        (first,) = server.children(INDEXING)
        os.kill(first, signal.SIGKILL)
        until(lambda: server.children(INDEXING) not in ([], [first]))
        assert transport.post(host.take()).status == 200
        found: list[Any] = []

        def indexed() -> bool:
            connection = https(server, tmp_path / "out")
            connection.request("GET", "/v1/events")
            found[:] = json.loads(connection.getresponse().read())["events"]
            connection.close()
            return len(found) == 3

        until(indexed)
        left = server.children()
        server.process.kill()
        server.process.wait(timeout=WAIT_S)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))
        transport.close()


def serve_fails(*arguments: str) -> subprocess.CompletedProcess[str]:
    failed = command("serve", *arguments)
    assert "Traceback" not in failed.stderr
    assert len([line for line in failed.stderr.splitlines() if line]) == 1, failed.stderr
    assert failed.stdout == ""
    return failed


def test_a_port_in_use_is_one_line_and_exit_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = serve_fails("--data", str(tmp_path / "data"), "--listen", address)
    assert (failed.returncode, address in failed.stderr) == (3, True)


@pytest.mark.parametrize("listen", ["8443", "host:", "[::1]:99999", ":1", "a:-1"])
def test_a_wrong_address_is_a_config_error(tmp_path: Path, listen: str) -> None:
    failed = done("serve", "--data", str(tmp_path / "data"), "--listen", listen)
    assert isinstance(failed.exception, ConfigError)


def test_an_address_that_no_host_can_reach_needs_a_name(tmp_path: Path) -> None:
    failed = done("serve", "--data", str(tmp_path / "data"), "--listen", "0.0.0.0:0")
    assert isinstance(failed.exception, ConfigError)
    assert "--name" in str(failed.exception)


@pytest.mark.parametrize("name", ["a b", "https://a.example", "", "a:8443", "[::1]:1", "a,b"])
def test_a_name_that_is_none_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    failed = done(
        "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--name", name
    )
    assert isinstance(failed.exception, ConfigError)
    assert "--name" in str(failed.exception)
    assert not (tmp_path / "data" / "tls" / "server.pem").exists()


def served_here(root: Path) -> None:
    """Start to serve in this process: for starts that must fail before a signal or thread."""
    serve(ServeOptions(data=root, port=0), announce=lambda _: pytest.fail("it serves"))


def test_a_directory_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=str(tmp_path / "file")):
        served_here(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    "name", ["ca/ca.pem", "ca/ca.key", "control.sqlite", "ledger.sqlite", "tls/server.pem"]
)
def test_a_damaged_file_is_named_and_stops_the_start(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    prepared(root)
    (root / name).write_bytes(b"damaged" * 2000)
    with pytest.raises(ConfigError) as caught:
        served_here(root)
    place = str((root / name).parent) if "/" in name else name
    assert place in str(caught.value)
    assert (root / name).read_bytes() == b"damaged" * 2000


def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    lock = FileLock(prepared(tmp_path / "data").serve_lock)
    assert lock.take()
    try:
        with pytest.raises(UnavailableError, match="another aggregator"):
            served_here(tmp_path / "data")
    finally:
        lock.release()


def test_the_commands_look_after_a_host_from_enrolment_to_release(
    tmp_path: Path, host: Host
) -> None:
    root = tmp_path / "data"
    ready = tmp_path / "ready.json"
    process = subprocess.Popen(
        [
            *COMMAND,
            "serve",
            "--data",
            str(root),
            "--listen",
            "127.0.0.1:0",
            "--ready-file",
            str(ready),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "enroll" in process.stderr.readline()
        url = json.loads(ready.read_text())["url"]
        key_file = tmp_path / "host.pub"
        key_file.write_bytes(public_to_pem(host.key[0]))
        out = tmp_path / "out"
        enrolled = done(
            *("enroll", "--data", str(root), "--origin", host.origin),
            *("--key", str(key_file), "--out", str(out)),
        )
        assert enrolled.exit_code == 0, enrolled.exception
        assert (out / "url").read_text().strip() == url
        transport = HttpsTransport(load_destination(out), timeout_s=WAIT_S)
        branch = Host(origin=host.origin, key=host.key).take(1)
        assert transport.post(host.take(agent_id="\x1b[2J\u202eagent")).status == 200
        fork = transport.post(branch)
        assert (fork.status, json.loads(fork.body)["code"]) == (409, "fork")
        gap = transport.post((host.take(), host.take())[1])
        assert (gap.status, json.loads(gap.body)["code"]) == (409, "quarantined")
        transport.close()
        shown = done("origins", "--data", str(root))
        assert "QUARANTINE" in shown.stdout
        assert "evidence: fork" in shown.stdout
        assert json.loads(done("origins", "--data", str(root), "--format", "json").stdout)
        assert done("release", "--data", str(root), host.origin).exit_code == 0
        again = done("release", "--data", str(root), host.origin)
        assert isinstance(again.exception, ConfigError)
        table = done("query", "--data", str(root), "--since", "1970-01-01")
        assert "\x1b" not in table.stdout
        assert "\u202e" not in table.stdout
        assert "evil.example.test" in table.stdout
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=WAIT_S) == 0
        if process.stderr is not None:
            process.stderr.close()
    assert "3 events" in done("reindex", "--data", str(root)).stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("query", "--data", "{missing}"), ConfigError),
        (("query",), click.UsageError),
        (("query", "--data", "{missing}", "--client", "{missing}"), click.UsageError),
        (("origins", "--data", "{missing}"), ConfigError),
        (("reindex", "--data", "{missing}"), ConfigError),
        (("enroll", "--data", "{missing}", "--state", "{missing}"), ConfigError),
        (("enroll", "--data", "{missing}"), click.UsageError),
        (("query", "--client", "{missing}"), ConfigError),
    ],
)
def test_a_wrong_use_is_an_error_of_ours(
    tmp_path: Path, arguments: tuple[str, ...], error: type[Exception]
) -> None:
    missing = str(tmp_path / "missing")
    words = [word.replace("{missing}", missing) for word in arguments]
    with pytest.raises(error):
        aggregator.main(words, standalone_mode=False)

"""``aesp-proxy daemon`` as an operator uses it: real processes, signals, files and clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aesp_proxy.daemon.service.ask import ask
from aesp_proxy.errors import UnavailableError

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
WAIT_S = 60.0
POLICY = """\
version: "1.2.0"
name: {name}
guards:
  egress_allowlist: {{default_action: block, allow: ["{allow}"]}}
  secret_leak: {{enabled: {scans}}}
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that other processes bring about."""
    pause = select.poll()
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"not in {WAIT_S} s: {what}"
        pause.poll(20)


class Origin(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Manager:
    """Stands for systemd: takes datagrams at an abstract socket, ``@NAME``."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:])
        self.lines: list[str] = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def heard(self, start: str) -> int:
        """How many lines so far begin so."""
        return sum(line.startswith(start) for line in self.lines)

    def _listen(self) -> None:
        while data := self.sock.recv(65536):
            self.lines += data.decode().split("\n")

    def close(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(WAIT_S)
        self.sock.close()


class Daemon:
    """One service, its files, and the ways in."""

    def __init__(self, folder: Path, origin: int) -> None:
        self.folder = folder
        self.state, self.run_dir = folder / "state", folder / "run"
        self.policy = folder / "policy.yaml"
        self.config = folder / "config.yaml"
        self.said = folder / "said"
        self.process: subprocess.Popen[bytes] | None = None
        self.config.write_text(
            f"state_dir: {self.state}\npolicy: {self.policy}\n"
            f"daemon: {{run_dir: {self.run_dir}, ca_copy: {folder}/ca.pem}}\n"
            "upstream:\n  resolve:\n"
            f"    one.test: 127.0.0.1:{origin}\n    two.test: 127.0.0.1:{origin}\n"
        )
        self.write("first", "one.test")

    def write(self, name: str, allow: str, *, scans: bool = False) -> None:
        """Put another policy in the file's place, as an editor does."""
        draft = self.folder / "draft"
        draft.write_text(POLICY.format(name=name, allow=allow, scans=str(scans).lower()))
        draft.replace(self.policy)

    def start(self, *more: str, **environ: str) -> None:
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [str(PROGRAM), "daemon", "--config", str(self.config), *more],
                env={**os.environ, **environ},
                stdout=said,
                stderr=said,
            )

    def ready(self, *more: str, **environ: str) -> dict[str, Any]:
        """Start it, and wait until all its workers decide."""
        self.start(*more, **environ)
        return self.wait(lambda told: told["state"] == "running", "ready")

    def ask(self) -> subprocess.CompletedProcess[str]:
        """Run ``aesp-proxy status``."""
        return subprocess.run(
            [str(PROGRAM), "status", "--config", str(self.config), "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )

    def status(self) -> dict[str, Any] | None:
        """What it says, over its socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.run_dir / "control.sock"))
                sock.sendall(b'{"ask": "status"}\n')
                data = b""
                while more := sock.recv(65536):
                    data += more
            except OSError:
                return None
        return json.loads(data) if data else None

    def wait(self, condition: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """Wait until what it says is so."""
        told: list[dict[str, Any]] = []

        def holds() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.text()
            now = self.status()
            if now is not None and condition(now):
                told.append(now)
            return bool(told)

        until(holds, f"{what}: {self.status()} {self.text()}")
        return told[0]

    def secrets(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``aesp-proxy secrets``, with a text to read."""
        verb, *rest = words
        return subprocess.run(
            [str(PROGRAM), "secrets", verb, "--config", str(self.config), *rest],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def get(self, host: str, path: str = "/") -> int:
        """Ask for a page through the proxy; the status of the answer."""
        status = self.status()
        assert status is not None
        client = http.client.HTTPConnection("127.0.0.1", status["listen"]["port"], timeout=WAIT_S)
        try:
            client.request("GET", f"http://{host}{path}")
            return client.getresponse().status
        finally:
            client.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def text(self) -> str:
        """What it wrote to standard error."""
        return self.said.read_text() if self.said.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """Its record, from disk."""
        ran = subprocess.run(
            [str(PROGRAM), "audit", "tail", "--state", str(self.state), "--json", "-n", "1000"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    # A short path: a unix socket's has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="aesp") as folder:
        one = Daemon(Path(folder), server.server_address[1])
        try:
            yield one
        finally:
            if one.process is not None:
                one.process.kill()
                one.process.wait()
                ours = str(one.state).encode()
                until(lambda: not _mentioning(ours), "all processes gone")
            server.shutdown()
            server.server_close()
            thread.join()


def _mentioning(text: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_it_decides_says_how_it_is_and_ends_in_order(daemon):
    assert daemon.ask().returncode == 4
    daemon.ready()
    assert (daemon.get("one.test"), daemon.get("two.test")) == (200, 403)
    ran = daemon.ask()
    told = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert told["policy"]["name"] == "first"
    assert told["policy"]["serial"] == 1
    assert len(told["policy"]["hash"]) == 64
    assert told["last_reload"] is None
    assert told["forwarder"]["on"] is False
    (worker,) = told["workers"]
    assert (worker["allowed"], worker["refused"], worker["epoch"]) == (1, 1, 1)
    said = ask(daemon.run_dir / "control.sock", {"ask": "refusals", "what": "TWO", "last": 9})
    assert [each["reason"] for each in said["refusals"]] == ["host_not_allowed"]
    assert "guards.egress_allowlist.allow" in said["refusals"][0]["remedy"]
    with pytest.raises(UnavailableError, match="last is a number from 1 to 1000"):
        ask(daemon.run_dir / "control.sock", {"ask": "refusals", "last": 0})
    assert (daemon.run_dir / "control.sock").stat().st_mode & 0o777 == 0o600
    assert "BEGIN CERTIFICATE" in (daemon.folder / "ca.pem").read_text()
    assert daemon.end() == 0
    assert daemon.ask().returncode == 4
    assert not _mentioning(str(daemon.state).encode())
    assert [r["reason"] for r in daemon.records() if r["kind"] == "decision"].count("allowed") == 1


def test_a_changed_policy_is_taken_whole_and_a_bad_one_leaves_the_old_one_loudly(daemon):
    daemon.ready()
    assert (daemon.get("one.test"), daemon.get("two.test")) == (200, 403)
    daemon.write("second", "two.test")
    daemon.wait(lambda told: told["workers"][0]["serial"] == 2, "the change taken")
    assert (daemon.get("one.test"), daemon.get("two.test")) == (403, 200)
    # Cut off in the middle of the list that allows; then asked for by hand as well.
    daemon.policy.write_text("version: '1.2.0'\nname: third\nguards: {egress_allowlist: {allow: [")
    told = daemon.wait(lambda told: (told["last_reload"] or {})["error"], "the error told")
    assert "policy.yaml" in told["last_reload"]["error"]
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.text().count("the old one stays") >= 2, "told again")
    told = daemon.status()
    assert (told["policy"]["name"], told["policy"]["serial"]) == ("second", 2)
    assert (daemon.get("one.test"), daemon.get("two.test")) == (403, 200)
    # A worker that is started meanwhile decides by the old one too.
    first = told["workers"][0]["pid"]
    os.kill(first, signal.SIGKILL)
    told = daemon.wait(
        lambda told: told["workers"][0]["ready"] and told["workers"][0]["pid"] != first, "back"
    )
    assert told["workers"][0]["serial"] == 2
    assert (daemon.get("one.test"), daemon.get("two.test")) == (403, 200)
    daemon.write("third", "one.test")
    daemon.wait(lambda told: told["workers"][0]["serial"] == 3, "mended")
    assert daemon.status()["last_reload"]["error"] == ""
    assert daemon.end() == 0
    kinds = [r["event_type"] for r in daemon.records() if r["kind"] == "lifecycle"]
    assert kinds.count("policy.reloaded") == 2
    assert kinds.count("policy.reload_refused") >= 1


def test_a_change_of_what_the_policy_extends_is_taken(daemon):
    (daemon.folder / "policies").mkdir()
    base = daemon.folder / "policies/base.yaml"
    base.write_text(POLICY.format(name="base", allow="one.test", scans="false"))
    daemon.policy.write_text('version: "1.2.0"\nname: child\nextends: policies/base\n')
    daemon.ready()
    assert daemon.get("two.test") == 403
    base.write_text(POLICY.format(name="base", allow="two.test", scans="false"))
    daemon.wait(lambda told: told["workers"][0]["serial"] == 2, "the parent's change taken")
    assert (daemon.get("one.test"), daemon.get("two.test")) == (403, 200)


def test_a_hangup_reads_the_policy_again_and_the_manager_is_told_all(daemon):
    address = f"@aesp-{os.getpid()}-{id(daemon)}"
    manager = Manager(address)
    with contextlib.closing(manager):
        daemon.ready(NOTIFY_SOCKET=address, WATCHDOG_USEC="600000")
        until(lambda: manager.heard("READY=1"), "ready")
        until(lambda: manager.heard("WATCHDOG=1") >= 3, "pings")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda told: told["workers"][0]["serial"] == 2, "read again")
        until(lambda: manager.heard("READY=1") == 2, "ready again")
        assert manager.heard("RELOADING=1") == manager.heard("MONOTONIC_USEC=") == 1
        assert manager.heard("STATUS=1 of 1 workers") >= 1
        assert daemon.end() == 0
        assert manager.heard("STOPPING=1") == 1


def test_several_workers_share_the_port_and_one_that_is_killed_comes_back(daemon):
    told = daemon.ready("--workers", "2")
    pids = [worker["pid"] for worker in told["workers"]]
    assert len(set(pids)) == 2

    def both_decided() -> bool:
        assert daemon.get("one.test") == 200
        return all(worker["allowed"] for worker in daemon.status()["workers"])

    until(both_decided, "connections at both")
    daemon.write("second", "two.test")
    daemon.wait(lambda told: [w["serial"] for w in told["workers"]] == [2, 2], "both reloaded")
    os.kill(pids[0], signal.SIGKILL)
    # Every connection is answered, by the other or by the one that comes.
    assert {daemon.get("two.test") for _ in range(8)} == {200}
    told = daemon.wait(
        lambda told: told["workers"][0]["ready"] and told["workers"][0]["pid"] != pids[0], "back"
    )
    assert [worker["pid"] for worker in told["workers"]][1] == pids[1]
    assert [worker["restarts"] for worker in told["workers"]] == [1, 0]
    assert "was killed by SIGKILL" in daemon.text()


def test_what_is_registered_is_looked_for_at_once_by_every_worker_also_by_new_ones(daemon):
    value, path = "q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1", "/?q=q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaU"
    assert daemon.secrets("list").returncode == 4
    daemon.write("first", "one.test", scans=True)
    told = daemon.ready("--workers", "2", "--set", "secrets.sources=")
    assert {daemon.get("one.test", path) for _ in range(8)} == {200}
    ran = daemon.secrets("register", "--name", "DEPLOY", text=f"{value}\n")
    assert (ran.returncode, ran.stdout) == (0, "registered DEPLOY (standard input)\n")
    assert {daemon.get("one.test", path) for _ in range(8)} == {403}
    assert daemon.secrets("register", "--name", "WORD", text="localhost").returncode == 1
    assert daemon.secrets("list").stdout == "DEPLOY  standard input\n"
    for worker in told["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    daemon.wait(lambda told: all(w["ready"] for w in told["workers"]), "back")
    # One half goes to one worker; the other is refused by each, as they tell each other.
    assert daemon.get("one.test", f"/up/{value[:20]}") == 200
    assert {daemon.get("one.test", f"/up/{value[20:]}") for _ in range(8)} == {403}
    assert {daemon.get("one.test", path) for _ in range(8)} == {403}
    assert daemon.secrets("forget", "DEPLOY").returncode == 0
    assert daemon.secrets("forget", "DEPLOY").returncode == 1
    assert daemon.get("one.test", path) == 200
    assert value not in daemon.text() + json.dumps(daemon.records())
    assert {"secrets.registered", "secrets.forgotten"} <= {r["action"] for r in daemon.records()}


def test_a_killed_sealer_comes_back_and_nothing_is_lost(daemon):
    told = daemon.ready()
    sealer = told["record"]["sealer_pid"]
    assert daemon.get("one.test") == 200
    os.kill(sealer, signal.SIGKILL)
    daemon.wait(lambda told: told["record"]["sealer_pid"] not in (0, sealer), "back")
    assert daemon.get("two.test") == 403
    assert daemon.end() == 0
    verified = subprocess.run(
        [str(PROGRAM), "audit", "verify", str(daemon.state)],
        capture_output=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout
    decided = [r["reason"] for r in daemon.records() if r["kind"] == "decision"]
    assert "allowed" in decided
    assert "host_not_allowed" in decided


def test_a_worker_that_keeps_dying_ends_the_service(daemon):
    daemon.ready()
    killed: set[int] = set()

    def is_over() -> bool:
        told = daemon.status()
        pid = told["workers"][0]["pid"] if told and told["workers"] else 0
        if pid and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return daemon.process.poll() is not None

    until(is_over, "the end")
    assert daemon.process.returncode == 4
    assert "died more than 5 times in 60 s" in daemon.text()
    assert not _mentioning(str(daemon.state).encode())


def test_a_killed_supervisor_leaves_no_process(daemon):
    daemon.ready()
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not _mentioning(str(daemon.state).encode()), "all gone")
    daemon.ready()
    assert daemon.get("one.test") == 200


@pytest.mark.parametrize(
    ("policy", "more", "said"),
    [
        ("version: '1.2.0'\nname: [\n", (), "policy.yaml"),
        ("", (), "empty"),
        (None, ("--listen", "192.0.2.1:8080"), "loopback"),
        (None, ("--set", "audit.mode=never"), "audit.mode"),
    ],
)
def test_what_is_wrong_at_the_start_ends_it(daemon, policy, more, said):
    if policy is not None:
        daemon.policy.write_text(policy)
    daemon.start(*more)
    assert daemon.process.wait(WAIT_S) == 3
    assert said in daemon.text()
    assert "Traceback" not in daemon.text()


def test_a_second_service_does_not_start_beside_the_first(daemon):
    daemon.ready()
    ran = subprocess.run(
        [str(PROGRAM), "daemon", "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert ran.returncode == 3
    assert "another daemon runs here" in ran.stderr
    assert daemon.status() is not None


def test_told_to_stop_while_it_starts_it_stops(daemon):
    daemon.start()
    until((daemon.state / "policy").exists, "the check of the policy begun")
    assert daemon.end() == 0
    assert not _mentioning(str(daemon.state).encode())

"""A host and a world of its own, each a network namespace, and a daemon that captures.

Nothing of the machine is touched: the namespaces live as long as the processes that hold
them, and those as long as the test.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import capture_attacks
import capture_world
import in_network

from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
FOUR, SIX, OWN = "203.0.113.10", "2001:db8::10", "10.77.0.2"
DEVICE = "host0"
CAPTURED, OTHER = 4242, 4243
WAIT_S = 60.0
POLICY = """\
version: "1.2.0"
name: capture
guards:
  egress_allowlist:
    default_action: block
    allow: [{allow}]
  secret_leak: {{enabled: false}}
"""
ALLOWED = ("origin.test", "origin.test:8443", "raw.test:4567", "plain.test:*")
_HOLD = "import os, sys; os.unshare(os.CLONE_NEWNET); print('held', flush=True); sys.stdin.read()"
_LOCAL = """
import socket, threading
def serve(family, kind, address):
    with socket.socket(family, kind) as sock:
        sock.bind(address)
        if kind == socket.SOCK_DGRAM:
            print("ready", flush=True)
            while True:
                sock.sendto(b"local", sock.recvfrom(99)[1])
        sock.listen()
        print("ready", flush=True)
        while True:
            with sock.accept()[0] as accepted:
                accepted.sendall(b"local")
for each in [(2, 1, ("0.0.0.0", 7777)), (10, 1, ("::1", 7777)), (2, 2, ("0.0.0.0", 7777))]:
    threading.Thread(target=serve, args=each).start()
"""

MARK = "asked"


def unusable() -> str:
    """Why no lab can be made here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root: it makes networks and becomes other users"
    if shutil.which("ip") is None:
        return "needs ip (Debian: iproute2)"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "no network namespaces here" if made.returncode else ""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that other processes bring about."""
    pause, end = select.poll(), time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"not in {WAIT_S} s: {what}"
        pause.poll(20)


class Lab:
    """Two networks, and what runs in them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.host, self.world = self._holder(), self._holder()
        self._wire()
        self._hits: list[str] = []
        ca_cert, ca_key = make_ca("the world", now=datetime.now(UTC))
        pair = KeyPair(cert_pem=ca_cert, key_pem=ca_key)
        cert, key = issue_leaf(
            pair, ["origin.test"], purpose=Purpose.SERVER, now=datetime.now(UTC), days=2
        )
        (folder / "roots.pem").write_bytes(ca_cert)
        (folder / "leaf.pem").write_bytes(cert + key)
        self.allow(*ALLOWED)
        self._serve_world()
        self.config = folder / "config.yaml"
        self.state, self.run_dir = folder / "state", folder / "run"
        self.daemon: subprocess.Popen[str] | None = None

    # networks -----------------------------------------------------------------------

    def _holder(self) -> int:
        process = self.stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        self.stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process.pid

    def _wire(self) -> None:
        self.ip("link", "add", DEVICE, "netns", str(self.host), "type", "veth", "peer", "name",
                "world0", "netns", str(self.world))  # fmt: skip
        for holder, device, four, six in (
            (self.host, DEVICE, "10.77.0.2/24", "fd77::2/64"),
            (self.world, "world0", "10.77.0.1/24", "fd77::1/64"),
        ):
            self.ip("link", "set", "lo", "up", at=holder)
            self.ip("addr", "add", four, "dev", device, at=holder)
            self.ip("addr", "add", six, "dev", device, "nodad", at=holder)
            self.ip("link", "set", device, "up", at=holder)
        self.ip("route", "add", "default", "via", "10.77.0.1", at=self.host)
        self.ip("-6", "route", "add", "default", "via", "fd77::1", at=self.host)
        self.ip("addr", "add", f"{FOUR}/32", "dev", "lo", at=self.world)
        self.ip("addr", "add", f"{SIX}/128", "dev", "lo", at=self.world)

    def ip(self, *words: str, at: int = 0) -> None:
        enter = ["nsenter", f"--net=/proc/{at}/ns/net"] if at else []
        subprocess.run([*enter, "ip", *words], check=True, capture_output=True)

    # what runs in them --------------------------------------------------------------

    def command(self, at: int, uid: int, *words: str) -> list[str]:
        """The words that run a program in a network as a user."""
        script = [sys.executable, in_network.__file__, str(at), str(uid), FOUR]
        return [*script, shutil.which(words[0]) or words[0], *words[1:]]

    def start(self, at: int, uid: int, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start a program that is ended with the test."""
        process = self.stack.enter_context(
            subprocess.Popen(self.command(at, uid, *words), text=True, **more)
        )
        self.stack.callback(process.kill)
        return process

    def run(self, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the host as a user."""
        return self.run_at(self.host, uid, *words)

    def run_at(self, at: int, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a network as a user."""
        return subprocess.run(
            self.command(at, uid, *words), capture_output=True, text=True, check=False,
            timeout=WAIT_S, cwd="/",
        )  # fmt: skip

    def _serve_world(self) -> None:
        words = [sys.executable, "-u", capture_world.__file__, str(self.folder / "leaf.pem")]
        process = self.start(self.world, 0, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        output, self._asked = process.stdout, process.stdin
        assert output is not None
        assert output.readline() == "ready\n"

        def listen() -> None:
            for line in output:
                self._hits.append(line.strip())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()

    @property
    def hits(self) -> list[str]:
        """What has arrived in the world till now: ``PROTOCOL PORT FROM`` each."""
        # Its lines come through a pipe and a thread: one more, asked for now, follows all others.
        assert self._asked is not None
        marks = self._hits.count(MARK)
        self._asked.write("\n")
        self._asked.flush()
        until(lambda: self._hits.count(MARK) > marks, "the world answers")
        return [line for line in self._hits if line != MARK]

    def serve_locally(self) -> None:
        """A service of the host that is no business of the captured."""
        process = self.start(self.host, 0, sys.executable, "-I", "-c", _LOCAL,
                             stdout=subprocess.PIPE)  # fmt: skip
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "ready\n"

    # the daemon ---------------------------------------------------------------------

    def configure(self, *, workers: int = 1, **capture: object) -> None:
        """Write the settings."""
        chosen = {"users": str(CAPTURED)} | capture
        listed = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in chosen.items())
        self.config.write_text(
            f"policy: {self.folder}/policy.yaml\nstate_dir: {self.state}\n"
            f"listen: {{port: 3128}}\ndaemon: {{run_dir: {self.run_dir}, workers: {workers}}}\n"
            f"capture:\n{listed}"
            f"upstream:\n  ca_file: {self.folder}/roots.pem\n"
            f"  resolve: {{origin.test: {FOUR}, raw.test: {FOUR}, plain.test: {FOUR}}}\n"
        )

    def allow(self, *entries: str) -> None:
        """Write the policy."""
        listed = ", ".join(map(json.dumps, entries))
        (self.folder / "policy.yaml").write_text(POLICY.format(allow=listed))

    def begin(self, uid: int = 0) -> subprocess.Popen[str]:
        """Start the daemon and wait until it captures."""
        log = (self.folder / "log").open("a")
        self.stack.enter_context(log)
        self.daemon = self.start(
            self.host, uid, str(PROGRAM), "daemon", "--config", str(self.config), stderr=log
        )
        until(lambda: (self.status() or {}).get("state") == "running", self.log())
        return self.daemon

    def log(self) -> str:
        """What the daemon has said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None while there is none."""
        words = [str(PROGRAM), "status", "--config", str(self.config), "--format", "json"]
        told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT_S)
        return json.loads(told.stdout) if told.returncode == 0 else None

    def capture(self) -> dict[str, Any]:
        """What the daemon says of the capture."""
        status = self.status()
        assert status is not None, self.log()
        return dict(status["capture"])

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the daemon and return its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        return self.daemon.wait(WAIT_S)

    def end_of_child(self, process: subprocess.Popen[str], number: int) -> int:
        """Send a signal to the one child of a process, and return how the process ends."""
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), number)
        return process.wait(WAIT_S)

    def records(self) -> list[dict[str, Any]]:
        """All that stands in the record."""
        words = [str(PROGRAM), "audit", "tail", "--state", str(self.state), "--json",
                 "-n", "1000"]  # fmt: skip
        told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT_S)
        return [json.loads(line) for line in told.stdout.splitlines()]

    # a user -------------------------------------------------------------------------

    def curl(self, uid: int, url: str, *words: str) -> str:
        """What curl says: the HTTP status and the body, or ``curl N`` for its exit code."""
        options = ["-sS", "-m", "10", "-o", "-", "-w", "\n%{http_code}"]
        trust = ["--cacert", str(self.folder / "trusted.pem")] if "https" in url else []
        done = self.run(uid, "curl", *options, *trust, *words, url)
        body, _, status = done.stdout.rpartition("\n")
        return f"{status} {body.strip()}" if done.returncode == 0 else f"curl {done.returncode}"

    def trust(self) -> None:
        """Lay the CA's certificate where everybody can read it."""
        self.folder.chmod(0o755)
        certificate = (self.state / "ca/ca-cert.pem").read_bytes()
        (self.folder / "trusted.pem").write_bytes(
            certificate + (self.folder / "roots.pem").read_bytes()
        )
        (self.folder / "trusted.pem").chmod(0o644)

    def attacks(self, uid: int) -> dict[str, str]:
        """What came of everything that a user tries."""
        words = [sys.executable, "-I", capture_attacks.__file__, DEVICE, FOUR, SIX, OWN]
        done = self.run(uid, *words)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


def rules(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """Run nft on the host."""
    return lab.run(0, "nft", *words)


__all__: Sequence[str] = ("Lab", "rules", "until", "unusable")

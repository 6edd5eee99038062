"""Running out of descriptors: clients wait or are refused, nobody else dies, and it recovers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# A proxy of its own, so that only it runs out: it prints its port, then says on each line it
# reads how much CPU it has used, in seconds.
PROGRAM = """
import resource, sys, time
from pathlib import Path
from egress_lab import Proxy
proxy = Proxy(Path(sys.argv[1]))
print(proxy.port, flush=True)
for line in sys.stdin:
    if line.startswith("limit"):
        few = len(list(Path("/proc/self/fd").iterdir())) + int(line.split()[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, resource.getrlimit(7)[1]))
    print(time.process_time(), proxy.interceptor.open_connections, flush=True)
proxy.stop()
"""
PLAIN = b"GET http://plain.test/ok HTTP/1.1\r\nHost: plain.test\r\n\r\n"
EXTRA = 12
SERVED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n0 bytes"
REFUSED = b"HTTP/1.1 403 Forbidden (AESP Proxy: record_failed)\r\nContent-Type"


class Starved:
    """A proxy whose limit of open files can be set."""

    def __init__(self, folder: Path) -> None:
        plugins = Path(__file__).parents[2] / "plugins"
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(plugins), "PATH": "/usr/bin"},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def ask(self, line: str = "") -> tuple[float, int]:
        """Return CPU seconds so far and open connections; ``limit N`` leaves N descriptors."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        cpu, count = self._process.stdout.readline().split()
        return float(cpu), int(count)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def stop(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starved]:
    running = Starved(tmp_path_factory.mktemp("starved"))
    try:
        yield running
    finally:
        assert running.stop() == 0


def answered(sock: socket.socket) -> bytes:
    sock.settimeout(10)
    sock.sendall(PLAIN)
    return sock.recv(65_536)


def until_served(starved: Starved) -> None:
    """Try anew until a request is answered; 10 seconds at the most."""
    deadline, pause = time.monotonic() + 10, threading.Event()
    while True:
        with contextlib.suppress(OSError), starved.connect() as sock:
            if answered(sock).startswith(SERVED[:15]):
                return
        assert time.monotonic() < deadline, "it never recovered"
        pause.wait(0.2)


def test_out_of_descriptors_the_served_go_on_the_rest_wait_and_it_recovers(starved):
    with starved.connect() as first, contextlib.ExitStack() as more:
        assert answered(first).startswith(b"HTTP/1.1 200 ")
        starved.ask(f"limit {EXTRA}")
        waiting = [more.enter_context(starved.connect()) for _ in range(EXTRA + 20)]
        before, began = starved.ask()[0], time.monotonic()
        told = set()
        while time.monotonic() < began + 1.5:
            told.add(answered(first)[:60])
        used, held = starved.ask()
        # What was open for a moment when the limit was set leaves a few descriptors more.
        assert held <= EXTRA + 8
        assert told <= {SERVED[:60], REFUSED[:60]}
        assert used - before < 1.4, "the accept loop spins"
        for sock in waiting:
            sock.close()
        # What could not be recorded was refused; now it can be again.
        until_served(starved)
    starved.ask("limit 500")
    with contextlib.ExitStack() as more:
        for _ in range(EXTRA + 20):
            assert answered(more.enter_context(starved.connect())).startswith(SERVED[:15])

"""The variants of the egress benchmark: straight, the peers, and this product.

Each is started as its own documentation says, on a loopback port, trusting the
benchmark's own authority, and is told nothing else. A variant that cannot run
here raises :class:`AbsentError` with the reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from benchmarks import machine
from benchmarks.harness import BenchError
from benchmarks.load import Stream, Target, trusting

START_S_MAX = 60.0
STOP_S_MAX = 20.0
POLL_S = 0.002


class AbsentError(Exception):
    """The variant cannot run on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the origin is: its port, its authority's file, and a folder for the variant."""

    port: int
    ca_file: Path
    folder: Path
    install: bool


@dataclass(slots=True, kw_only=True)
class Running:
    """A variant that answers. ``pid`` is the root of its process tree, None for straight.

    ``without`` is what it cannot do: the group of figures, and why.
    """

    name: str
    target: Target
    pid: int | None
    start_ms: float = 0.0
    stop: Callable[[], None] = lambda: None
    besides: Callable[[list[int]], list[int]] = field(default=lambda _: [])
    without: dict[str, str] = field(default_factory=dict)

    def pids(self) -> list[int]:
        """Return the processes of the variant, without the agent it may have been given."""
        if self.pid is None:
            return []
        pids = machine.tree(self.pid)
        others = set(self.besides(pids))
        return [pid for pid in pids if pid not in others]

    def largest(self) -> int:
        """Return the process with the most resident memory: the one that does the work."""
        return max(self.pids(), key=machine.rss_bytes, default=0)


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def spawn(
    command: list[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a variant in a process group of its own, its output in a log file."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )


def await_answer(
    process: subprocess.Popen[bytes],
    *,
    log: Path,
    port: int,
    host: str,
    origin_port: int,
    trust: Callable[[], tuple[Path, ...]],
) -> Target:
    """Wait until the variant passes a whole request on, and return how to reach it."""
    deadline = time.monotonic() + START_S_MAX
    last: Exception = BenchError("not tried")
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        files = trust()
        if all(file.exists() for file in files):
            try:
                context = trusting(*files)
                target = Target(
                    proxy=("127.0.0.1", port),
                    host=host,
                    port=origin_port,
                    context=context,
                    roots=files,
                )
                with Stream(target) as stream:
                    stream.get(1024)
            except (OSError, BenchError, ssl.SSLError) as error:
                last = error
            else:
                return target
        time.sleep(POLL_S)
    end_group(process)
    tail = log.read_text(errors="replace")[-2000:]
    message = f"it does not answer ({last}); its output ends with: {tail}"
    raise AbsentError(message)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a variant and all it started: politely, then not."""
    for number, seconds in ((signal.SIGTERM, STOP_S_MAX), (signal.SIGKILL, STOP_S_MAX)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

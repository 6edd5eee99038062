"""Two networks to attack in, a host and a world beyond it: nothing of the machine is changed.

Each is the network namespace of a process that does nothing; with the processes go the
networks, the device between them, and the packet rules that were put into them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Self

from aesp_proxy.errors import ConfigError, UnavailableError

DEVICE: Final = "aesp-host"
FOUR: Final = "203.0.113.10"  # documentation (RFC 5737, RFC 3849): routed nowhere
SIX: Final = "2001:db8:aeb0::10"
_FAR: Final = "aesp-world"
_HOLD: Final = "import os, sys; os.unshare(os.CLONE_NEWNET); print(flush=True); sys.stdin.read()"
_ENTER: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); "  # ends with its parent
    "os.setns(os.open(f'/proc/{sys.argv[1]}/ns/net', os.O_RDONLY), os.CLONE_NEWNET); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class Networks:
    """The host's network and the world's, from enter to exit."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.host = self.world = 0

    def __enter__(self) -> Self:
        if (ip := shutil.which("ip")) is None:
            raise ConfigError("networks are made with `ip`", remedy="install iproute2")
        self._ip = ip
        try:
            self.host, self.world = self._hold(), self._hold()
            self._wire()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _hold(self) -> int:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        if process.stdout is None or not process.stdout.readline():
            raise UnavailableError(
                "no network could be made", remedy="run doctor as root, outside a container"
            )
        return process.pid

    def _wire(self) -> None:
        host, world = self.host, self.world
        far = ("name", _FAR, "netns", str(world))
        self._do(0, "link", "add", DEVICE, "netns", str(host), "type", "veth", "peer", *far)
        for at, device, four, six in (
            (host, DEVICE, "192.0.2.2/30", "2001:db8:aeb0:1::2/64"),
            (world, _FAR, "192.0.2.1/30", "2001:db8:aeb0:1::1/64"),
        ):
            self._do(at, "link", "set", "lo", "up")
            self._do(at, "addr", "add", four, "dev", device)
            self._do(at, "addr", "add", six, "dev", device, "nodad")
            self._do(at, "link", "set", device, "up")
        self._do(host, "route", "add", "default", "via", "192.0.2.1")
        self._do(host, "-6", "route", "add", "default", "via", "2001:db8:aeb0:1::1")
        self._do(world, "addr", "add", f"{FOUR}/32", "dev", "lo")
        self._do(world, "addr", "add", f"{SIX}/128", "dev", "lo", "nodad")

    def _do(self, at: int, *words: str) -> None:
        command = [self._ip, *words]
        ran = subprocess.run(
            enter(at, command) if at else command, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            said = (ran.stderr.strip().splitlines() or [str(ran.returncode)])[-1]
            raise UnavailableError(f"`ip {' '.join(words)}`: {said}")


def enter(holder: int, command: Sequence[str]) -> list[str]:
    """Return the words that run a command in the network of a process."""
    return [sys.executable, "-I", "-S", "-c", _ENTER, str(holder), *command]


@contextmanager
def inside(holder: int) -> Iterator[None]:
    """Be in the network of a process: sockets that are made here stay in it."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/proc/{holder}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setns(there, os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(own, os.CLONE_NEWNET)
    finally:
        os.close(own)
        os.close(there)

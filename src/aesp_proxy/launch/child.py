"""The command under enforcement: start it, relay signals to it, wait for it, end it.

The command runs below a ``reaper``; this is the launcher's side of its control
socket. Everything here runs in trio's main thread: the kernel ties PR_SET_PDEATHSIG
to the *thread* that forked, and trio's own ``open_process`` forks in a pooled one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.launch import reaper

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
KILLED: Final = 128 + 9
_LINE_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the command ended.

    ``code`` is what a shell would say; ``left`` counts the processes that it left
    behind and that were ended; ``started`` is False when it could not be run, and
    then ``problem`` says why.
    """

    code: int
    left: int = 0
    started: bool = True
    problem: str = ""


class Child:
    """One command, from prepared to ended."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: trio.socket.SocketType | None = None
        self._released = False
        self._buffer = b""
        self.exit: Exit | None = None

    @property
    def pid(self) -> int:
        """Process id of the reaper, 0 before ``prepare``."""
        return self._process.pid if self._process else 0

    def prepare(self) -> None:
        """Start the reaper, which waits for ``release``; UnavailableError if it cannot."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        script = Path(reaper.__file__)
        arguments = [sys.executable, "-I", "-S", str(script), str(theirs.fileno()), "--"]
        try:
            self._process = subprocess.Popen(
                [*arguments, *self._command], env=self._environment, pass_fds=[theirs.fileno()]
            )
        except (OSError, ValueError) as error:
            ours.close()
            raise _cannot_start(error) from error
        finally:
            theirs.close()
        self._socket = trio.socket.from_stdlib_socket(ours)

    async def release(self) -> None:
        """Let the reaper start the command."""
        self._released = True
        await self._send("go")

    async def run(self) -> int:
        """Wait until the command and everything below it has ended; ``exit`` says how."""
        self.exit = await self._wait()
        return self.exit.code

    async def _wait(self) -> Exit:
        while True:
            match (await self._line()).split():
                case ["started", _]:
                    continue
                case ["failed", number]:
                    self._collect()
                    return _not_run(self._command[0], int(number))
                case ["exited", code, left]:
                    self._collect()
                    return Exit(code=int(code), left=int(left))
                case _:
                    # The reaper itself was killed; its command went with it.
                    self._collect()
                    return Exit(code=KILLED)

    async def signal(self, number: int) -> None:
        """Relay a signal that the launcher got."""
        await self._send(f"signal {number}")

    async def end(self, *, grace_s: float) -> None:
        """Ask the command to end, and kill what is left after ``grace_s`` seconds."""
        if self._released:
            await self._send(f"end {grace_s}")
        else:
            self._collect()

    def abandon(self) -> None:
        """Close the control socket: the reaper ends whatever it holds, and itself."""
        if self._socket is not None:
            self._socket.close()

    def _collect(self) -> None:
        self.abandon()
        if self._process is not None:
            self._process.wait()

    async def _send(self, line: str) -> None:
        if self._socket is None:
            raise UnavailableError("the command was not prepared")
        try:
            await self._socket.send(line.encode() + b"\n")
        except OSError:
            # It has ended already; wait() says how.
            return

    async def _line(self) -> str:
        if self._socket is None:
            return ""
        while b"\n" not in self._buffer and len(self._buffer) < _LINE_BYTES_MAX:
            try:
                data = await self._socket.recv(_LINE_BYTES_MAX)
            except (OSError, trio.ClosedResourceError):
                return ""
            if not data:
                return ""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("ascii", "replace")


def _not_run(program: str, number: int) -> Exit:
    """Say what a shell says of a command that cannot be run."""
    if number == 2:  # ENOENT
        has_directory = os.sep in program
        problem = "no such file" if has_directory else "command not found"
        return Exit(code=NOT_FOUND, started=False, problem=problem)
    return Exit(code=NOT_EXECUTABLE, started=False, problem=os.strerror(number))


def _cannot_start(error: OSError | ValueError) -> Exception:
    if isinstance(error, ValueError):
        return ConfigError("the command or its environment holds a NUL byte", where="command")
    return UnavailableError(f"cannot start the command: {error.strerror}", where="launcher")

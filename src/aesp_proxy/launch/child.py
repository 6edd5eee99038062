"""The command under enforcement: wall it in, start it, relay signals to it, wait for it, end it.

The command runs below a ``reaper``, inside what that has built; this is the launcher's
side of its control socket. Everything here runs in trio's main thread: the kernel ties
PR_SET_PDEATHSIG to the *thread* that forked, and trio's own ``open_process`` forks in a
pooled one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.launch import cores, reaper
from aesp_proxy.launch.isolation.layers import Report, read_report
from aesp_proxy.launch.isolation.listeners import NO_SOCKETS, Kind
from aesp_proxy.launch.isolation.wish import Wish

if TYPE_CHECKING:
    import trio

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
KILLED: Final = 128 + 9
_LINE_BYTES_MAX: Final = 4096
_DESCRIPTORS_MAX: Final = 253  # SCM_MAX_FD
_PREPARE_S_MAX: Final = 20.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What stands around a command, and the sockets of the proxy that were made inside.

    ``descriptors`` are those of a backend for files, each with its kind.
    """

    report: Report
    listeners: tuple[tuple[Kind, socket.socket], ...] = ()
    descriptors: tuple[tuple[Kind, int], ...] = ()

    def of(self, kind: Kind) -> list[socket.socket]:
        """Return the sockets of one kind."""
        return [each for found, each in self.listeners if found is kind]

    def close(self) -> None:
        """Close everything that was handed out."""
        for _, each in self.listeners:
            each.close()
        for _, descriptor in self.descriptors:
            os.close(descriptor)


class Child:
    """One command, from prepared to ended; without a wish, nothing is around it."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], wish: Wish | None = None
    ) -> None:
        self._command = list(command)
        self._wish = wish or Wish()
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._stream: trio.SocketStream | None = None
        self._released = False
        self._buffer = b""
        self.exit: Exit | None = None

    @property
    def pid(self) -> int:
        """Process id of the reaper, 0 before ``prepare``."""
        return self._process.pid if self._process else 0

    def prepare(self) -> Prepared:
        """Start the reaper, which waits for ``release``; say what stands.

        UnavailableError if it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        script = Path(reaper.__file__)
        arguments = [sys.executable, "-I", "-S", str(script), str(theirs.fileno())]
        arguments += [*self._wish.words(), "--", *self._command]
        try:
            self._process = subprocess.Popen(
                arguments, env=self._environment, pass_fds=[theirs.fileno()]
            )
        except (OSError, ValueError) as error:
            ours.close()
            raise _cannot_start(error) from error
        finally:
            theirs.close()
        cores.give_back(self._process.pid)
        self._control = ours
        try:
            return _prepared(ours)
        except (OSError, ValueError) as error:
            self.discard()
            raise UnavailableError(
                f"cannot prepare the command: {error}", where="launcher"
            ) from error

    def discard(self) -> None:
        """End the reaper, when nothing was released."""
        self._collect()

    async def release(self) -> None:
        """Let the reaper start the command."""
        # Loaded meanwhile by who calls this; ``prepare`` comes before there is time for it.
        import trio  # noqa: PLC0415

        if self._control is None:
            raise UnavailableError("the command was not prepared")
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._control))
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
        if self._stream is not None:
            self._stream.socket.close()
        elif self._control is not None:
            self._control.close()

    def _collect(self) -> None:
        self.abandon()
        if self._process is not None:
            self._process.wait()

    async def _send(self, line: str) -> None:
        import trio  # noqa: PLC0415 - as in ``release``

        if self._stream is None:
            return
        try:
            await self._stream.send_all(line.encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # It has ended already; wait() says how.
            return

    async def _line(self) -> str:
        import trio  # noqa: PLC0415 - as in ``release``

        if self._stream is None:
            return ""
        while b"\n" not in self._buffer and len(self._buffer) < _LINE_BYTES_MAX:
            try:
                data = await self._stream.receive_some(_LINE_BYTES_MAX)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return ""
            if not data:
                return ""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("ascii", "replace")


def _prepared(control: socket.socket) -> Prepared:
    """Read the reaper's first line and what comes with it."""
    control.settimeout(_PREPARE_S_MAX)
    data, descriptors, _, _ = socket.recv_fds(control, _LINE_BYTES_MAX, _DESCRIPTORS_MAX)
    head, _, kinds = data.decode("ascii", "replace").partition("|")
    word, *words = head.split() or [""]
    if word != "prepared":
        raise ValueError(f"the helper said {head.strip()!r}")
    handed = list(zip(map(Kind, kinds.split()), descriptors, strict=True))
    return Prepared(
        report=read_report(words),
        listeners=tuple(
            (kind, socket.socket(fileno=each)) for kind, each in handed if kind not in NO_SOCKETS
        ),
        descriptors=tuple(pair for pair in handed if pair[0] in NO_SOCKETS),
    )


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

"""A helper process of the supervisor: the worker or the sealer, and how it ended.

Each is one of our own modules, run by ``spawned`` so that it dies with us, in a
session of its own so that the terminal's signals pass it by, with what it writes in
a log in the state directory. ``-I`` keeps the agent's working directory and
environment from choosing what Python imports. Started in trio's main thread, see
``spawned``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from aesp_proxy.errors import UnavailableError

_SPAWNED: Final = "aesp_proxy.daemon.spawned"


def module_command(module: str, *, death_signal: int) -> tuple[str, ...]:
    """Return the command that runs ``module`` and has it get ``death_signal`` when we die."""
    interpreter = (sys.executable, "-I", "-m", _SPAWNED)
    return (*interpreter, str(os.getpid()), str(int(death_signal)), module)


class HelperProcess:
    """One of our modules running as a process."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 before it is started."""
        return self._process.pid if self._process else 0

    def close_stdin(self) -> None:
        """Close the pipe to it, which tells it to finish."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def start(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        pass_fds: Sequence[int] = (),
        pipe_stdin: bool = False,
    ) -> None:
        """Start it; UnavailableError when the system does not let us."""
        self.close_stdin()
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.PIPE if pipe_stdin else subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
        except OSError as error:
            raise UnavailableError(f"cannot start it: {error.strerror}", where=self.name) from error

    async def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is None or self._process.poll() is not None:
            return
        # Popen.wait would need a thread; a pidfd is readable when its process has ended.
        descriptor = os.pidfd_open(self._process.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        self._process.wait()

    @property
    def exit_code(self) -> int | None:
        """Its exit code, minus the signal's number if one ended it, None while it runs."""
        return self._process.poll() if self._process else None

    def ended(self) -> str:
        """Say how it ended, for a person."""
        code = self.exit_code
        if code is None:
            return "is still running"
        if code >= 0:
            return f"exited with {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    async def stop(self, *, grace_s: float) -> bool:
        """Wait ``grace_s`` seconds for its end, then TERM, then KILL; say if it went by itself."""
        if self._process is None or self._process.poll() is not None:
            return True
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            if number:
                self._process.send_signal(number)
            with trio.move_on_after(grace_s if number == 0 else 2.0):
                await self.wait()
                return number == 0
        self._process.wait()
        return False

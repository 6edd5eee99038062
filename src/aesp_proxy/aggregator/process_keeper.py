"""Keeps a process alive beside the server, and wakes it: the indexing one, the exporting one.

Rules: accepting never waits for it (a wake that does not fit the pipe is not
needed: one is in it already); when it dies it is started again, a little later
each time; its standard input ends with this process, however this process
ends, so it is never left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

RESTART_S_MIN: Final = 0.5
RESTART_S_MAX: Final = 30.0
STOP_S_MAX: Final = 20.0

log = structlog.get_logger(__name__)


class ProcessKeeper:
    """Starts, wakes, restarts and stops one Python module as a process."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._module = module
        self._arguments = arguments
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{module}", daemon=True)

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def wake(self) -> None:
        """Say that batches were stored; never waits."""
        with suppress(BlockingIOError):
            os.write(self._writer, b".")

    def stop(self) -> None:
        """Let it do what is left, then end it."""
        self._stopping.set()
        os.close(self._writer)
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._reader)

    def _keep(self) -> None:
        pause_s = RESTART_S_MIN
        while not self._stopping.is_set():
            try:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",  # no module from wherever the server was started
                        "-m",
                        self._module,
                        *self._arguments,
                    ],
                    stdin=self._reader,
                    stdout=subprocess.DEVNULL,
                )
            except OSError as error:
                log.critical("process_not_started", module=self._module, error=str(error))
            else:
                self._watch(process)
            if self._stopping.wait(pause_s):
                break
            pause_s = min(pause_s * 2, RESTART_S_MAX)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its end; once stopping, only for so long."""
        while not self._stopping.is_set():
            try:
                code = process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            if not self._stopping.is_set():
                log.error("process_ended", module=self._module, exit_code=code)
            return
        try:
            process.wait(timeout=STOP_S_MAX)
        except subprocess.TimeoutExpired:
            log.warning("process_cut_short", module=self._module)
            process.kill()
            process.wait()

"""The shipper as a child of the sealer: the process with the network never has the key.

Rules: it is started once there is where to ship to, also when a host is enrolled while its
service runs; it is told of new batches by a byte and of the end by end of file; when it
dies it is started again, with a growing pause; sealing never waits for it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

MODULE: Final = "aesp_proxy.forward.ship_process"
END_S_MAX: Final = 20.0
_PAUSE_S_MAX: Final = 30.0


class ShipperProcess:
    """Runs the shipper while the block lasts; nothing while there is nowhere to ship to."""

    def __init__(
        self, state_dir: Path, forward_dir: Path | None, *, waits_for_enrolment: bool = False
    ) -> None:
        """``waits_for_enrolment``: that there is nowhere to ship to yet is no error."""
        self._state_dir, self._forward_dir = state_dir, forward_dir
        self._waits = waits_for_enrolment
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = 0.5
        self._started_s = float("-inf")

    def __enter__(self) -> Self:
        self._start()
        return self

    @property
    def forwards(self) -> bool:
        """Whether there is where to ship to: ``url`` is the last file that enrolling writes."""
        place = self._forward_dir
        return place is not None and (not self._waits or (place / "url").is_file())

    def tend(self) -> None:
        """Start the shipper where the host was enrolled meanwhile, or where it died."""
        if self._process is None or self._process.poll() is not None:
            self._start_again()

    def _start(self) -> None:
        if not self.forwards:
            return
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",  # the working directory is the agent's: nothing is imported from it
                "-m",
                MODULE,
                "--state",
                str(self._state_dir),
                "--forward",
                str(self._forward_dir),
            ],
            stdin=subprocess.PIPE,
        )

    def kick(self) -> None:
        """Say that a batch is there; start the shipper again if it died."""
        self.tend()
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.flush()

    def _start_again(self) -> None:
        if time.monotonic() - self._started_s < self._pause_s:
            return
        if self._process is not None:
            self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        self._close_input()
        self._start()

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def __exit__(self, *_: object) -> None:
        """Let it ship what was sealed last, for a bounded time."""
        if self._process is None:
            return
        self._close_input()
        try:
            self._process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

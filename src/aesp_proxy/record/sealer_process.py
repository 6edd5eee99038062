"""The process that holds the signing key: seals until it is told to stop, then seals the rest.

``python -m aesp_proxy.record.sealer_process --state DIR``. It writes a byte to its
standard input, where that is a socket, when it has what it needs. It ends when its
standard input closes (its parent is gone or wants it to end) or on SIGTERM,
after sealing everything. SIGINT is the agent's, not ours. It has no network:
with ``--forward DIR`` it starts the shipper as a process of its own, which
never sees the key; with ``--forward-when-enrolled DIR`` once the host is enrolled there.
Exit codes: 0 done, 3 configuration or keys, 4 disk or chain.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from aesp_proxy.errors import AespError, ConfigError, RecordError
from aesp_proxy.record.files import OS_FILES, Lock
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp, has_unsealed
from aesp_proxy.record.sealer_child import ShipperProcess
from aesp_proxy.record.state import (
    AuditPaths,
    ensure_origin,
    prepare,
    write_status,
)

TICK_S: Final = 0.25
STATUS_S: Final = 2.0
RETRY_S: Final = 1.0
STOP_S_MAX: Final = 15.0
READY: Final = b"\x01"


class Stop(Protocol):
    """Waits; True when the sealer shall end."""

    def wait(self, timeout_s: float) -> bool:
        """Wait at most so long."""


class ControlStop:
    """Ends on end of file of a control descriptor, or on SIGTERM."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._wake, self._signalled = os.pipe()
        os.set_blocking(self._signalled, False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_signal(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._signalled, b"\x00")

    def tell_ready(self) -> None:
        """Tell the other end of the control stream that the key and the state can be used."""
        with contextlib.suppress(OSError):  # its other end has gone, which the next wait sees
            if stat.S_ISSOCK(os.fstat(self._descriptor).st_mode):
                os.write(self._descriptor, READY)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the control stream or a signal."""
        ready, _, _ = select.select([self._descriptor, self._wake], [], [], timeout_s)
        if self._wake in ready:
            return True
        return self._descriptor in ready and not os.read(self._descriptor, 4096)


def read_clocks() -> Stamp:
    """Read the clocks now."""
    return Stamp(wall_ns=time.time_ns(), mono_ns=time.monotonic_ns(), boot_id=_BOOT_ID)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


_BOOT_ID: Final = _boot_id()


def open_sealer(paths: AuditPaths, origin: str, options: SealerOptions) -> Sealer:
    """Open the chain of a state with the key that signs now; the caller holds the lock."""
    key = load_signing_key(paths)
    return Sealer.open(paths, origin, key, options, files=OS_FILES, clock=read_clocks)


class SealerLoop:
    """Seals one state until stopped; waits its turn while another sealer holds the lock."""

    def __init__(
        self,
        paths: AuditPaths,
        origin: str,
        options: SealerOptions,
        *,
        stop: Stop,
        on_sealed: Callable[[], None],
    ) -> None:
        self._paths, self._origin, self._options = paths, origin, options
        self._stop, self._on_sealed = stop, on_sealed
        load_signing_key(paths)  # a damaged key ends the start, not the first batch
        self._lock: Lock | None = None
        self._sealer: Sealer | None = None
        self._status_s = 0.0
        self._waited_s = TICK_S

    def beat_every(self, heartbeat_s: float) -> None:
        """Seal heartbeats from now on, as someone listens now; 0 for none."""
        if heartbeat_s != self._options.heartbeat_s:
            self._options = replace(self._options, heartbeat_s=heartbeat_s)
            self._sealer = None  # the next one begins from disk, by these options

    def run(self, on_round: Callable[[], None] = lambda: None) -> None:
        """Seal until told to stop, then all that is left. ChainError ends it at once."""
        try:
            while not self._stop.wait(self._waited_s):
                self._waited_s = TICK_S
                on_round()
                self._step(drain=False)
            self._drain()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _step(self, *, drain: bool) -> None:
        if not self._has_lock():
            return
        try:
            if self._sealer is None:
                self._sealer = self._open()
            if self._sealer.tick(drain=drain):
                self._on_sealed()
            self._say("")
        except RecordError as error:
            # What is in memory is not trusted after a failure: begin again from disk.
            self._sealer = None
            self._waited_s = RETRY_S
            self._say(str(error))

    def _has_lock(self) -> bool:
        if self._lock is None:
            self._lock = Lock.try_take(self._paths.lock)
        return self._lock is not None

    def _open(self) -> Sealer:
        return open_sealer(self._paths, self._origin, self._options)

    def _say(self, error: str) -> None:
        now = time.monotonic()
        if now - self._status_s < STATUS_S and not error:
            return
        self._status_s = now
        sealer = self._sealer
        status = {
            "pid": os.getpid(),
            "batch_no": sealer.head.batch_no if sealer else 0,
            "spool_bytes": sealer.spool_bytes() if sealer else 0,
            "error": error,
        }
        with contextlib.suppress(OSError):
            write_status(self._paths, status)
        if error:
            sys.stderr.write(f"aesp-proxy: {error}\n")

    def _drain(self) -> None:
        """Seal the rest; where another sealer holds the lock, wait until it has."""
        deadline = time.monotonic() + STOP_S_MAX
        self._step(drain=True)
        while self._is_unfinished() and time.monotonic() < deadline:
            time.sleep(TICK_S / 2)
            self._step(drain=True)
        if self._is_unfinished():
            raise RecordError(
                "not everything could be sealed; the next start will", where=str(self._paths.root)
            )

    def _is_unfinished(self) -> bool:
        return has_unsealed(self._paths)


def _options(arguments: argparse.Namespace, *, forwards: bool) -> SealerOptions:
    return SealerOptions(
        seal_bytes_max=arguments.seal_bytes_max,
        seal_s_max=arguments.seal_s_max,
        denial_s_max=arguments.denial_s_max,
        heartbeat_s=_heartbeat_s(arguments, forwards=forwards),
    )


def _heartbeat_s(arguments: argparse.Namespace, *, forwards: bool) -> float:
    # Silence is an alarm only where someone listens.
    if arguments.heartbeat_s is None:
        return SealerOptions().heartbeat_s if forwards else 0.0
    return float(arguments.heartbeat_s)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    defaults = SealerOptions()
    parser = argparse.ArgumentParser(prog="aesp-proxy-sealer")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--origin", default="")
    parser.add_argument("--forward", type=Path)
    parser.add_argument("--forward-when-enrolled", type=Path)
    parser.add_argument("--control-fd", type=int, default=0)
    parser.add_argument("--seal-bytes-max", type=int, default=defaults.seal_bytes_max)
    parser.add_argument("--seal-s-max", type=float, default=defaults.seal_s_max)
    parser.add_argument("--denial-s-max", type=float, default=defaults.denial_s_max)
    parser.add_argument("--heartbeat-s", type=float)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the sealer process and give its exit code."""
    arguments = _parse(argv)
    stop = ControlStop(arguments.control_fd)
    os.umask(0o077)
    try:
        paths = prepare(arguments.state)
        origin = ensure_origin(paths, wanted=arguments.origin)
        place = arguments.forward or arguments.forward_when_enrolled
        waits = arguments.forward is None
        with ShipperProcess(arguments.state, place, waits_for_enrolment=waits) as shipper:
            options = _options(arguments, forwards=shipper.forwards)
            loop = SealerLoop(paths, origin, options, stop=stop, on_sealed=shipper.kick)

            stop.tell_ready()

            def tend() -> None:
                shipper.tend()
                loop.beat_every(_heartbeat_s(arguments, forwards=shipper.forwards))

            loop.run(tend)
    except AespError as error:
        sys.stderr.write(f"aesp-proxy: {error}\n")
        return 3 if isinstance(error, ConfigError) else 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The process with the network: ships until its standard input ends, then what is left.

``python -m aesp_proxy.forward.ship_process --state DIR --forward DIR``. A byte
on standard input says that a batch is there; end of file, that this is the end.
One shipper a state: a second waits its turn. Exit codes: 0 done, 3 settings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aesp_proxy.errors import AespError, ConfigError, RecordError, TrustError, UnavailableError
from aesp_proxy.forward import renewal
from aesp_proxy.forward.addresses import learn
from aesp_proxy.forward.log_look import LogLook
from aesp_proxy.forward.shipper import Shipped, Shipper, pause_s
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import HttpsTransport, load_destination
from aesp_proxy.record.files import OS_FILES, Lock, write_durable
from aesp_proxy.record.state import AuditPaths, audit_paths, load_origin

IDLE_S: Final = 5.0
END_S_MAX: Final = 12.0
END_TIMEOUT_S: Final = 5.0
RENEW_EVERY_S: Final = 3600.0
REFUSED_PAUSE_S: Final = 60.0


def take_turn(paths: AuditPaths) -> Lock | None:
    """Become the one shipper of this state; None while another is."""
    try:
        return Lock.try_take(paths.root / "ship.lock")
    except OSError as error:
        raise ConfigError(f"cannot be used: {error.strerror}", where=str(paths.root)) from error


def make_shipper(paths: AuditPaths, forward_dir: Path) -> tuple[Shipper, HttpsTransport]:
    """Put together what ships ``paths`` to where ``forward_dir`` says. ConfigError."""
    destination = load_destination(forward_dir)
    # Where to begin is chance, so that hosts spread over their aggregators; no secret hangs on it.
    transport = HttpsTransport(destination, first=random.randrange(len(destination.addresses)))  # noqa: S311
    spool = Spool(paths, load_origin(paths), destination.public_key)
    return Shipper(spool, transport, wall=time.time), transport


def _stamp_of(forward_dir: Path) -> tuple[tuple[int, int], ...]:
    """Tell apart what an enrolment has written: every file of it is put in place whole."""
    found = []
    for name in ("ca.pem", "client.pem", "aggregator.pub", "url"):
        try:
            status = (forward_dir / name).stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)


class ShipLoop:
    """Ships whenever there is something, with growing pauses while it fails."""

    def __init__(self, paths: AuditPaths, forward_dir: Path, control: int) -> None:
        self._paths, self._forward_dir, self._control = paths, forward_dir, control
        self._log_look = LogLook(paths, forward_dir)
        self._failures = 0
        self._said = ""
        self._ended = False
        self._lock: Lock | None = None
        self._renew_s = float("-inf")
        self._stamp = _stamp_of(forward_dir)
        self._not_whole = ""

    def run(self) -> None:
        """Ship until the control stream ends, then try for a bounded time to ship the rest."""
        shipper, transport = make_shipper(self._paths, self._forward_dir)
        try:
            while not self._ended:
                if self._renew(transport) or self._is_enrolled_anew():
                    shipper, transport = self._made_again(shipper, transport)
                self._wait(self._round(shipper, transport))
            self._finish(shipper, transport)
        finally:
            transport.close()

    def _is_enrolled_anew(self) -> bool:
        """Whether the files of the enrolment are others than those that are in use."""
        return _stamp_of(self._forward_dir) != self._stamp

    def _made_again(
        self, shipper: Shipper, transport: HttpsTransport
    ) -> tuple[Shipper, HttpsTransport]:
        """Take what enrolling has written; what is not whole yet is looked at again."""
        stamp = _stamp_of(self._forward_dir)
        try:
            made = make_shipper(self._paths, self._forward_dir)
        except ConfigError as error:
            self._not_whole = str(error)
            self._say(None, "")
            return shipper, transport
        self._stamp, self._failures, self._not_whole = stamp, 0, ""
        transport.close()
        return made

    def _renew(self, transport: HttpsTransport) -> bool:
        """Renew certificate and addresses when it is time; whether one is new. Never raises."""
        now_s = time.monotonic()
        if now_s < self._renew_s:
            return False
        self._renew_s = now_s + RENEW_EVERY_S
        renewed = [
            self._tried(renew, transport) for renew in (self._renew_certificate, self._learn)
        ]
        return any(renewed)

    def _tried(self, renew: Callable[[HttpsTransport], bool], transport: HttpsTransport) -> bool:
        try:
            return renew(transport)
        except AespError as error:
            sys.stderr.write(f"aesp-proxy: {error}\n")
            return False

    def _renew_certificate(self, transport: HttpsTransport) -> bool:
        now = datetime.now(UTC)
        if not renewal.is_due(self._forward_dir, now=now):
            return False
        renewal.renew(self._forward_dir, transport, now=now)
        return True

    def _learn(self, transport: HttpsTransport) -> bool:
        return learn(self._forward_dir, transport)

    def _round(self, shipper: Shipper, transport: HttpsTransport) -> float:
        self._lock = self._lock or take_turn(self._paths)
        if self._lock is None:
            return IDLE_S
        try:
            shipped = shipper.ship_once(keep_going=lambda: not self._is_ended())
            self._log_look.look(transport, now_s=time.time())
            self._say(shipped, "")
        except (UnavailableError, RecordError) as error:
            return self._after(error, transport, slow=False)
        except TrustError as error:
            return self._after(error, transport, slow=True)
        self._failures = 0
        return IDLE_S

    def _after(self, error: AespError, transport: HttpsTransport, *, slow: bool) -> float:
        self._failures += 1
        self._say(None, str(error))
        # Jitter spreads hosts over time; nothing secret hangs on it.
        unit = random.random()  # noqa: S311
        if slow:
            return REFUSED_PAUSE_S * (0.5 + unit / 2)
        return pause_s(
            self._failures, unit, addresses=transport.addresses, asked_s=transport.asked_s
        )

    def _say(self, shipped: Shipped | None, error: str) -> None:
        # What an operator has to mend stays said, whatever becomes of the batches meanwhile.
        error = self._not_whole or error
        if error and error != self._said:
            sys.stderr.write(f"aesp-proxy: {error}\n")
        self._said = error
        status = {
            "covered": shipped.covered if shipped else None,
            "waiting": shipped.waiting if shipped else None,
            "error": error,
            "log": asdict(self._log_look.seen),
        }
        try:
            write_durable(OS_FILES, self._paths.forward_status, json.dumps(status).encode())
        except OSError:
            self._said = error  # advice only: a full disk shows elsewhere, and loudly

    def _is_ended(self) -> bool:
        self._wait(0)
        return self._ended

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._ended:
            left_s = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._control], [], [], left_s)
            if not ready:
                return
            self._ended = not os.read(self._control, 4096)
            # A new batch does not shorten the pause after a failure.
            if not self._failures:
                return

    def _finish(self, shipper: Shipper, transport: HttpsTransport) -> None:
        """One more round; what does not go out now waits for the next start."""
        transport.hurry(END_TIMEOUT_S)
        deadline = time.monotonic() + END_S_MAX
        self._lock = self._lock or take_turn(self._paths)
        if self._lock is None:
            return
        for _ in range(transport.addresses):
            try:
                shipped = shipper.ship_once(keep_going=lambda: time.monotonic() < deadline)
            except (UnavailableError, RecordError, TrustError) as error:
                self._say(None, str(error))
                if isinstance(error, UnavailableError) and time.monotonic() < deadline:
                    continue
                return
            self._log_look.look(transport, now_s=time.time(), is_last=True)
            self._say(shipped, "")
            return


def main(argv: Sequence[str]) -> int:
    """Run the shipper process and give its exit code."""
    parser = argparse.ArgumentParser(prog="aesp-proxy-shipper")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--forward", type=Path, required=True)
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0o077)
    try:
        ShipLoop(audit_paths(arguments.state), arguments.forward, 0).run()
    except AespError as error:
        sys.stderr.write(f"aesp-proxy: {error}\n")
        return 3 if isinstance(error, ConfigError) else 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

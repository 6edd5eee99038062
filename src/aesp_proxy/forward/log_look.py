"""Looks at the aggregator's log now and then, and makes an alarm of it known.

An alarm goes to standard error, to ``forward.json`` (from where ``status`` and the figures
have it) and, once when it begins and once when it ends, into the record itself, in an epoch
of its own: who rewrites the log cannot take back that this host has seen it. Rules: shipping
never fails because of a look; who cannot be asked is asked again at the next round.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from aesp_proxy.errors import AespError, ConfigError, RecordError, TrustError, UnavailableError
from aesp_proxy.forward.log_watch import LogSeen, LogWatch, OwnBatches
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import HttpsTransport, load_destination
from aesp_proxy.keys import read_bounded
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.state import AuditPaths, load_origin
from aesp_proxy.record.tlog.policy import LogPolicy, parse_policy

EVERY_S: Final = 300.0
SOON_S: Final = 15.0
"""When a batch waits for the log, or something is wrong with it."""
ALARM_EVENT: Final = "audit.log_alarm"
POLICY: Final = "log.policy"


class LogLook:
    """When to look, and what is told of it. ``forward_dir`` may hold a ``log.policy``."""

    def __init__(self, paths: AuditPaths, forward_dir: Path) -> None:
        self._paths, self._forward_dir = paths, forward_dir
        self._next_s = float("-inf")
        self.seen = LogSeen()

    def look(self, transport: HttpsTransport, *, now_s: float, is_last: bool = False) -> None:
        """Look when it is time, or at the end when a batch waits; never raises."""
        mono_s = time.monotonic()
        is_new = is_last and (self.seen.waiting or not self.seen.at_s)
        if mono_s < self._next_s and not is_new:
            return
        try:
            before, self.seen = self._look(transport, now_s)
        except (UnavailableError, RecordError, ConfigError) as error:
            self._next_s = mono_s + SOON_S
            _tell(str(error))
            return
        except TrustError as error:  # our own batch or receipt: the shipper says it too
            self._next_s = mono_s + EVERY_S
            _tell(str(error))
            return
        is_open = self.seen.waiting or self.seen.alarm or self.seen.hidden_s
        self._next_s = mono_s + (SOON_S if is_open else EVERY_S)
        if self.seen.alarm != before.alarm:
            self._record(self.seen)

    def _look(self, transport: HttpsTransport, now_s: float) -> tuple[LogSeen, LogSeen]:
        destination = load_destination(self._forward_dir)
        spool = Spool(self._paths, load_origin(self._paths), destination.public_key)
        watch = LogWatch(
            self._paths.log,
            destination.public_key,
            OwnBatches(covered=lambda: _covered(spool), leaf=lambda number: _leaf(spool, number)),
            get=transport.get,
            policy=_policy(self._forward_dir / POLICY),
        )
        return watch.seen(), watch.look(now_s=now_s)

    def _record(self, seen: LogSeen) -> None:
        what = seen.alarm or "the log holds again"
        _tell(f"transparency log: {what}")
        record = Record(
            kind=RecordKind.LIFECYCLE,
            time_ns=time.time_ns(),
            event_type=ALARM_EVENT,
            action="audit.watch_log",
            outcome=Outcome.FAILURE if seen.alarm else Outcome.SUCCESS,
            verdict="",
            reason="",
            guard="",
            severity="critical" if seen.alarm else "info",
            message=what,
            resource=seen.origin,
            metadata=(("size", str(seen.size)), ("batch", str(seen.batch))),
        )
        try:
            with Journal.open(self._paths.root.parent, background=False) as journal:
                journal.append(record)
        except AespError as error:
            _tell(f"the alarm cannot be recorded: {error}")


def _covered(spool: Spool) -> int:
    receipt = spool.covered()
    return receipt.batch_no if receipt else 0


def _leaf(spool: Spool, number: int) -> bytes | None:
    """Return what the log should hold of our batch; None when it was released."""
    if not spool.has(number):
        return None
    batch = decode_batch(spool.read(number))
    return batch.header_bytes + batch.signature


def _policy(file: Path) -> LogPolicy | None:
    return parse_policy(read_bounded(file), where=str(file)) if file.exists() else None


def _tell(message: str) -> None:
    sys.stderr.write(f"aesp-proxy: {message}\n")

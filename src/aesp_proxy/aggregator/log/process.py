"""The log's process: ``python -m aesp_proxy.aggregator.log.process --data DIR``.

Each byte on its standard input says that batches were stored; the end of it that the server
is gone: log what is left, then end. A checkpoint is made at most once a second, and witnesses
are asked again once a minute even when nothing came. Whatever goes wrong ends it, because it
trusts nothing that it remembers after an error; its keeper starts it again. Of several, one
has the lease and the others wait for it.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from aesp_proxy.aggregator.identity import DataDir, existing
from aesp_proxy.aggregator.log.integrate import Integrator
from aesp_proxy.aggregator.log.keys import load_log_keys
from aesp_proxy.aggregator.log.publish import AGAIN_S, FRESH_S, open_publisher
from aesp_proxy.aggregator.log.status import LogStatus, read_log_status, write_log_status
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.process import collect_seldom, log_to_stderr
from aesp_proxy.aggregator.stores import (
    open_fence,
    open_leases,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aesp_proxy.aggregator.log.publish import Publisher

LEASE: Final = "log"
TURN_S: Final = 5.0
EVERY_S: Final = 1.0
WAKE_BYTES_MAX: Final = 65_536

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the log until standard input ends; return the exit code."""
    parser = argparse.ArgumentParser(description="Keep the transparency log.")
    parser.add_argument("--data", type=Path, required=True)
    data = existing(parser.parse_args(arguments).data)
    log_to_stderr()
    collect_seldom()
    for number in (signal.SIGINT, signal.SIGTERM):  # the server decides when this ends
        signal.signal(number, signal.SIG_IGN)
    try:
        take_turn_and_keep(data, wake=sys.stdin.fileno())
    except AespError as error:
        log.critical("log_ended", error=str(error))
        write_log_status(data, replace(read_log_status(data), alarm=str(error)))
        return 4
    return 0


def take_turn_and_keep(data: DataDir, *, wake: int) -> None:
    """Become the one that keeps the log, of all aggregators, and do so until ``wake`` ends."""
    leases = open_leases(data)
    try:
        while (lease := leases.take(LEASE)) is None:
            if not _wait(wake, not_before_s=time.monotonic() + TURN_S, idle_s=TURN_S):
                return
        try:
            keep_log(data, wake=wake, held=lease.held)
        finally:
            lease.release()
    finally:
        leases.close()


def keep_log(data: DataDir, *, wake: int, held: Callable[[], bool]) -> None:
    """Log and publish until ``wake`` ends. UnavailableError when the lease is lost."""
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        fence = open_fence(data, LEASE)
        if fence is not None:
            stack.callback(fence.close)
        turn = fence.held if fence is not None else nullcontext
        store = LogStore(objects, held=held, turn=turn)
        publisher = open_publisher(data, store)
        stack.callback(publisher.close)
        integrator = Integrator(ledger=ledger, store=store, keys=load_log_keys(data))
        integrator.start()
        said: LogStatus | None = None  # what an earlier process has said may not hold any more
        more = True
        while more:
            begun_s = time.monotonic()
            said = _round(data, integrator, publisher, said)
            more = _wait(
                wake, not_before_s=begun_s + EVERY_S, idle_s=AGAIN_S if said.alarm else FRESH_S
            )
        _round(data, integrator, publisher, said)


def _round(
    data: DataDir, integrator: Integrator, publisher: Publisher, said: LogStatus | None
) -> LogStatus:
    """Log what there is, publishing now and then on the way; return what was said."""
    while True:
        end_s, more = time.monotonic() + EVERY_S, True
        while more and time.monotonic() < end_s:
            more = integrator.step()
        status = publisher.publish(integrator.note)
        if status != said:
            write_log_status(data, status)
        said = status
        if not more:
            return status


def _wait(wake: int, *, not_before_s: float, idle_s: float) -> bool:
    """Wait until woken and a moment has passed, or for long; False when ``wake`` has ended."""
    readable, _, _ = select.select([wake], [], [], idle_s)
    while readable:
        if not os.read(wake, WAKE_BYTES_MAX):
            return False
        left_s = not_before_s - time.monotonic()
        if left_s <= 0:
            break
        readable, _, _ = select.select([wake], [], [], left_s)
    return True


if __name__ == "__main__":
    sys.exit(main())

"""The indexing process: ``python -m aesp_proxy.aggregator.index_process --data DIR``.

It is a process and not a thread so that indexing takes no time from accepting.
Each byte on its standard input says that batches were stored; the end of it
says that the server is gone: index what is left, then end. Started twice, the
second waits for the first. Where only one process may open the index, this one answers for it.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from aesp_proxy.aggregator.identity import DataDir, FileLock, existing
from aesp_proxy.aggregator.indexing import catch_up
from aesp_proxy.aggregator.process import collect_seldom, log_to_stderr
from aesp_proxy.aggregator.stores import (
    answer_for,
    is_index_shared,
    open_index,
    open_leases,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import AespError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.leases import Lease, Leases
    from aesp_proxy.aggregator.ports import BatchSource, EventIndex

IDLE_S: Final = 5.0
LEASE: Final = "index"
WAKE_BYTES_MAX: Final = 65_536

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Index until standard input ends; return the exit code."""
    parser = argparse.ArgumentParser(description="Index stored batches.")
    parser.add_argument("--data", type=Path, required=True)
    data = existing(parser.parse_args(arguments).data)
    log_to_stderr()
    collect_seldom()
    # The server decides when this ends: Ctrl-C and a service manager's stop reach the
    # whole group, and what is stored by then is still to be indexed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        with FileLock(data.index_lock):
            _run(data, wake=sys.stdin.fileno())
    except AespError as error:
        log.critical("indexing_ended", error=str(error))
        return 4
    return 0


def _run(data: DataDir, *, wake: int) -> None:
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        index = open_index(data)
        stack.callback(index.close)
        service = answer_for(data, index)
        if service is not None:
            stack.callback(service.close)
        turn = _Turn(open_leases(data) if is_index_shared(data) else None)
        stack.callback(turn.close)
        more = True
        while more:
            _index(ledger, index, turn)
            more = _wait(wake)
        _index(ledger, index, turn)


class _Turn:
    """Whether it is for this process to index: where others share the index, one does."""

    def __init__(self, leases: Leases | None) -> None:
        self._leases = leases
        self._lease: Lease | None = None

    def is_ours(self) -> bool:
        if self._leases is None:
            return True
        if self._lease is None or not self._lease.held():
            self._lease = self._leases.take(LEASE)
        return self._lease is not None

    def close(self) -> None:
        if self._lease is not None:
            self._lease.release()
        if self._leases is not None:
            self._leases.close()


def _index(ledger: BatchSource, index: EventIndex, turn: _Turn) -> None:
    """Index what there is; what cannot be reached now is tried again, and others wait for it."""
    try:
        if turn.is_ours():
            catch_up(ledger, index, stop=lambda: not turn.is_ours())
    except UnavailableError as error:
        log.warning("indexing_waits", error=str(error))


def _wait(wake: int) -> bool:
    """Wait until woken or a while has passed; False when standard input has ended."""
    readable, _, _ = select.select([wake], [], [], IDLE_S)
    return not readable or bool(os.read(wake, WAKE_BYTES_MAX))


if __name__ == "__main__":
    sys.exit(main())

"""The indexing process: ``python -m aesp_proxy.aggregator.index_process --data DIR``.

It is a process and not a thread so that indexing takes no time from accepting.
Each byte on its standard input says that batches were stored; the end of it
says that the server is gone: index what is left, then end. Started twice, the
second waits for the first.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from aesp_proxy.aggregator.identity import DataDir, FileLock, existing
from aesp_proxy.aggregator.indexing import catch_up
from aesp_proxy.aggregator.process import collect_seldom, log_to_stderr
from aesp_proxy.aggregator.stores import open_index, open_ledger_reader, open_objects
from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE_S: Final = 5.0
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
    objects = open_objects(data)
    ledger = open_ledger_reader(data, objects)
    index = open_index(data)
    try:
        more = True
        while more:
            catch_up(ledger, index)
            more = _wait(wake)
        catch_up(ledger, index)
    finally:
        index.close()
        ledger.close()
        objects.close()


def _wait(wake: int) -> bool:
    """Wait until woken or a while has passed; False when standard input has ended."""
    readable, _, _ = select.select([wake], [], [], IDLE_S)
    return not readable or bool(os.read(wake, WAKE_BYTES_MAX))


if __name__ == "__main__":
    sys.exit(main())

"""The exporting process: ``python -m aesp_proxy.aggregator.export.process --data DIR``.

It is a process so that exporting takes no time from accepting, whatever the receivers
do. Each byte on its standard input says that batches were stored; the end of it says
that the server is gone. Started twice, the second waits for the first.
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

from aesp_proxy.aggregator.export.run import ExportRun
from aesp_proxy.aggregator.export.settings import load_settings
from aesp_proxy.aggregator.identity import FileLock, existing
from aesp_proxy.aggregator.process import collect_seldom, log_to_stderr
from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Sequence

POLL_S: Final = 1.0
WAKE_BYTES_MAX: Final = 65_536

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export until standard input ends; return the exit code."""
    parser = argparse.ArgumentParser(description="Export stored records.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    options = parser.parse_args(arguments)
    log_to_stderr()
    collect_seldom()
    # The server decides when this ends: Ctrl-C and a service manager's stop reach the group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        data = existing(options.data)
        settings = load_settings(options.settings, environment=os.environ)
        with FileLock(data.export_lock):
            run = ExportRun(data, settings)
            run.start()
            while not run.failed and _wait(sys.stdin.fileno()):
                run.patience.wake()
            run.stop()
    except AespError as error:
        log.critical("export_ended", error=str(error))
        return 4
    return 4 if run.failed else 0


def _wait(wake: int) -> bool:
    """Wait until woken or a while has passed; False when standard input has ended."""
    readable, _, _ = select.select([wake], [], [], POLL_S)
    return not readable or bool(os.read(wake, WAKE_BYTES_MAX))


if __name__ == "__main__":
    sys.exit(main())

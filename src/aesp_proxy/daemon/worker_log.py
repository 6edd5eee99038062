"""What a worker writes into its log: what failed, and where; never what it was about.

An exception's text may quote what the agent sent, and so may a foreign library's message.
So of an exception types and places are told, of a foreign message its place.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from aesp_proxy.errors import told

_OURS: Final = "aesp_proxy"

log = logging.getLogger(__name__)


class PlacesOnly(logging.Formatter):
    """Formats our own messages as they are, and of everything else the place."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        if record.name.startswith(_OURS) or record.name == "__main__":
            text = record.getMessage()
        else:
            text = f"{record.levelname.lower()} of {record.name}, line {record.lineno}"
        error = record.exc_info[1] if record.exc_info else None
        return f"aesp-proxy worker: {text}" + (f": {told(error)}" if error is not None else "")


def install() -> None:
    """Have everything that this process would write about a failure go through ``told``."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlacesOnly())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    sys.excepthook = lambda _kind, error, _trace: log.error("it failed", exc_info=error)
    sys.unraisablehook = lambda given: log.error("it went on", exc_info=given.exc_value)
    threading.excepthook = lambda given: log.error("a thread failed", exc_info=given.exc_value)


def loop_failed(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Tell of what an event loop could not give to anybody (asyncio's exception handler)."""
    del loop
    log.error("a callback failed", exc_info=context.get("exception"))

"""How the aggregator's processes set themselves up: their log, and Python's collector.

The log is of our own words. Of an exception it has types and places, and of what a library
says the place: their texts may quote a peer's bytes, or the address of a store with the
password in it.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Final

import structlog

from aesp_proxy.errors import told

COLLECT_AFTER_OBJECTS: Final = 200_000

log = structlog.get_logger(__name__)


def log_to_stderr() -> None:
    """Write the log of this process to standard error, a JSON object a line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exceptions_by_place,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(_Foreign())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    sys.excepthook = lambda _kind, error, _trace: log.critical("ended", exc_info=error)
    sys.unraisablehook = lambda given: log.error("went_on", exc_info=given.exc_value)
    threading.excepthook = lambda given: log.error("thread_failed", exc_info=given.exc_value)


def _exceptions_by_place(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        event["exception"] = told(error)
    return event


class _Foreign(logging.Formatter):
    """Formats what a library says (uvicorn, psycopg, botocore, asyncio): where, not what."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        said = {
            "event": "library_complains",
            "library": record.name,
            "place": f"{record.filename}:{record.lineno}",
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        error = record.exc_info[1] if record.exc_info else None
        return json.dumps(said | ({"exception": told(error)} if error is not None else {}))


def collect_seldom() -> None:
    """Collect cycles once in 200,000 objects, and never look at what the start made.

    A batch is some 5,000 lists that live for milliseconds and hold no cycle;
    at the default of 700 the collector walked them again and again and took
    more than half of the time of unpacking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 100)

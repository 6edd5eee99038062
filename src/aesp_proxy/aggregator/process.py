"""How the aggregator's processes set themselves up: their log, and Python's collector."""

from __future__ import annotations

import gc
import sys
from typing import Final

import structlog

COLLECT_AFTER_OBJECTS: Final = 200_000


def log_to_stderr() -> None:
    """Write the log of this process to standard error, a JSON object a line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def collect_seldom() -> None:
    """Collect cycles once in 200,000 objects, and never look at what the start made.

    A batch is some 5,000 lists that live for milliseconds and hold no cycle;
    at the default of 700 the collector walked them again and again and took
    more than half of the time of unpacking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 100)

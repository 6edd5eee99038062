"""Where the aggregator's processes write their log: standard error, a JSON object a line."""

from __future__ import annotations

import sys

import structlog


def log_to_stderr() -> None:
    """Set up the log of this process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

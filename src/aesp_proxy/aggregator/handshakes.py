"""Say which TLS handshakes were refused and why: neither uvicorn nor its loop tells anyone.

A peer without a certificate, with one of another authority, or with one that has ended never
reaches the application, so this is where it is seen. Rules: at most one line a second, with
how many it stands for, so that strangers cannot fill the log; nothing of the peer's own words
is in it, only OpenSSL's reason.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_SAY_EVERY_S: Final = 1.0
_WAITING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RefusedHandshakes:
    """Counts refusals by reason, and says them now and then."""

    def __init__(self) -> None:
        self.total = 0
        self._untold: Counter[str] = Counter()
        self._told_s = float("-inf")

    def note(self, error: ssl.SSLError) -> None:
        """Count one refusal."""
        self.total += 1
        self._untold[_reason(error)] += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= _SAY_EVERY_S:
            self._told_s = now_s
            log.warning("handshakes_refused", total=self.total, **self._untold)
            self._untold.clear()


def _reason(error: ssl.SSLError) -> str:
    """Give one word: what a certificate lacks, or OpenSSL's name of the error."""
    # An end of file within a handshake has neither.
    text = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    return "_".join((text or "unreadable").lower().replace("'", "").split())


def watch(context: ssl.SSLContext) -> RefusedHandshakes:
    """Have refused handshakes of a server's context counted and said."""
    refused = RefusedHandshakes()

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except _WAITING:
                raise
            except ssl.SSLError as error:
                refused.note(error)
                raise

    context.sslobject_class = Watched
    return refused

"""How much a session may send: requests, requests a minute, bytes; the operator's own bounds.

What is let out is counted, what was refused is not: a program that tries again does not
use up the budget. A connection that is relayed unread counts as one request, and its bytes
as bytes. Bytes are those of targets, header fields, bodies and messages, as they leave.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest

GUARD: Final = "budget"
RATE_GUARD: Final = "budget_rate"
"""Names that the decision of a refusal carries; one for what a minute's wait would mend."""

_MINUTE_S: Final = 60.0
Event = EgressConnect | EgressRequest | DnsQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLimits:
    """What one session may send; 0 for no bound."""

    requests_per_minute_max: int = 0
    requests_max: int = 0
    bytes_out_max: int = 0


class SendBudget:
    """The counts of one session. ``now_s`` is seconds of a clock that only rises."""

    __slots__ = ("_bytes", "_limits", "_recent", "_requests")

    def __init__(self, limits: SendLimits) -> None:
        self._limits = limits
        self._requests = 0
        self._bytes = 0
        self._recent: deque[float] = deque(maxlen=limits.requests_per_minute_max)

    def refused(self, event: Event, now_s: float) -> tuple[str, str] | None:
        """Say which guard refuses an allowed attempt and why; None where it may go out."""
        if not _is_counted(event):
            return None
        most = self._limits.requests_max
        if most and self._requests >= most:
            return GUARD, f"the session has sent {most} requests, as many as it may"
        if self._over(_head_bytes(event) + _declared_bytes(event)):
            return GUARD, self.told_bytes()
        recent, per_minute = self._recent, self._limits.requests_per_minute_max
        if per_minute and len(recent) == per_minute and now_s - recent[0] < _MINUTE_S:
            wait_s = int(_MINUTE_S - (now_s - recent[0])) + 1
            return RATE_GUARD, f"over {per_minute} requests a minute; the next in {wait_s} s"
        return None

    def let_out(self, event: Event, now_s: float) -> None:
        """Count an attempt that is let out."""
        if _is_counted(event):
            self._requests += 1
            self._bytes += _head_bytes(event)
            if self._limits.requests_per_minute_max:
                self._recent.append(now_s)

    def spend(self, count: int) -> bool:
        """Count bytes that are about to leave; False when they may not, and count nothing."""
        if self._over(count):
            return False
        self._bytes += count
        return True

    def told_bytes(self) -> str:
        """Say in words that the bytes are used up."""
        most, spent = self._limits.bytes_out_max, self._bytes
        return f"the session may send {most} bytes and has sent {spent}; this would be more"

    def _over(self, count: int) -> bool:
        most = self._limits.bytes_out_max
        return bool(most) and self._bytes + count > most


def _is_counted(event: Event) -> bool:
    """A CONNECT is not: the requests inside it are."""
    if isinstance(event, EgressConnect):
        return event.raw or event.sealed
    return isinstance(event, EgressRequest)


def _head_bytes(event: Event) -> int:
    if not isinstance(event, EgressRequest):
        return 0
    fields = sum(len(name) + len(value) for name, value in event.headers)
    return len(event.method) + len(event.target) + fields


def _declared_bytes(event: Event) -> int:
    """A body that says its length is refused before any of it is sent."""
    return (event.content_length or 0) if isinstance(event, EgressRequest) else 0

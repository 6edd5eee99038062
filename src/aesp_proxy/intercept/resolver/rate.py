"""How many queries are looked at in a second: before parsing, deciding and recording.

A flood must not fill the record. What is over the rate is answered "try later" and told
once a second, with its number.
"""

from __future__ import annotations


class QueryRate:
    """Queries a second, with a burst of ``burst_s`` seconds' worth; ``now`` only rises."""

    __slots__ = ("_at", "_burst", "_left", "_over", "_per_s", "_told_at")

    def __init__(self, per_s: int, *, burst_s: float, now: float) -> None:
        self._per_s = per_s
        self._burst = per_s * burst_s
        self._left, self._at = self._burst, now
        self._over = 0
        self._told_at = now - 1

    def takes(self, now: float) -> bool:
        """Tell whether one more query may be looked at."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            self._over += 1
            return False
        self._left -= 1
        return True

    def leave(self) -> None:
        """Count a query that was not looked at for another reason."""
        self._over += 1

    def untold(self, now: float) -> int:
        """Return how many were over the rate since it was last told; 0 within a second."""
        if not self._over or now - self._told_at < 1:
            return 0
        count, self._over, self._told_at = self._over, 0, now
        return count

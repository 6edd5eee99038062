"""How often something that died is started again: at once, then slower, then no more."""

from __future__ import annotations

from collections import deque
from typing import Final

RESTARTS_MAX: Final = 5
WINDOW_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.1


class Restarts:
    """The deaths of one process, by a clock that only rises."""

    __slots__ = ("_deaths", "total")

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=RESTARTS_MAX + 1)
        self.total = 0

    def died(self, now_s: float) -> float | None:
        """Take a death; return seconds to wait before the next start, None for no more."""
        self.total += 1
        self._deaths.append(now_s)
        recent = sum(1 for each in self._deaths if now_s - each < WINDOW_S)
        if recent > RESTARTS_MAX:
            return None
        return float(_FIRST_PAUSE_S * 2 ** (recent - 1))

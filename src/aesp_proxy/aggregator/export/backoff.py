"""How long to wait after a failure: exponential, half of it chance, with a ceiling."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0
MOST_S: Final = 300.0
ASKED_S_MAX: Final = 3600.0
_DOUBLINGS_MAX: Final = 16


def delay_s(failures: int, *, chance: float, asked_s: float = 0.0) -> float:
    """Return the seconds to wait after ``failures`` failures in a row, 1 or more.

    ``chance`` is uniform in 0 to 1: many exporters do not come back together.
    ``asked_s`` is what the receiver asked for (Retry-After), honoured up to an hour.
    """
    doublings = min(max(failures, 1) - 1, _DOUBLINGS_MAX)
    full_s = min(MOST_S, FIRST_S * 2.0**doublings)
    return max(full_s * (0.5 + chance / 2), min(asked_s, ASKED_S_MAX))

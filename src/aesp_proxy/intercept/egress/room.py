"""Whether there is room for one more client: in all, of one agent, and of descriptors.

A client takes a descriptor and its upstream connection another. Where the process may open
fewer than the connections allowed would take, fewer are allowed: a client is refused, and that
recorded, while those that are served can still be dialled for. Were descriptors to run out,
the kernel would keep clients waiting, and nobody would be told.
"""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass

from aesp_proxy.model.principal import Principal

_EACH = 2  # a client's connection and the one upstream
_SPARE = 128  # listeners, journal, resolver, connections at rest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomLimits:
    """How many clients may be connected: in all, and of one agent."""

    connections_max: int = 5_000
    agent_connections_max: int = 5_000


def raise_descriptors() -> int:
    """Raise this process's soft limit of open files to its hard limit; return it (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def room_within(limits: RoomLimits, descriptors: int) -> RoomLimits:
    """Return the limits that hold with so many descriptors; at least one client fits."""
    fit = max(1, (descriptors - _SPARE) // _EACH)
    return RoomLimits(
        connections_max=min(limits.connections_max, fit),
        agent_connections_max=min(limits.agent_connections_max, fit),
    )


class Room:
    """Counts clients in and out."""

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._of: Counter[Principal] = Counter()
        self._all = 0

    def objection(self, principal: Principal) -> str:
        """Say why one more client of ``principal`` is too many; empty when it is not."""
        limits = self._limits
        if self._all >= limits.connections_max:
            return f"more than {limits.connections_max} connections"
        if self._of[principal] >= limits.agent_connections_max:
            return f"more than {limits.agent_connections_max} connections of one agent"
        return ""

    def enter(self, principal: Principal) -> None:
        """Count a client in."""
        self._all += 1
        self._of[principal] += 1

    def leave(self, principal: Principal) -> None:
        """Count a client out."""
        self._all -= 1
        self._of[principal] -= 1
        if not self._of[principal]:
            del self._of[principal]

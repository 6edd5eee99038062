"""The port of leases: work that one of all aggregators does at a time."""

from __future__ import annotations

from typing import Protocol

from aesp_proxy.errors import UnavailableError


class TurnLostError(UnavailableError):
    """What a lease protects was written for, by who does not hold it any more: nothing is done."""


class Lease(Protocol):
    """A piece of work that one process does at a time, in all of the aggregators."""

    def held(self) -> bool:
        """Whether it is still ours: ask before each step that only one may do.

        It falls when its holder dies or can no longer reach the store, and then another takes it.
        Between the answer and the step that may happen: what is written is fenced as well
        (``store/fences.py``).
        """

    def release(self) -> None:
        """Let another take it."""


class Leases(Protocol):
    """Who does what must be done by one: flock(2) in one directory, else the database."""

    def take(self, name: str) -> Lease | None:
        """Take a lease by its name (a-z 0-9 . _ - :); None when somebody has it. Never waits."""

    def close(self) -> None:
        """Close what is open; leases that were taken stay until they are released."""

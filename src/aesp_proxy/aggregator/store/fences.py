"""Fencing numbers: a holder that lost its lease without noticing cannot write any more.

A lease says who may begin; it cannot stop who was paused (SIGSTOP, a frozen machine, a cut
network) while it held one, and goes on later. So the present holder counts a number up in the
database that it writes to, and each of its transactions asks whether the number still
stands. Rules: the row is locked from the check to the commit, so who takes over waits for a
write under way, and reads what it left; a number that is not the newest writes nothing.
Source: Kleppmann, "How to do distributed locking" (2016), fencing tokens.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from aesp_proxy.aggregator.leases import TurnLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aesp_proxy.aggregator.store.database import Database

_COUNT_UP: Final = (
    "INSERT INTO fences VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET number = fences.number + 1"
)
# Changes nothing but takes the row's lock, on PostgreSQL too, where it waits for who has it.
_HOLD: Final = "UPDATE fences SET number = number WHERE name = ? AND number = ?"


class Fence:
    """The turn of who holds the lease ``name``, in one database; made after it was taken."""

    def __init__(self, database: Database, name: str) -> None:
        """Count up: from now on every earlier holder's writes are refused."""
        self._database, self._name = database, name
        with database.transaction():
            database.run(_COUNT_UP, (name,))
            rows = database.rows("SELECT number FROM fences WHERE name = ?", (name,))
        self.number = int(rows[0][0])

    def check(self) -> None:
        """Hold the turn until the caller's transaction ends; TurnLostError when it is over."""
        if self._database.run(_HOLD, (self._name, self.number)) != 1:
            raise TurnLostError(
                f"another has taken over {self._name!r}", remedy="let it; this one waits its turn"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Run the block within one transaction that holds the turn; TurnLostError before it."""
        with self._database.transaction():
            self.check()
            yield

    def close(self) -> None:
        """Close the database that was handed in."""
        self._database.close()

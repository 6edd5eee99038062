"""What the row stores ask of a database: the same statements run on SQLite and PostgreSQL.

Statements are texts of this program with ``?`` for each value, never built from values, so
no recorded value is ever read as SQL. Errors come in our families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager


class Database(Protocol):
    """One database. UnavailableError where trying again may help, else RecordError."""

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return what a question answers."""

    def run(self, sql: str, values: Sequence[object] = ()) -> int:
        """Change something within the caller's transaction; return how many rows."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run the block as one transaction that is alone in writing to its store.

        On return it is committed and would survive a power cut; on any error nothing of it
        is there. When the connection ends during the commit an error is raised and either
        may be true: the caller promises nothing, and finds out when it tries again.
        """

    def version(self) -> int | None:
        """Return a number that changes when another has written; None: keep nothing read."""

    def close(self) -> None:
        """Close what is open."""

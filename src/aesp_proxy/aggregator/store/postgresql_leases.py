"""Leases as advisory locks of PostgreSQL: a connection each, whose end is the lease's end.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from aesp_proxy.aggregator.store.leases import checked_name
from aesp_proxy.aggregator.store.postgresql import LOCK_CLASS, Server, lock_number, translate

if TYPE_CHECKING:
    from aesp_proxy.aggregator.leases import Lease


class PostgresLeases:
    """Work that one of all aggregators on a database does at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def take(self, name: str) -> Lease | None:
        """Take a lease; None when somebody has it. UnavailableError without the database."""
        number = lock_number(f"lease {checked_name(name)}")
        connection = self._server.connect()
        try:
            rows = connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, number)
            ).fetchall()
        except psycopg.Error as error:
            connection.close()
            raise translate(error) from error
        if rows[0][0]:
            return _Lease(connection)
        connection.close()
        return None

    def close(self) -> None:
        """Do nothing: each lease has its own connection."""


class _Lease:
    """Ours as long as its connection is."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def held(self) -> bool:
        """Ask the server on the lease's connection: when it answers, the lock is there."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def release(self) -> None:
        """Let another take it."""
        self._connection.close()

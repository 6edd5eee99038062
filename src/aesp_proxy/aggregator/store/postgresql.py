"""Connections to PostgreSQL: checked before they are used, with errors in our families.

Rules: a server that does not write to disk what it has committed (``fsync``,
``full_page_writes`` or ``synchronous_commit`` off) is refused; beyond this machine only
TLS with a checked certificate; the password is in no setting and no message. A session
that waits too long for a lock, an answer or us is ended by the server, so that an
aggregator that hangs holds up no other. A statement that failed is not tried again,
except that a connection which was idle and is gone is replaced before anything is done.
Source: https://www.postgresql.org/docs/current/wal-reliability.html,
https://www.postgresql.org/docs/current/libpq-connect.html.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import psycopg
import structlog
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from aesp_proxy.aggregator.store.postgresql_layout import SCHEMA, bring_up
from aesp_proxy.errors import AespError, ConfigError, RecordError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECT_S: Final = 5
LOCK_CLASS: Final = 0x41455350  # "AESP": our own among the advisory locks of a database
IDLE_KEPT_MAX: Final = 4
REFUSE_S: Final = 1.0
"""After a connection that could not be made, so long nobody waits for another."""
_SESSION: Final = {
    "search_path": f"{SCHEMA},pg_temp",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    # An aggregator that hangs, or whose machine is gone, lets go of its locks.
    "idle_in_transaction_session_timeout": "15s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "client_min_messages": "error",
}
_OURS: Final = {
    "connect_timeout": str(CONNECT_S),
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "target_session_attrs": "read-write",
    "application_name": "aesp-proxy",
    "client_encoding": "utf8",
}
_MUST_BE_ON: Final = ("fsync", "full_page_writes", "synchronous_commit")
_SETTINGS_SQL: Final = (
    b"SELECT current_setting('fsync'), current_setting('full_page_writes'),"
    b" current_setting('synchronous_commit')"
)
_CHECKED_TLS: Final = frozenset({"verify-full", "verify-ca"})

log = structlog.get_logger(__name__)


def checked_url(url: str, *, where: str) -> str:
    """Return the connection string that is used; ConfigError for one that may not be."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ConfigError("is not a postgresql:// address", where=where) from error
    if given.get("password"):
        raise ConfigError(
            "holds a password", where=where, remedy="use PGPASSFILE or ~/.pgpass, or PGPASSWORD"
        )
    mode = given.get("sslmode") or os.environ.get("PGSSLMODE", "")
    hosts = given.get("hostaddr") or given.get("host") or os.environ.get("PGHOST", "")
    if mode not in _CHECKED_TLS and not all(map(_is_here, str(hosts).split(","))):
        raise ConfigError(
            "another machine is spoken to with checked TLS only",
            where=where,
            remedy="add sslmode=verify-full and sslrootcert=FILE (or system)",
        )
    ours = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    options = f"{given.get('options') or ''} {ours}".strip()
    return make_conninfo("", **{**_OURS, **given, "options": options})


def _is_here(host: str) -> bool:
    return not host or host.startswith(("/", "@")) or host in {"localhost", "127.0.0.1", "::1"}


def lock_number(name: str) -> int:
    """Return the second number (int4) of the advisory lock ``name``; the first is LOCK_CLASS."""
    number = crc32(name.encode())
    return number - 2**32 if number >= 2**31 else number


class Server:
    """A PostgreSQL database: gives checked connections and takes them back."""

    def __init__(self, url: str, *, where: str) -> None:
        self._conninfo = checked_url(url, where=where)
        self._where = where
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        self._idle_max = IDLE_KEPT_MAX
        self._is_made = False
        self._refuse_until_s = 0.0

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection. ConfigError for a server that may not be used."""
        if time.monotonic() < self._refuse_until_s:
            raise UnavailableError("the database cannot be reached", remedy="try again")
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            self._refuse_until_s = time.monotonic() + REFUSE_S
            log.warning("database_unreachable", error=" ".join(str(error).split()))
            raise UnavailableError(
                "the database cannot be reached", where=self._where, remedy="see the log"
            ) from error
        try:
            self._check(connection)
            with self._lock:
                if not self._is_made:
                    bring_up(connection, lock=(LOCK_CLASS, lock_number("layout")))
                    self._is_made = True
        except psycopg.Error as error:
            connection.close()
            raise translate(error) from error
        except AespError:
            connection.close()
            raise
        return connection

    def take(self) -> psycopg.Connection[Any]:
        """Return a connection; one that was idle may be gone meanwhile."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.connect()

    def give_back(self, connection: psycopg.Connection[Any]) -> None:
        """Keep a connection for the next who needs one."""
        is_idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if is_idle and not connection.closed and len(self._idle) < self._idle_max:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections; from now on each is closed when it is given back."""
        with self._lock:
            idle, self._idle, self._idle_max = self._idle, [], 0
        for connection in idle:
            connection.close()

    def _check(self, connection: psycopg.Connection[Any]) -> None:
        found = connection.execute(_SETTINGS_SQL).fetchall()[0]
        for name, value in zip(_MUST_BE_ON, found, strict=True):
            if value == "off":
                raise ConfigError(
                    f"the database has {name} off: what it has committed can be lost",
                    where=self._where,
                    remedy=f"set {name} = on in postgresql.conf, and restart it",
                )


def translate(error: psycopg.Error) -> RecordError | UnavailableError:
    """Say an error of PostgreSQL in our words; no value of a statement is in it."""
    name = f"{type(error).__name__} {error.sqlstate or ''}".strip()
    if isinstance(error, pg.DiskFull):
        return RecordError("the database's disk is full", remedy="make room")
    if isinstance(error, psycopg.OperationalError):
        return UnavailableError(f"the database did not do it: {name}", remedy="try again")
    return RecordError(f"the database refused: {name}", remedy="see the database's log")


@lru_cache(maxsize=256)
def statement(sql: str) -> bytes:
    """Return our statement with PostgreSQL's mark for values."""
    return sql.replace("?", "%s").encode()


class PostgresDatabase:
    """A ``Database``: one connection at a time, from any thread, replaced when it is gone.

    Transactions are alone in writing to the store ``name``, on all aggregators.
    """

    def __init__(self, server: Server, *, name: str) -> None:
        self._server = server
        self._alone = (LOCK_CLASS, lock_number(name))
        self._lock = threading.RLock()
        self._connection = server.take()
        self._is_begun = False

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return what a question answers."""
        with self._lock:
            return self._execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[object] = ()) -> int:
        """Change something within the caller's transaction; return how many rows."""
        with self._lock:
            return self._execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one transaction, alone in writing to this store."""
        with self._lock:
            self._execute("BEGIN")
            self._is_begun = True
            try:
                self._execute("SELECT pg_advisory_xact_lock(?, ?)", self._alone)
                yield
                commit(self._connection)
            finally:
                self._is_begun = False
                roll_back(self._connection)

    def version(self) -> None:
        """Keep nothing: others write, and there is no cheap way to know."""
        return

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._server.give_back(self._connection)

    def _execute(self, sql: str, values: Sequence[object] = ()) -> psycopg.Cursor[Any]:
        """Run one statement; on a new connection when this one is gone and nothing was begun."""
        try:
            return self._connection.execute(statement(sql), values or None)
        except psycopg.Error as error:
            if self._is_begun or not self._connection.closed:
                raise translate(error) from error
        self._connection = self._server.connect()
        try:
            return self._connection.execute(statement(sql), values or None)
        except psycopg.Error as error:
            raise translate(error) from error


def commit(connection: psycopg.Connection[Any]) -> None:
    """Commit, and be sure of it: a transaction that had failed ends by being rolled back."""
    try:
        done = connection.execute("COMMIT").statusmessage
    except psycopg.Error as error:
        raise translate(error) from error
    if done != "COMMIT":
        raise RecordError("the database did not commit", remedy="see the database's log")


def roll_back(connection: psycopg.Connection[Any]) -> None:
    """Undo what is begun; a connection on which that fails is closed, and the server undoes."""
    try:
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()

"""Open the aggregator's SQLite files: one way, with errors in our families.

Rules: write-ahead log everywhere; ``synchronous=FULL`` wherever a receipt or a
quarantine rests on the commit; a file that is not ours, or damaged, is a
``ConfigError`` that names it, never a fresh empty database in its place.
Source: https://www.sqlite.org/pragma.html, https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from aesp_proxy.errors import ConfigError, RecordError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

BUSY_TIMEOUT_MS: Final = 5_000
APPLICATION_ID: Final = 0x41455350  # "AESP", so that file(1) and we can tell whose it is

Durability = Literal["FULL", "NORMAL"]


def open_database(
    path: Path,
    *,
    schema: str,
    version: int,
    durability: Durability,
    upgrades: Mapping[int, str] | None = None,
) -> sqlite3.Connection:
    """Open ``path`` for writing, making it with ``schema`` when it is not there.

    The connection is in autocommit mode: transactions are explicit (see
    :func:`transaction`) and it may be handed to another thread, one at a time.
    ``upgrades`` holds the statements that lead from one layout to the next.
    Raises ConfigError for a damaged, foreign or newer file and for a directory
    that cannot be written.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        message = f"cannot be opened: {error}"
        raise ConfigError(message, where=str(path), remedy="check owner and mode") from error
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _check_or_create(connection, path, schema=schema, version=version, upgrades=upgrades or {})
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={durability}")
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(
            f"is damaged or cannot be written: {error}",
            where=str(path),
            remedy="restore it from a backup, or move it away if it may be lost",
        ) from error
    except ConfigError:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open ``path`` for reading only; ConfigError when it is missing or not ours."""
    if not path.is_file():
        raise ConfigError("does not exist", where=str(path), remedy="start the aggregator once")
    try:
        with ExitStack() as stack:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            stack.callback(connection.close)
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            stack.pop_all()
    except sqlite3.Error as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one immediate transaction; RecordError when it cannot be kept.

    On return the block is committed with the connection's durability; on any
    error it has been rolled back.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise translate(error) from error
    try:
        yield
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        raise translate(error) from error
    except BaseException:
        _roll_back(connection)
        raise


def translate(error: sqlite3.Error) -> RecordError | UnavailableError:
    """Say a SQLite error in our words: busy is a later, all else cannot be recorded."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_INTERRUPT"):
        return UnavailableError("the question took too long", remedy="narrow it in time or agent")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnavailableError(f"database is busy: {error}", remedy="try again")
    return RecordError(f"database refused: {error}", remedy="check disk space and the file")


class SqliteDatabase:
    """One connection as a ``Database``; use an instance in one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return what a question answers."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error

    def run(self, sql: str, values: Sequence[object] = ()) -> int:
        """Change something within the caller's transaction; return how many rows."""
        return self._connection.execute(sql, values).rowcount

    def transaction(self) -> AbstractContextManager[None]:
        """Run the block as one immediate transaction."""
        return transaction(self._connection)

    def version(self) -> int:
        """Return a number that changes when another connection has written."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _check_or_create(
    connection: sqlite3.Connection,
    path: Path,
    *,
    schema: str,
    version: int,
    upgrades: Mapping[int, str],
) -> None:
    found_id = connection.execute("PRAGMA application_id").fetchone()[0]
    found_version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if found_id == 0 and found_version == 0 and tables == 0:
        # One transaction: a second process that opens at the same time sees all or nothing.
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            for statement in schema.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={version}")
        connection.execute("COMMIT")
        return
    if found_id != APPLICATION_ID:
        raise ConfigError("is a database of another program", where=str(path))
    if found_version in upgrades:
        found_version = _upgrade(connection, version, upgrades)
    if found_version != version:
        raise ConfigError(
            f"has layout {found_version}, this program knows {version}",
            where=str(path),
            remedy="use the version that wrote it",
        )


def _upgrade(connection: sqlite3.Connection, version: int, upgrades: Mapping[int, str]) -> int:
    """Bring the layout up step by step, all or nothing; two processes may try at once."""
    connection.execute("BEGIN IMMEDIATE")
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    while found != version and found in upgrades:
        for statement in upgrades[found].split(";"):
            connection.execute(statement)
        found += 1
    connection.execute(f"PRAGMA user_version={found}")
    connection.execute("COMMIT")
    return found

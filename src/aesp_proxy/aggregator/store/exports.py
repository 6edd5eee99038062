"""How far each sink has come, what it refused, and how it fares; embedded, one SQLite file.

Rules: a cursor moves in the same durable transaction that keeps what was refused on the
way, so a crash repeats deliveries and never skips one; in that transaction the exporter's
turn is checked (``store/fences.py``), so who lost its lease moves nothing; refused
events are kept as places in the ledger, not as copies, so nothing is stored twice.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.store.fences import Fence
from aesp_proxy.aggregator.store.sqlite import SqliteDatabase, open_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aesp_proxy.aggregator.store.database import Database

VERSION: Final = 3
LIVE: Final = "live"
BACKFILL: Final = "backfill"
REASON_CHARS_MAX: Final = 500
LETTER_BYTES_MAX: Final = 4096
"""What a letter takes at most: its place, the name of its event, a reason."""
_SCHEMA: Final = """
CREATE TABLE lanes (
    sink TEXT NOT NULL, lane TEXT NOT NULL, position INTEGER NOT NULL, row INTEGER NOT NULL,
    until_position INTEGER, PRIMARY KEY (sink, lane)) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, sink TEXT NOT NULL, position INTEGER NOT NULL, row INTEGER NOT NULL,
    event TEXT NOT NULL, reason TEXT NOT NULL, noted_ns INTEGER NOT NULL,
    queued INTEGER NOT NULL DEFAULT 0, UNIQUE (sink, position, row)) STRICT;
CREATE TABLE health (
    sink TEXT PRIMARY KEY, delivered INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0, failing INTEGER NOT NULL DEFAULT 0,
    last_delivered_ns INTEGER NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '',
    last_error_ns INTEGER NOT NULL DEFAULT 0, next_try_ns INTEGER NOT NULL DEFAULT 0,
    stopped_ns INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
CREATE TABLE fences (name TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID
"""
_UPGRADES: Final = {
    1: """
ALTER TABLE health ADD COLUMN stopped_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE health ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0
""",
    2: "CREATE TABLE fences (name TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Batches up to ``position`` are done, and ``row`` rows of the next one."""

    position: int = 0
    row: int = 0
    until_position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a sink refused, as its place in the ledger; ``row`` -1 is a whole batch."""

    position: int
    row: int
    event: str
    reason: str
    id: int = 0
    noted_ns: int = 0
    queued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a sink fares. ``failing`` counts failures since the last success, 0 is well.

    ``stopped_ns`` is when it was stopped because no more refused events may be kept, 0 while
    it goes on; ``dropped`` counts those that an operator has thrown away.
    """

    sink: str
    delivered: int = 0
    refused: int = 0
    failures: int = 0
    failing: int = 0
    last_delivered_ns: int = 0
    last_error: str = ""
    last_error_ns: int = 0
    next_try_ns: int = 0
    stopped_ns: int = 0
    dropped: int = 0


class Exports:
    """The statements, on any database; an instance is used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._fence: Fence | None = None

    def take_turn(self, name: str) -> None:
        """Write from now on as the holder of the lease ``name``, and refuse every earlier one.

        The lease was taken before. Each write raises TurnLostError, with nothing changed,
        once another has taken its turn.
        """
        self._fence = Fence(self._database, name)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def names(self) -> list[str]:
        """Return the sinks that have ever begun, by name."""
        rows = self._rows("SELECT sink FROM lanes UNION SELECT sink FROM health ORDER BY 1", ())
        return [str(row[0]) for row in rows]

    def cursor(self, sink: str, lane: str = LIVE) -> Cursor | None:
        """Return where a lane of a sink stands, None when it was never begun."""
        rows = self._rows(
            "SELECT position, row, until_position FROM lanes WHERE sink = ? AND lane = ?",
            (sink, lane),
        )
        if not rows:
            return None
        return Cursor(position=rows[0][0], row=rows[0][1], until_position=rows[0][2])

    def begin(self, sink: str, cursor: Cursor, lane: str = LIVE) -> None:
        """Set a lane to ``cursor``, in place of what it was."""
        with self._transaction():
            self._put_cursor(sink, lane, cursor)

    def advance(
        self,
        sink: str,
        lane: str,
        cursor: Cursor,
        *,
        delivered: int,
        refused: Sequence[DeadLetter],
        now_ns: int,
    ) -> None:
        """Move a lane on and keep what was refused, together; durable on return.

        A lane that has reached its ``until_position`` is ended. RecordError when it
        cannot be kept: nothing has moved then.
        """
        with self._transaction():
            if cursor.until_position is not None and cursor.position >= cursor.until_position:
                self._run("DELETE FROM lanes WHERE sink = ? AND lane = ?", (sink, lane))
            else:
                self._put_cursor(sink, lane, cursor)
            self._bury(sink, refused, now_ns)
            self._note_success(sink, delivered, len(refused), now_ns)

    def settle(
        self, sink: str, done: Sequence[int], refused: Sequence[DeadLetter], *, now_ns: int
    ) -> None:
        """Take replayed letters off (``done``, by id) and put refused ones back, not queued."""
        with self._transaction():
            for number in done:
                self._run("DELETE FROM dead_letters WHERE sink = ? AND id = ?", (sink, number))
            self._bury(sink, refused, now_ns)
            self._note_success(sink, len(done), len(refused), now_ns)

    def note_failure(self, sink: str, error: str, *, now_ns: int, next_try_ns: int) -> None:
        """Keep that a delivery failed and when it is tried again."""
        with self._transaction():
            self._run(_KNOW_SINK, (sink,))
            self._run(
                "UPDATE health SET failures = failures + 1, failing = failing + 1, last_error = ?,"
                " last_error_ns = ?, next_try_ns = ? WHERE sink = ?",
                (_plain(error), now_ns, next_try_ns, sink),
            )

    def note_stopped(self, sink: str, *, stopped_ns: int) -> None:
        """Keep that a sink is stopped since then, or with 0 that it goes on."""
        with self._transaction():
            self._run(_KNOW_SINK, (sink,))
            self._run("UPDATE health SET stopped_ns = ? WHERE sink = ?", (stopped_ns, sink))

    def health(self, sink: str) -> Health:
        """Return how a sink fares."""
        rows = self._rows(
            "SELECT delivered, refused, failures, failing, last_delivered_ns, last_error,"
            " last_error_ns, next_try_ns, stopped_ns, dropped FROM health WHERE sink = ?",
            (sink,),
        )
        if not rows:
            return Health(sink=sink)
        names = Health.__dataclass_fields__.keys() - {"sink"}
        ordered = [name for name in Health.__dataclass_fields__ if name in names]
        return Health(sink=sink, **dict(zip(ordered, rows[0], strict=True)))

    def dead_letters(
        self, sink: str, *, limit: int, queued: bool = False, after: int = 0
    ) -> list[DeadLetter]:
        """Return what a sink refused, oldest first; ``queued`` for those to be tried again.

        ``after`` is the id of the last one that is known.
        """
        rows = self._rows(
            "SELECT id, position, row, event, reason, noted_ns, queued FROM dead_letters"
            " WHERE sink = ? AND queued >= ? AND id > ? ORDER BY id LIMIT ?",
            (sink, int(queued), after, limit),
        )
        return [
            DeadLetter(
                id=row[0],
                position=row[1],
                row=row[2],
                event=row[3],
                reason=row[4],
                noted_ns=row[5],
                queued=bool(row[6]),
            )
            for row in rows
        ]

    def dead_count(self, sink: str) -> int:
        """Return how many refused events are kept for a sink."""
        rows = self._rows("SELECT count(*) FROM dead_letters WHERE sink = ?", (sink,))
        return int(rows[0][0])

    def queue_dead(self, sink: str, ids: Sequence[int] = ()) -> int:
        """Have letters tried again, all or those of ``ids``; return how many were marked."""
        marked = 0
        with self._transaction():
            if not ids:
                sql = "UPDATE dead_letters SET queued = 1 WHERE sink = ?"
                return self._database.run(sql, (sink,))
            for number in ids:
                marked += self._database.run(
                    "UPDATE dead_letters SET queued = 1 WHERE sink = ? AND id = ?", (sink, number)
                )
        return marked

    def drop_dead(self, sink: str, ids: Sequence[int] = ()) -> int:
        """Throw letters away for good, all or those of ``ids``; return how many, counted."""
        with self._transaction():
            if ids:
                gone = sum(
                    self._database.run(
                        "DELETE FROM dead_letters WHERE sink = ? AND id = ?", (sink, number)
                    )
                    for number in ids
                )
            else:
                sql = "DELETE FROM dead_letters WHERE sink = ?"
                gone = self._database.run(sql, (sink,))
            self._run(_KNOW_SINK, (sink,))
            self._run("UPDATE health SET dropped = dropped + ? WHERE sink = ?", (gone, sink))
        return gone

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._database.transaction():
            if self._fence is not None:
                self._fence.check()
            yield

    def _put_cursor(self, sink: str, lane: str, cursor: Cursor) -> None:
        self._run(
            "INSERT INTO lanes VALUES (?, ?, ?, ?, ?) ON CONFLICT (sink, lane) DO UPDATE SET"
            " position = excluded.position, row = excluded.row,"
            " until_position = excluded.until_position",
            (sink, lane, cursor.position, cursor.row, cursor.until_position),
        )

    def _bury(self, sink: str, letters: Sequence[DeadLetter], now_ns: int) -> None:
        for letter in letters:
            self._run(
                "INSERT INTO dead_letters (sink, position, row, event, reason, noted_ns)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (sink, position, row) DO UPDATE SET"
                " reason = excluded.reason, noted_ns = excluded.noted_ns, queued = 0",
                (
                    sink,
                    letter.position,
                    letter.row,
                    _plain(letter.event),
                    _plain(letter.reason),
                    now_ns,
                ),
            )

    def _note_success(self, sink: str, delivered: int, refused: int, now_ns: int) -> None:
        self._run(_KNOW_SINK, (sink,))
        self._run(
            "UPDATE health SET delivered = delivered + ?, refused = refused + ?, failing = 0,"
            " next_try_ns = 0, last_delivered_ns = CASE WHEN ? > 0 THEN ?"
            " ELSE last_delivered_ns END"
            " WHERE sink = ?",
            (delivered, refused, delivered, now_ns, sink),
        )

    def _run(self, sql: str, values: Sequence[object]) -> None:
        self._database.run(sql, values)

    def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        return self._database.rows(sql, values)


class SqliteExports(Exports):
    """The embedded one: a SQLite file."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_exports_rows(path))


def open_exports_rows(path: Path) -> SqliteDatabase:
    """Open the file; its rows as they are, to be copied."""
    connection = open_database(
        path, schema=_SCHEMA, version=VERSION, durability="FULL", upgrades=_UPGRADES
    )
    return SqliteDatabase(connection)


_KNOW_SINK: Final = "INSERT INTO health (sink) VALUES (?) ON CONFLICT DO NOTHING"


def _plain(text: str) -> str:
    """Return what every database takes: a receiver's words may hold anything."""
    kept = text[:REASON_CHARS_MAX].replace("\0", "\ufffd")
    return kept.encode("utf-8", "replace").decode("utf-8")

"""Events for queries, in SQLite: the embedded ``EventIndex``, writing side.

The shape is a column file's, not a table's with an index per column: rows stand
in order of arrival under ``batch position << 20 | row``, texts are numbers of a
dictionary, and a *posting* says that a value occurs in a batch at all. A query
walks the postings from the newest batch back and scans only those batches. So
a row costs one append (about 30 bytes), and a batch a few dozen postings. What is
counted most stands in counts by hour.

Rules: derived from the ledger and nothing else, so it may be lost at any time;
the rows of a batch and the position reached are one transaction, so no batch is
counted twice or missed; the cursor of a page does not depend on the rebuild.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.store.index_search import HOUR_NS, ROLLED, ROW_BITS, Keep, search
from aesp_proxy.aggregator.store.index_stats import count_events
from aesp_proxy.aggregator.store.path_filter import path_bits
from aesp_proxy.aggregator.store.sqlite import open_database, open_reader, transaction, translate
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.canonical import POSITION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from aesp_proxy.aggregator.ports import BatchPlace, EventCount, EventQuery, EventRow

VERSION: Final = 4

KNOWN_TEXTS_MAX: Final = 100_000
CACHE_KIB: Final = 65_536

# Dictionary fields in the order of their columns; those in POSTED also have postings.
TEXT_FIELDS: Final = (
    ("kind", "kind"),
    ("agent", "agent_id"),
    ("host", "target_host"),
    ("verdict", "verdict"),
    ("reason", "reason"),
    ("guard", "guard"),
    ("action", "action"),
    ("outcome", "outcome"),
    ("session", "session_id"),
    ("tenant", "tenant_id"),
)
# No column, postings only: they say which batches may hold it, the records which rows do.
RULE: Final = "rule"
POSTED: Final = frozenset({"kind", "agent", "host", "verdict", "reason", "session", "tenant"})

_SCHEMA: Final = """
CREATE TABLE terms (
    id INTEGER PRIMARY KEY, field TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (field, text)) STRICT;
CREATE TABLE batches (
    position INTEGER PRIMARY KEY, origin TEXT NOT NULL, epoch INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, count INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL) STRICT;
CREATE INDEX batches_by_time ON batches (last_ns, position) WHERE count > 0;
CREATE INDEX batches_by_origin ON batches (origin, last_ns, position) WHERE count > 0;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, offset_ns INTEGER NOT NULL, status INTEGER NOT NULL,
    kind INTEGER NOT NULL, agent INTEGER NOT NULL, host INTEGER NOT NULL,
    verdict INTEGER NOT NULL, reason INTEGER NOT NULL, guard INTEGER NOT NULL,
    action INTEGER NOT NULL, outcome INTEGER NOT NULL, session INTEGER NOT NULL,
    tenant INTEGER NOT NULL) STRICT;
CREATE TABLE postings (
    term INTEGER NOT NULL, last_ns INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (term, last_ns, position)) STRICT, WITHOUT ROWID;
CREATE TABLE paths (position INTEGER PRIMARY KEY, bits BLOB NOT NULL) STRICT;
CREATE TABLE hours (
    hour INTEGER NOT NULL, kind INTEGER NOT NULL, verdict INTEGER NOT NULL,
    reason INTEGER NOT NULL, guard INTEGER NOT NULL, action INTEGER NOT NULL,
    outcome INTEGER NOT NULL, tenant INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (hour, kind, verdict, reason, guard, action, outcome, tenant)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL,
    span_ns_max INTEGER NOT NULL) STRICT;
INSERT INTO progress VALUES (1, 0, 0)
"""
_INSERT_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COUNT_HOUR: Final = (
    "INSERT INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET count = count + excluded.count"
)
_PATH: Final = itemgetter(POSITION["target_path"])
_FINDINGS: Final = itemgetter(POSITION["findings"])
_APPLIED: Final = itemgetter(POSITION["applied_policies"])
_COLUMNS: Final = itemgetter(
    POSITION["time_ns"], POSITION["status"], *(POSITION[field] for _, field in TEXT_FIELDS)
)


class SqliteIndex:
    """The writing side; one process at a time (the caller holds the lock)."""

    def __init__(self, path: Path) -> None:
        # NORMAL: a power cut may take the last transactions, never tear one; they are rebuilt.
        self._connection = open_database(path, schema=_SCHEMA, version=VERSION, durability="NORMAL")
        self._connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._known: dict[str, dict[str, int]] = {
            name: {} for name in (*(name for name, _ in TEXT_FIELDS), RULE)
        }

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def position(self) -> int:
        """Return the position up to which batches are indexed."""
        return _position(self._connection)

    def add(self, batches: Sequence[tuple[BatchPlace, Sequence[Sequence[Any]]]]) -> int:
        """Add batches in order of position, all in one transaction; return rows added.

        Each row holds the values of ``record.canonical.FIELDS``. Batches at or
        before the position reached are left out, so a repeat does no harm.
        """
        added = 0
        try:
            with transaction(self._connection):
                reached = self.position()
                for place, rows in batches:
                    if place.position > reached:
                        self._add_batch(place, rows)
                        reached = place.position
                        added += len(rows)
                self._connection.execute("UPDATE progress SET position = ?", (reached,))
        except BaseException:
            # Numbers given to texts in the undone transaction are not in the file.
            self._forget()
            raise
        return added

    def find(self, query: EventQuery) -> list[EventRow]:
        """Return matching events, newest first."""
        return search(self._connection, query)

    def _add_batch(self, place: BatchPlace, rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            self._add_place(place, 0, 0, 0)
            return
        times, statuses, *texts = zip(*map(_COLUMNS, rows), strict=True)
        first_ns, last_ns = min(times), max(times)
        self._add_place(place, len(rows), first_ns, last_ns)
        terms: list[Iterable[int]] = []
        known: dict[str, dict[str, int]] = {}
        for (name, _), column in zip(TEXT_FIELDS, texts, strict=True):
            found = set(column)
            numbers = known[name] = self._numbers(name, found)
            # Most columns of a batch hold one value: kind, session, tenant, guard.
            alone = repeat(numbers[column[0]], len(column)) if len(found) == 1 else None
            terms.append(alone or map(numbers.__getitem__, column))
            if name in POSTED:
                self._post([numbers[text] for text in found], last_ns, place)
        rules = _rules(rows)
        if rules:
            numbers = self._numbers(RULE, rules)
            self._post([numbers[rule] for rule in rules], last_ns, place)
        paths = set(map(_PATH, rows)) - {""}
        if paths:
            self._connection.execute(
                "INSERT INTO paths VALUES (?, ?)", (place.position, path_bits(paths))
            )
        self._count_hours(times, dict(zip(known, texts, strict=True)), known)
        base = place.position << ROW_BITS
        self._connection.executemany(
            _INSERT_EVENT,
            zip(
                range(base, base + len(rows)),
                [time_ns - first_ns for time_ns in times],
                statuses,
                *terms,
                strict=True,
            ),
        )

    def _count_hours(
        self,
        times: Sequence[int],
        columns: dict[str, Sequence[str]],
        known: dict[str, dict[str, int]],
    ) -> None:
        """Add the batch to the counts by hour, so that counts over days scan no rows."""
        hours = [time_ns // HOUR_NS for time_ns in times]
        counts = Counter(zip(hours, *(columns[name] for name in ROLLED), strict=True))
        self._connection.executemany(
            _COUNT_HOUR,
            [
                (
                    hour,
                    *(known[name][text] for name, text in zip(ROLLED, texts, strict=True)),
                    count,
                )
                for (hour, *texts), count in counts.items()
            ],
        )

    def _post(self, numbers: Iterable[int], last_ns: int, place: BatchPlace) -> None:
        self._connection.executemany(
            "INSERT INTO postings VALUES (?, ?, ?)",
            [(number, last_ns, place.position) for number in numbers],
        )

    def _add_place(self, place: BatchPlace, count: int, first_ns: int, last_ns: int) -> None:
        self._connection.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)",
            (place.position, place.origin, place.epoch, place.first_seq, count, first_ns, last_ns),
        )
        self._connection.execute(
            "UPDATE progress SET span_ns_max = max(span_ns_max, ?)", (last_ns - first_ns,)
        )

    def _numbers(self, name: str, texts: set[str]) -> dict[str, int]:
        known = self._known[name]
        missing = texts - known.keys()
        if missing:
            if len(known) + len(missing) > KNOWN_TEXTS_MAX:
                known = self._known[name] = {}
                missing = texts
            self._connection.executemany(
                "INSERT OR IGNORE INTO terms (field, text) VALUES (?, ?)",
                [(name, text) for text in sorted(missing)],
            )
            for text in missing:
                known[text] = self._connection.execute(
                    "SELECT id FROM terms WHERE field = ? AND text = ?", (name, text)
                ).fetchone()[0]
        return known

    def _forget(self) -> None:
        for known in self._known.values():
            known.clear()


class SqliteIndexReader:
    """The reading side, for any process; ``deadline`` says when a query has run too long."""

    def __init__(self, path: Path, *, expired: Callable[[], bool] = lambda: False) -> None:
        self._connection = open_reader(path)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            self._connection.close()
            raise ConfigError(
                f"has layout {version}, this program knows {VERSION}",
                where=str(path),
                remedy="run aesp-proxy aggregator reindex",
            )
        self._connection.set_progress_handler(expired, 20_000)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def position(self) -> int:
        """Return the position up to which batches are indexed."""
        return _position(self._connection)

    def count(self, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
        """Return how many matching events there are by ``by``; UnavailableError when too slow."""
        try:
            return count_events(self._connection, query, by)
        except sqlite3.Error as error:
            raise translate(error) from error

    def find(self, query: EventQuery, keep: Keep | None = None) -> list[EventRow]:
        """Return matching events, newest first; UnavailableError when it took too long."""
        try:
            return search(self._connection, query, keep)
        except sqlite3.Error as error:
            raise translate(error) from error


def _rules(rows: Sequence[Sequence[Any]]) -> set[str]:
    """Return the rules that found something or applied in a batch."""
    applied = set(chain.from_iterable(map(_APPLIED, rows)))
    return applied | {finding[0] for finding in chain.from_iterable(map(_FINDINGS, rows))}


def _position(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT position FROM progress").fetchone()[0])

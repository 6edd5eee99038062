"""Events for queries, in SQLite: the embedded ``EventIndex``, writing side.

The shape is a column file's, not a table's with an index per column: rows stand
in order of arrival under ``batch position << 20 | row``, texts are numbers of a
dictionary, and a *posting* says that a value occurs in a batch at all. A query
walks the postings from the newest batch back and scans only those batches. What
takes few values (status, verdict, reason and the like) takes few combinations too: each
is a *shape* with a number, and a row has that. So a row costs one append (about 25
bytes), and a batch a few dozen postings. What is counted most stands in counts by hour.

Rules: derived from the ledger and nothing else, so it may be lost at any time;
the rows of a batch and the position reached are one transaction, so no batch is
counted twice or missed; the cursor of a page does not depend on the rebuild.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.store.index_search import (
    HOUR_NS,
    ROLLED,
    ROW_BITS,
    SHAPED,
    Keep,
    search,
)
from aesp_proxy.aggregator.store.index_stats import count_events
from aesp_proxy.aggregator.store.path_filter import path_bits
from aesp_proxy.aggregator.store.sqlite import open_database, open_reader, transaction, translate
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.canonical import POSITION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from aesp_proxy.aggregator.ports import BatchPlace, EventCount, EventQuery, EventRow

VERSION: Final = 5

INSERT_ROWS: Final = 100
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
_NAMES: Final = ("status", *(name for name, _ in TEXT_FIELDS))
_ROW_TEXTS: Final = ("agent", "host", "session")
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
CREATE TABLE shapes (
    shape INTEGER PRIMARY KEY, status INTEGER NOT NULL, kind INTEGER NOT NULL,
    verdict INTEGER NOT NULL, reason INTEGER NOT NULL, guard INTEGER NOT NULL,
    action INTEGER NOT NULL, outcome INTEGER NOT NULL, tenant INTEGER NOT NULL,
    UNIQUE (status, kind, verdict, reason, guard, action, outcome, tenant)) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, offset_ns INTEGER NOT NULL, shape INTEGER NOT NULL,
    agent INTEGER NOT NULL, host INTEGER NOT NULL, session INTEGER NOT NULL) STRICT;
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
_COLUMNS_COUNT: Final = 6
_INSERT_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_EVENTS: Final = _INSERT_EVENT + ", (?, ?, ?, ?, ?, ?)" * (INSERT_ROWS - 1)
_INSERT_SHAPE: Final = (
    "INSERT INTO shapes (status, kind, verdict, reason, guard, action, outcome, tenant)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_FIND_SHAPE: Final = (
    "SELECT shape FROM shapes WHERE status = ? AND kind = ? AND verdict = ? AND reason = ?"
    " AND guard = ? AND action = ? AND outcome = ? AND tenant = ?"
)
_COUNT_HOUR: Final = (
    "INSERT INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET count = count + excluded.count"
)
_COLUMNS: Final = itemgetter(
    *(POSITION[name] for name in ("time_ns", "target_path", "applied_policies", "findings")),
    *(POSITION[name] for name in ("status", *(field for _, field in TEXT_FIELDS))),
)


_Key = tuple[Any, ...]


class SqliteIndex:
    """The writing side; one process at a time (the caller holds the lock)."""

    def __init__(self, path: Path) -> None:
        # NORMAL: a power cut may take the last transactions, never tear one; they are rebuilt.
        self._connection = open_database(path, schema=_SCHEMA, version=VERSION, durability="NORMAL")
        self._connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._known: dict[str, dict[str, int]] = {
            name: {} for name in (*(name for name, _ in TEXT_FIELDS), RULE)
        }
        self._shapes: dict[tuple[int, ...], int] = {}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def position(self) -> int:
        """Return the position up to which batches are indexed."""
        return _position(self._connection)

    def add(self, batches: Iterable[tuple[BatchPlace, Sequence[Sequence[Any]]]]) -> int:
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
        times, paths, applied, findings, *columns = zip(*map(_COLUMNS, rows), strict=True)
        first_ns, last_ns = min(times), max(times)
        self._add_place(place, len(rows), first_ns, last_ns)
        batch = dict(zip(_NAMES, columns, strict=True))
        texts = {name: set(batch[name]) for name, _ in TEXT_FIELDS}
        numbers = {name: self._numbers(name, found) for name, found in texts.items()}
        found = [numbers[name][text] for name in POSTED for text in texts[name]]
        rules = _rules(applied, findings)
        if rules:
            known = self._numbers(RULE, rules)
            found += [known[rule] for rule in rules]
        self._post(found, last_ns, place)
        self._keep_paths(set(paths) - {""}, place)
        base = place.position << ROW_BITS
        self._insert(
            zip(
                range(base, base + len(rows)),
                [time_ns - first_ns for time_ns in times],
                self._shaped(times, batch, numbers),
                *(map(numbers[name].__getitem__, batch[name]) for name in _ROW_TEXTS),
                strict=True,
            )
        )

    def _insert(self, events: Iterable[tuple[int, ...]]) -> None:
        """Insert rows, many with one statement: each statement costs as much as a row."""
        rest = list(chain.from_iterable(events))
        whole = len(rest) - len(rest) % (_COLUMNS_COUNT * INSERT_ROWS)
        for at in range(0, whole, _COLUMNS_COUNT * INSERT_ROWS):
            self._connection.execute(_INSERT_EVENTS, rest[at : at + _COLUMNS_COUNT * INSERT_ROWS])
        self._connection.executemany(
            _INSERT_EVENT,
            (rest[at : at + _COLUMNS_COUNT] for at in range(whole, len(rest), _COLUMNS_COUNT)),
        )

    def _shaped(
        self,
        times: Sequence[int],
        batch: Mapping[str, Sequence[Any]],
        numbers: dict[str, dict[str, int]],
    ) -> Iterable[int]:
        """Return the shape of each row, and count the batch by hour.

        Most columns of a batch hold one value: only the others make a difference here.
        """
        varied = [name for name in SHAPED if len(set(batch[name])) > 1]
        keys = list(zip(*(batch[name] for name in varied), strict=True)) or [()] * len(times)
        alone = {name: batch[name][0] for name in SHAPED}
        shapes: dict[_Key, int] = {}
        counts: Counter[tuple[int, ...]] = Counter()
        for (hour, key), count in _by_hour(times, keys):
            values = alone | dict(zip(varied, key, strict=True))
            rolled = tuple(numbers[name][values[name]] for name in ROLLED)
            counts[(hour, *rolled)] += count
            if key not in shapes:
                shapes[key] = self._shape((values["status"], *rolled))
        self._connection.executemany(
            _COUNT_HOUR, [(*hour_and_rolled, count) for hour_and_rolled, count in counts.items()]
        )
        return map(shapes.__getitem__, keys)

    def _shape(self, values: tuple[int, ...]) -> int:
        """Return the number of a combination of ``SHAPED``."""
        known = self._shapes.get(values)
        if known is None:
            if len(self._shapes) >= KNOWN_TEXTS_MAX:
                self._shapes.clear()
            self._connection.execute(_INSERT_SHAPE, values)
            known = int(self._connection.execute(_FIND_SHAPE, values).fetchone()[0])
            self._shapes[values] = known
        return known

    def _keep_paths(self, paths: set[str], place: BatchPlace) -> None:
        if paths:
            self._connection.execute(
                "INSERT INTO paths VALUES (?, ?)", (place.position, path_bits(paths))
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
        self._shapes.clear()
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


def _by_hour(times: Sequence[int], keys: Sequence[_Key]) -> Iterable[tuple[tuple[int, _Key], int]]:
    """Return how often each (hour, key) is there; most batches lie in one hour."""
    first, last = min(times) // HOUR_NS, max(times) // HOUR_NS
    if first == last:
        return [((first, key), count) for key, count in Counter(keys).items()]
    hours = (time_ns // HOUR_NS for time_ns in times)
    return Counter(zip(hours, keys, strict=True)).items()


def _rules(applied: Iterable[Sequence[str]], findings: Iterable[Sequence[Any]]) -> set[str]:
    """Return the rules that found something or applied in a batch."""
    found = {finding[0] for finding in chain.from_iterable(findings)}
    return found.union(*set(map(tuple, applied)))


def _position(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT position FROM progress").fetchone()[0])

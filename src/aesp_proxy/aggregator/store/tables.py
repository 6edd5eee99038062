"""The rows of the stores as they are, to be copied from one database into another.

Columns are those of both layouts (SQLite and PostgreSQL). Rules: batches go in the order of
their positions and a block of them is one transaction, so what is there is a beginning of what
is to come; everything else is replaced whole, in one transaction a store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.store.database import Database

ROWS_AT_ONCE: Final = 100
_BATCHES: Final = (
    "position, origin, batch_no, epoch, first_seq, count, header_hash, header, signature,"
    " batch_bytes, received_ns"
)
# Fences are no part of it: who held a lease on the old stores writes nothing to the new ones.
TABLES: Final[dict[str, dict[str, str]]] = {
    "ledger": {
        "heads": "origin, head",
        "rotations": "origin, from_batch, key_id, public_key",
        "notices": "origin, batch_no, notice, detail, noted_ns",
        "receipts": "origin, batch_no, receipt",
    },
    "control": {
        "origins": "name, enrolled_ns, key_id, public_key, quarantined_ns, quarantine_reason",
        "origin_tenants": "origin, tenant",
        "origin_labels": "origin, name, value",
        "certificates": "fingerprint, role, name, issued_ns, not_after_ns, revoked_ns",
        "evidence": "origin, batch_no, kind, stored_key, offered_key, noted_ns",
        "refusals": "origin, kind, count, first_ns, last_ns",
        "tokens": "fingerprint, made_ns, expires_ns, origin, tenants, labels, used_ns, used_by,"
        " request, certificate",
    },
    "exports": {
        "lanes": 'sink, lane, position, "row", until_position',
        "dead_letters": 'id, sink, position, "row", event, reason, noted_ns, queued',
        "health": "sink, delivered, refused, failures, failing, last_delivered_ns, last_error,"
        " last_error_ns, next_try_ns, stopped_ns, dropped",
    },
}
"""The tables of each store but ``batches``, in an order in which each may refer to the last."""


def batch_rows(source: Database, after: int, *, limit: int) -> list[Any]:
    """Return rows of batches behind a position, in order; the position stands first."""
    return source.rows(
        f"SELECT {_BATCHES} FROM batches WHERE position > ? ORDER BY position LIMIT ?",  # noqa: S608
        (after, limit),
    )


def newest_batch(database: Database) -> tuple[int, int, bytes]:
    """Return how many batches there are, the newest one's position and its header's hash."""
    (count,) = database.rows("SELECT count(*) FROM batches")[0]
    rows = database.rows("SELECT position, header_hash FROM batches ORDER BY position DESC LIMIT 1")
    position, header_hash = rows[0] if rows else (0, b"")
    return int(count), int(position), bytes(header_hash)


def is_beginning_of(target: Database, source: Database) -> bool:
    """Whether the target's batches are the first of the source's."""
    count, position, header_hash = newest_batch(target)
    if not count:
        return not target.rows("SELECT 1 FROM heads WHERE head IS NOT NULL LIMIT 1")
    (same,) = source.rows("SELECT count(*) FROM batches WHERE position <= ?", (position,))[0]
    rows = source.rows("SELECT header_hash FROM batches WHERE position = ?", (position,))
    return same == count and bool(rows) and bytes(rows[0][0]) == header_hash


def add_batches(target: Database, rows: Sequence[Any], *, is_remote: bool) -> None:
    """Add a block of batches, all or none; durable on return."""
    with target.transaction():
        _insert(target, "batches", _BATCHES, rows)
        if is_remote:  # SQLite counts its positions by itself
            target.run("UPDATE positions SET last = ?", (rows[-1][0],))


def replace_tables(source: Database, target: Database, store: str, *, is_remote: bool) -> None:
    """Make the tables of a store but ``batches`` what they are in the source, all or none."""
    names = TABLES[store]
    read = {name: _rows(source, name) for name in names}
    with target.transaction():
        for name in reversed(names):
            target.run(f"DELETE FROM {name}")  # noqa: S608
        for name, columns in names.items():
            _insert(target, name, columns, read[name], is_remote=is_remote)
        if is_remote and read.get("dead_letters"):
            target.rows(
                "SELECT setval(pg_get_serial_sequence('dead_letters', 'id'), ?)",
                (max(row[0] for row in read["dead_letters"]),),
            )


def check_same(source: Database, target: Database, store: str) -> int:
    """Check that the tables of a store hold the same; RecordError. Return how many rows."""
    total = 0
    for name in TABLES[store]:
        theirs, ours = (_compared(database, name) for database in (source, target))
        if theirs != ours:
            raise RecordError(
                f"{name}: {len(theirs)} rows there, {len(ours)} here, and not the same",
                where=store,
                remedy="run the copy again while nothing serves",
            )
        total += len(ours)
    if store == "ledger" and newest_batch(source) != newest_batch(target):
        raise RecordError(
            "batches came while they were copied", where=store, remedy="stop all, and run it again"
        )
    return total


def _compared(database: Database, name: str) -> list[tuple[Any, ...]]:
    rows = [_plain(row) for row in _rows(database, name)]
    if name == "evidence":  # the stored batch may have another key where it is now
        rows = [row[:3] + row[4:] for row in rows]
    return sorted(rows, key=repr)


def _rows(database: Database, name: str) -> list[Any]:
    columns = next(tables[name] for tables in TABLES.values() if name in tables)
    # An origin that is locked before its first batch has a row without a head in PostgreSQL.
    kept = " WHERE head IS NOT NULL" if name == "heads" else ""
    return database.rows(f"SELECT {columns} FROM {name}{kept}")  # noqa: S608


def _plain(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row)


def _insert(
    target: Database, name: str, columns: str, rows: Sequence[Any], *, is_remote: bool = False
) -> None:
    given = " OVERRIDING SYSTEM VALUE" if is_remote and name == "dead_letters" else ""
    marks = f"({', '.join('?' * len(columns.split(',')))})"
    for at in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[at : at + ROWS_AT_ONCE]
        target.run(
            f"INSERT INTO {name} ({columns}){given} VALUES {', '.join([marks] * len(some))}",  # noqa: S608
            [cell for row in some for cell in _plain(row)],
        )

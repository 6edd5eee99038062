"""The batches as they came, and their headers in SQLite: the embedded ``BatchLedger``.

Rules: bytes first, header second, promise last. :meth:`SqliteLedger.append`
returns when the batch files, their directories and the header rows would all
survive a power cut (``synchronous=FULL``), and only then may a receipt be
signed. What a crash left between the two was never promised and is removed at
the next start: the host still has it. A directory ``batches/ORIGIN`` is a
chain that ``audit verify`` checks by itself, without this database.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.ports import (
    BatchPlace,
    NotedBatch,
    Notice,
    SignedHeader,
    batch_key,
    key_in,
)
from aesp_proxy.aggregator.store.sqlite import (
    SqliteDatabase,
    open_database,
    open_reader,
    transaction,
)
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.head import Head, decode_head, encode_head
from aesp_proxy.record.keyring import Rotation
from aesp_proxy.record.signature import key_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from aesp_proxy.aggregator.ports import AcceptedBatch, ObjectStore
    from aesp_proxy.aggregator.store.database import Database

VERSION: Final = 1
APPEND_BATCHES_MAX: Final = 64
"""Most batches of one append; also how far past a head a crash may leave files."""
HEADS_KEPT_MAX: Final = 10_000

_SCHEMA: Final = """
CREATE TABLE batches (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    origin TEXT NOT NULL, batch_no INTEGER NOT NULL,
    epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, count INTEGER NOT NULL,
    header_hash BLOB NOT NULL, header BLOB NOT NULL, signature BLOB NOT NULL,
    batch_bytes INTEGER NOT NULL, received_ns INTEGER NOT NULL,
    UNIQUE (origin, batch_no)) STRICT;
CREATE INDEX batches_by_seq ON batches (origin, epoch, first_seq) WHERE count > 0;
CREATE TABLE heads (origin TEXT PRIMARY KEY, head BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE rotations (
    origin TEXT NOT NULL, from_batch INTEGER NOT NULL, key_id TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL, PRIMARY KEY (origin, from_batch)) STRICT, WITHOUT ROWID;
CREATE TABLE notices (
    origin TEXT NOT NULL, batch_no INTEGER NOT NULL, notice TEXT NOT NULL,
    detail TEXT NOT NULL, noted_ns INTEGER NOT NULL,
    PRIMARY KEY (origin, batch_no, notice)) STRICT, WITHOUT ROWID;
CREATE TABLE receipts (
    origin TEXT PRIMARY KEY, batch_no INTEGER NOT NULL, receipt BLOB NOT NULL
    ) STRICT, WITHOUT ROWID
"""
_PLACE_COLUMNS: Final = (
    "position, origin, batch_no, epoch, first_seq, count, header_hash, received_ns"
)


class LedgerReader:
    """The reading side, for any process."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def head(self, origin: str) -> Head | None:
        """Return the origin's last contiguous durable batch, None when it has none."""
        rows = self._rows("SELECT head FROM heads WHERE origin = ?", (origin,))
        return stored_head(origin, rows[0][0]) if rows and rows[0][0] is not None else None

    def find(self, origin: str, batch_no: int) -> BatchPlace | None:
        """Return where a stored batch is."""
        places = self._places("WHERE origin = ? AND batch_no = ?", (origin, batch_no))
        return places[0] if places else None

    def read(self, place: BatchPlace) -> bytes:
        """Return the encoded batch as it came."""
        return self._objects.get(place.key_in(self._objects))

    def after(self, position: int, *, limit: int) -> list[BatchPlace]:
        """Return stored batches that arrived after ``position``, in order of arrival."""
        return self._places("WHERE position > ? ORDER BY position LIMIT ?", (position, limit))

    def headers_after(self, position: int, *, limit: int) -> list[SignedHeader]:
        """Return what :meth:`after` does, each with the header and signature of its batch."""
        rows = self._rows(
            f"SELECT {_PLACE_COLUMNS}, header, signature FROM batches"  # noqa: S608 - constant
            " WHERE position > ? ORDER BY position LIMIT ?",
            (position, limit),
        )
        return [
            SignedHeader(place=_place(row), header=bytes(row[8]), signature=bytes(row[9]))
            for row in rows
        ]

    def holding(self, origin: str, epoch: int, seq: int) -> BatchPlace | None:
        """Return the batch that holds an event."""
        places = self._places(
            "WHERE origin = ? AND epoch = ? AND first_seq <= ? AND count > 0"
            " ORDER BY first_seq DESC LIMIT 1",
            (origin, epoch, seq),
        )
        return places[0] if places and seq < places[0].first_seq + places[0].count else None

    def last_position(self) -> int:
        """Return the newest position, 0 when empty."""
        return int(self._rows("SELECT coalesce(max(position), 0) FROM batches", ())[0][0])

    def last_batch(self, origin: str) -> BatchPlace | None:
        """Return the origin's newest stored batch."""
        places = self._places("WHERE origin = ? ORDER BY batch_no DESC LIMIT 1", (origin,))
        return places[0] if places else None

    def totals(self, origin: str) -> tuple[int, int, int]:
        """Return how many batches, records and bytes are stored for an origin."""
        row = self._rows(
            "SELECT count(*), coalesce(sum(count), 0), coalesce(sum(batch_bytes), 0)"
            " FROM batches WHERE origin = ?",
            (origin,),
        )[0]
        return int(row[0]), int(row[1]), int(row[2])

    def receipt(self, origin: str) -> bytes | None:
        """Return the newest receipt kept for an origin."""
        rows = self._rows("SELECT receipt FROM receipts WHERE origin = ?", (origin,))
        return bytes(rows[0][0]) if rows else None

    def rotations(self, origin: str) -> tuple[Rotation, ...]:
        """Return the keys that stored batches have named, in order."""
        rows = self._rows(
            "SELECT from_batch, public_key FROM rotations WHERE origin = ? ORDER BY from_batch",
            (origin,),
        )
        return tuple(Rotation(from_batch=row[0], public_key=row[1]) for row in rows)

    def notices(self, origin: str) -> list[NotedBatch]:
        """Return what was noted about an origin's batches, in order."""
        rows = self._rows(
            "SELECT origin, batch_no, notice, detail, noted_ns FROM notices"
            " WHERE origin = ? ORDER BY batch_no, notice",
            (origin,),
        )
        return [
            NotedBatch(
                origin=row[0],
                batch_no=row[1],
                notice=Notice(row[2]),
                detail=row[3],
                noted_ns=row[4],
            )
            for row in rows
        ]

    def _places(self, where: str, values: Sequence[object]) -> list[BatchPlace]:
        sql = f"SELECT {_PLACE_COLUMNS} FROM batches "  # noqa: S608 - constant
        return [_place(row) for row in self._rows(sql + where, values)]

    def rotated_owner(self, key_id: str) -> str | None:
        """Return the origin whose stored batches have named a key."""
        rows = self._rows("SELECT origin FROM rotations WHERE key_id = ?", (key_id,))
        return str(rows[0][0]) if rows else None

    def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        return self._database.rows(sql, values)


def stored_head(origin: str, head: bytes) -> Head:
    """Decode a head as it is stored; ConfigError when it is damaged."""
    try:
        return decode_head(head)
    except ChainError as error:
        raise ConfigError(
            f"the head of {origin!r} is damaged: {error.message}",
            remedy="restore the ledger from a backup",
        ) from error


def open_ledger_rows(path: Path) -> SqliteDatabase:
    """Open the rows as they are, to be copied."""
    return SqliteDatabase(open_database(path, schema=_SCHEMA, version=VERSION, durability="FULL"))


class SqliteLedger(LedgerReader):
    """The writing side; one in the whole data directory (the caller holds the lock)."""

    def __init__(self, path: Path, objects: ObjectStore) -> None:
        connection = open_database(path, schema=_SCHEMA, version=VERSION, durability="FULL")
        super().__init__(SqliteDatabase(connection), objects)
        self._connection = connection
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._receipts: dict[str, tuple[int, bytes]] = {}
        self._rotations: dict[str, tuple[Rotation, ...]] = {}
        for origin, from_batch, public_key in self._rows(
            "SELECT origin, from_batch, public_key FROM rotations ORDER BY origin, from_batch", ()
        ):
            rotation = Rotation(public_key=public_key, from_batch=from_batch)
            self._rotations[origin] = (*self._rotations.get(origin, ()), rotation)

    def close(self) -> None:
        """Keep the receipts not yet written, then close the file."""
        if self._receipts:
            with transaction(self._connection):
                self._write_receipts()
        super().close()

    def head(self, origin: str) -> Head | None:
        """Return the origin's last contiguous durable batch, None when it has none."""
        if origin in self._heads:
            self._heads.move_to_end(origin)
            return self._heads[origin]
        head = super().head(origin)
        if head is not None:
            self._keep_head(head)
        return head

    def rotations(self, origin: str) -> tuple[Rotation, ...]:
        """Return the keys that stored batches have named, in order."""
        return self._rotations.get(origin, ())

    @contextmanager
    def held(self, origins: Iterable[str]) -> Iterator[frozenset[str]]:
        """Have ``origins`` to ourselves: all of them, for here is one writer."""
        yield frozenset(origins)

    def append(self, batches: Sequence[AcceptedBatch]) -> None:
        """Store at most ``APPEND_BATCHES_MAX`` batches, all or none; RecordError otherwise.

        On return all are durable: files, directories, header rows and heads.
        """
        if len(batches) > APPEND_BATCHES_MAX:
            raise ValueError(f"{len(batches)} batches in one append")
        self._objects.put_all(
            [
                (key_in(self._objects, b.head.origin, b.head.batch_no, b.head.header_hash), b.data)
                for b in batches
            ]
        )
        heads = {batch.head.origin: batch.head for batch in batches}
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO batches (origin, batch_no, epoch, first_seq, count, header_hash,"
                " header, signature, batch_bytes, received_ns) VALUES (?,?,?,?,?,?,?,?,?,?)",
                [header_row(batch) for batch in batches],
            )
            self._connection.executemany(
                "INSERT INTO heads VALUES (?, ?) ON CONFLICT DO UPDATE SET head = excluded.head",
                [(origin, encode_head(head)) for origin, head in heads.items()],
            )
            self._write_rotations(batches)
            self._write_notices(batches)
            self._write_receipts()
        self._receipts.clear()
        for batch in batches:
            if batch.rotations:
                held = self._rotations.get(batch.head.origin, ())
                self._rotations[batch.head.origin] = (*held, *batch.rotations)
        for head in heads.values():
            self._keep_head(head)

    def keep_receipt(self, origin: str, batch_no: int, receipt: bytes) -> None:
        """Keep the newest receipt given out; durable with the next append or close."""
        self._receipts[origin] = (batch_no, receipt)

    def remove_unpromised(self, origins: Sequence[str]) -> int:
        """Delete files past each head that a crash left behind; return how many.

        None where keys carry a hash: nothing comes to lie upon them, and another
        aggregator may be about to promise them.
        """
        if self._objects.by_hash:
            return 0
        removed = 0
        for origin in origins:
            head = self.head(origin)
            first = 1 if head is None else head.batch_no + 1
            numbers = range(first, first + APPEND_BATCHES_MAX)
            removed += self._objects.remove_all([batch_key(origin, number) for number in numbers])
        return removed

    def _keep_head(self, head: Head) -> None:
        self._heads[head.origin] = head
        self._heads.move_to_end(head.origin)
        if len(self._heads) > HEADS_KEPT_MAX:
            self._heads.popitem(last=False)

    def _write_rotations(self, batches: Sequence[AcceptedBatch]) -> None:
        self._connection.executemany(
            "INSERT INTO rotations VALUES (?, ?, ?, ?)",
            [
                (
                    batch.header.origin,
                    rotation.from_batch,
                    key_id_of(rotation.public_key),
                    rotation.public_key,
                )
                for batch in batches
                for rotation in batch.rotations
            ],
        )

    def _write_notices(self, batches: Sequence[AcceptedBatch]) -> None:
        self._connection.executemany(
            "INSERT INTO notices VALUES (?, ?, ?, ?, ?)",
            [
                (batch.header.origin, batch.header.batch_no, notice, detail, batch.received_ns)
                for batch in batches
                for notice, detail in batch.notices
            ],
        )

    def _write_receipts(self) -> None:
        self._connection.executemany(
            "INSERT INTO receipts VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET batch_no = excluded.batch_no, receipt = excluded.receipt",
            [(origin, number, receipt) for origin, (number, receipt) in self._receipts.items()],
        )


def open_ledger_reader(path: Path, objects: ObjectStore) -> LedgerReader:
    """Open the ledger for reading only; ConfigError when it is missing."""
    return LedgerReader(SqliteDatabase(open_reader(path)), objects)


def _place(row: Sequence[Any]) -> BatchPlace:
    return BatchPlace(
        position=row[0],
        origin=row[1],
        batch_no=row[2],
        epoch=row[3],
        first_seq=row[4],
        count=row[5],
        header_hash=row[6],
        received_ns=row[7],
    )


def header_row(batch: AcceptedBatch) -> tuple[object, ...]:
    """Return the columns of ``batches`` after the position."""
    header = batch.header
    return (
        header.origin,
        header.batch_no,
        header.epoch,
        header.first_seq,
        header.count,
        batch.head.header_hash,
        batch.sealed.header_bytes,
        batch.sealed.signature,
        len(batch.data),
        batch.received_ns,
    )

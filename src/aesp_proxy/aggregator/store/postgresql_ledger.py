"""The ledger in PostgreSQL, for several aggregators that write at once: a ``BatchLedger``.

An origin's row in ``heads`` is locked while a batch of it is judged and stored, on one
connection and in one transaction, so whoever got which batch first, the second sees it. A
row that another has is passed over: its hosts are told to come again, nobody waits. The
counter of positions is changed last, together with the commit and without a round trip
between, so it is held no longer than the commit takes. When that connection is gone the
block has failed, for the locks are gone too.

Rules: bytes first, rows second, promise last, as in the embedded ledger; nothing read is
kept from one block to the next.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg

from aesp_proxy.aggregator.ports import key_in
from aesp_proxy.aggregator.store.ledger import (
    APPEND_BATCHES_MAX,
    LedgerReader,
    header_row,
    stored_head,
)
from aesp_proxy.aggregator.store.postgresql import (
    PostgresDatabase,
    Server,
    roll_back,
    statement,
    translate,
)
from aesp_proxy.errors import RecordError
from aesp_proxy.record.head import encode_head
from aesp_proxy.record.keyring import Rotation
from aesp_proxy.record.signature import key_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aesp_proxy.aggregator.ports import AcceptedBatch, ObjectStore
    from aesp_proxy.record.head import Head

_MAKE_ROWS: Final = "INSERT INTO heads (origin) SELECT unnest(?::text[]) ON CONFLICT DO NOTHING"
_LOCK_ROWS: Final = (
    "SELECT origin, head FROM heads WHERE origin = ANY(?::text[])"
    " ORDER BY origin FOR UPDATE SKIP LOCKED"
)
_NAMED_KEYS: Final = (
    "SELECT origin, from_batch, public_key FROM rotations"
    " WHERE origin = ANY(?::text[]) ORDER BY origin, from_batch"
)
_COUNT_ON: Final = "UPDATE positions SET last = last + ?::bigint"
_ADD_BATCHES: Final = (
    "INSERT INTO batches (position, origin, batch_no, epoch, first_seq, count, header_hash,"
    " header, signature, batch_bytes, received_ns)"
    " SELECT positions.last - ?::bigint + new.place, origin, batch_no, epoch, first_seq, count,"
    " header_hash, header, signature, batch_bytes, received_ns FROM positions,"
    " unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[],"
    " ?::bytea[], ?::bytea[], ?::bigint[], ?::bigint[]) WITH ORDINALITY AS new(origin, batch_no,"
    " epoch, first_seq, count, header_hash, header, signature, batch_bytes, received_ns, place)"
)
_SET_HEADS: Final = (
    "UPDATE heads SET head = new.head FROM unnest(?::text[], ?::bytea[]) AS new(origin, head)"
    " WHERE heads.origin = new.origin"
)
_ADD_ROTATIONS: Final = (
    "INSERT INTO rotations SELECT * FROM unnest(?::text[], ?::bigint[], ?::text[], ?::bytea[])"
)
_ADD_NOTICES: Final = (
    "INSERT INTO notices"
    " SELECT * FROM unnest(?::text[], ?::bigint[], ?::text[], ?::text[], ?::bigint[])"
)
_SET_RECEIPTS: Final = (
    "INSERT INTO receipts SELECT * FROM unnest(?::text[], ?::bigint[], ?::bytea[])"
    " ON CONFLICT (origin) DO UPDATE SET batch_no = excluded.batch_no, receipt = excluded.receipt"
    " WHERE receipts.batch_no <= excluded.batch_no"
)


class PostgresLedger(LedgerReader):
    """The writing side; one thread at a time, as many aggregators as there are."""

    def __init__(self, server: Server, objects: ObjectStore) -> None:
        super().__init__(PostgresDatabase(server, name="ledger"), objects)
        self._server = server
        self._writing: psycopg.Connection[Any] = server.take()
        self._block: _Block | None = None
        self._made: set[str] = set()
        self._receipts: dict[str, tuple[int, bytes]] = {}

    def close(self) -> None:
        """Keep the receipts not yet written, then close."""
        try:
            if self._receipts:
                with self._database.transaction():
                    self._database.run(_SET_RECEIPTS, _columns(_receipt_rows(self._receipts)))
        finally:
            self._server.give_back(self._writing)
            super().close()

    @contextmanager
    def held(self, origins: Iterable[str]) -> Iterator[frozenset[str]]:
        """Have those of ``origins`` to ourselves that no other aggregator has just now."""
        names = sorted(origins)
        self._make_rows(names)
        self._block = self._lock(names)
        try:
            yield frozenset(self._block.heads)
        finally:
            self._block = None
            roll_back(self._writing)

    def head(self, origin: str) -> Head | None:
        """Return the origin's last contiguous durable batch, None when it has none."""
        if self._block is not None and origin in self._block.heads:
            return self._block.heads[origin]
        return super().head(origin)

    def rotations(self, origin: str) -> tuple[Rotation, ...]:
        """Return the keys that stored batches have named, in order."""
        if self._block is not None and origin in self._block.heads:
            return self._block.rotations.get(origin, ())
        return super().rotations(origin)

    def append(self, batches: Sequence[AcceptedBatch]) -> None:
        """Store batches, all or none; RecordError or UnavailableError otherwise.

        In a block of :meth:`held`, which has their origins; it ends the block's locks.
        """
        if len(batches) > APPEND_BATCHES_MAX:
            raise ValueError(f"{len(batches)} batches in one append")
        if self._block is None:
            with self.held({batch.header.origin for batch in batches}):
                self.append(batches)
            return
        if not self._block.heads.keys() >= {batch.header.origin for batch in batches}:
            raise RecordError("another aggregator has a batch of this host in hand")
        self._objects.put_all(
            [
                (key_in(self._objects, b.head.origin, b.head.batch_no, b.head.header_hash), b.data)
                for b in batches
            ]
        )
        try:
            self._write(batches)
        except psycopg.Error as error:
            raise translate(error) from error
        finally:
            self._block = None  # the locks went with the commit: what was read is old
        self._receipts.clear()

    def keep_receipt(self, origin: str, batch_no: int, receipt: bytes) -> None:
        """Keep the newest receipt given out; durable with the next append or close."""
        self._receipts[origin] = (batch_no, receipt)

    def remove_unpromised(self, origins: Sequence[str]) -> int:  # noqa: ARG002 - the port's
        """Remove nothing: what is past a head here another aggregator may be about to promise.

        It is replaced when the batch of that number is stored.
        """
        return 0

    def _make_rows(self, names: Sequence[str]) -> None:
        """Have a row to lock for each origin, before its first batch."""
        missing = [name for name in names if name not in self._made]
        if missing:
            with self._database.transaction():
                self._database.run(_MAKE_ROWS, (missing,))
            self._made.update(missing)

    def _lock(self, names: Sequence[str]) -> _Block:
        if self._writing.closed:
            self._writing = self._server.connect()
        try:
            self._writing.execute("BEGIN")
        except psycopg.Error:
            # It was gone; nothing was begun. On a new one an error is the answer.
            self._writing.close()
            self._writing = self._server.connect()
        try:
            if self._writing.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                self._writing.execute("BEGIN")
            heads = self._writing.execute(statement(_LOCK_ROWS), (names,)).fetchall()
            named = self._writing.execute(statement(_NAMED_KEYS), (names,)).fetchall()
        except psycopg.Error as error:
            roll_back(self._writing)
            raise translate(error) from error
        return _Block(heads, named)

    def _write(self, batches: Sequence[AcceptedBatch]) -> None:
        """Send rows, counter and commit in one go; durable on return."""
        with self._writing.pipeline():
            for sql, values in _statements(batches, self._receipts):
                self._writing.execute(statement(sql), values)
            done = self._writing.execute("COMMIT")
        if done.statusmessage != "COMMIT":
            raise RecordError("the database did not commit", remedy="see the database's log")


class _Block:
    """What is known of the origins that are ours, read after they were locked."""

    def __init__(self, heads: Sequence[Any], named: Sequence[Any]) -> None:
        self.heads = {
            origin: None if head is None else stored_head(origin, head) for origin, head in heads
        }
        self.rotations: dict[str, tuple[Rotation, ...]] = {}
        for origin, from_batch, public_key in named:
            rotation = Rotation(from_batch=from_batch, public_key=public_key)
            self.rotations[origin] = (*self.rotations.get(origin, ()), rotation)


def _statements(
    batches: Sequence[AcceptedBatch], receipts: dict[str, tuple[int, bytes]]
) -> Iterator[tuple[str, Sequence[object]]]:
    """Yield what stores batches; the counter first of all, for it orders who else stores."""
    heads = {batch.head.origin: encode_head(batch.head) for batch in batches}
    rotations = [
        (b.header.origin, r.from_batch, key_id_of(r.public_key), r.public_key)
        for b in batches
        for r in b.rotations
    ]
    notices = [
        (b.header.origin, b.header.batch_no, str(notice), detail, b.received_ns)
        for b in batches
        for notice, detail in b.notices
    ]
    yield _COUNT_ON, (len(batches),)
    yield _ADD_BATCHES, (len(batches), *_columns([header_row(batch) for batch in batches]))
    yield _SET_HEADS, _columns(list(heads.items()))
    for sql, rows in (
        (_ADD_ROTATIONS, rotations),
        (_ADD_NOTICES, notices),
        (_SET_RECEIPTS, _receipt_rows(receipts)),
    ):
        if rows:
            yield sql, _columns(rows)


def _receipt_rows(receipts: dict[str, tuple[int, bytes]]) -> list[tuple[object, ...]]:
    return [(origin, number, receipt) for origin, (number, receipt) in sorted(receipts.items())]


def _columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Turn rows into columns: an array each is one value of a statement."""
    return [list(column) for column in zip(*rows, strict=True)]

"""What the aggregator asks of its stores, and the values that cross that line.

Each port says what is true on return. The embedded defaults stand in
``aggregator/store``; PostgreSQL, an S3 object store and a column store take
their places behind the same four ports when one machine is outgrown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from aesp_proxy.record.batch import SealedBatch
    from aesp_proxy.record.head import Head
    from aesp_proxy.record.header import BatchHeader
    from aesp_proxy.record.keyring import Rotation


class Role(StrEnum):
    """What a client certificate is for: a host ships its record, a reader queries."""

    HOST = "host"
    READER = "reader"


class Notice(StrEnum):
    """What is noted about an accepted batch; the words are API."""

    CLOCK_AHEAD = "clock_ahead"
    CLOCK_BACK = "clock_back"
    UNCLEAN_RESTART = "unclean_restart"
    LOSSES = "losses"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """An enrolled host.

    ``public_key`` (32 raw bytes) is the key of its first batch; later keys are
    in the ledger, where each was named by the one before it. ``tenants`` are
    those it may write for, beside none at all.
    """

    name: str
    enrolled_ns: int
    public_key: bytes
    tenants: frozenset[str]
    quarantined_ns: int | None = None
    quarantine_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a client certificate stands for: the origin's name, or the reader's."""

    role: Role
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A client certificate that was issued: ``fingerprint`` is SHA-256 of its DER form."""

    fingerprint: bytes
    identity: Identity
    issued_ns: int
    not_after_ns: int
    revoked_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Two signed batches that cannot both be true, and where both are kept."""

    origin: str
    batch_no: int
    kind: str
    stored_key: str
    offered_key: str
    noted_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How often one kind of batch was refused from one origin, and when first and last."""

    origin: str
    kind: str
    count: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedBatch:
    """A notice on an accepted batch, with what was seen."""

    origin: str
    batch_no: int
    notice: Notice
    detail: str
    noted_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedBatch:
    """A verified batch on its way to disk. ``data`` is the encoded batch as it came."""

    data: bytes
    sealed: SealedBatch
    header: BatchHeader
    head: Head
    rotations: tuple[Rotation, ...]
    notices: tuple[tuple[Notice, str], ...]
    received_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlace:
    """Where a stored batch is: ``position`` counts arrivals and never goes back."""

    position: int
    origin: str
    batch_no: int
    epoch: int
    first_seq: int
    count: int
    header_hash: bytes
    received_ns: int

    @property
    def key(self) -> str:
        """The batch's name, without the hash that some stores add to it."""
        return batch_key(self.origin, self.batch_no)

    def key_in(self, objects: ObjectStore) -> str:
        """The batch's key in an object store."""
        return key_in(objects, self.origin, self.batch_no, self.header_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeader:
    """A stored batch without its body: what the log holds of it."""

    place: BatchPlace
    header: bytes
    signature: bytes


def batch_key(origin: str, batch_no: int, header_hash: bytes = b"") -> str:
    """Return the object key of a batch: a directory per origin that verifies by itself."""
    named = f"-{header_hash.hex()}" if header_hash else ""
    return f"batches/{origin}/{batch_no:010d}{named}.batch"


def key_in(objects: ObjectStore, origin: str, batch_no: int, header_hash: bytes) -> str:
    """Return the key of a batch in an object store, with its header's hash where that is asked."""
    return batch_key(origin, batch_no, header_hash if objects.by_hash else b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event as the index knows it; the record itself is in the ledger."""

    time_ns: int
    origin: str
    epoch: int
    seq: int
    kind: str
    agent: str
    host: str
    verdict: str
    reason: str
    guard: str
    action: str
    outcome: str
    session: str
    tenant: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCursor:
    """The last event of a page; the next page begins after it, newest first."""

    time_ns: int
    origin: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCount:
    """How many events have these values, in the order of what was counted by."""

    count: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """A question to the index. Empty text asks nothing; times are ``since <= t < until``.

    ``path`` is a whole path, or the beginning of one before a final ``*``; ``rule`` a
    rule that found something or that applied. Both are looked up in the records.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    origin: str = ""
    agent: str = ""
    host: str = ""
    verdict: str = ""
    reason: str = ""
    session: str = ""
    tenant: str = ""
    kind: str = ""
    path: str = ""
    rule: str = ""
    limit: int = 100
    cursor: EventCursor | None = None


class ObjectStore(Protocol):
    """Whole objects by key.

    ``by_hash`` says that several aggregators write: a batch's key then carries the hash of
    its header, so that two histories of one host are two objects whatever comes late, and
    what a crash has left stands in nobody's way.
    """

    by_hash: bool

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store all; on return every one would survive a power cut. RecordError otherwise."""

    def get(self, key: str) -> bytes:
        """Return one object's content.

        RecordError when it is missing or damaged; UnavailableError when the store cannot say
        that now: such an object must not be passed over.
        """

    def find(self, key: str) -> bytes | None:
        """Return one object's content, None when there surely is none; errors as :meth:`get`."""

    def remove_all(self, keys: Sequence[str]) -> int:
        """Delete what is there of ``keys``, whole or half written; return how many were."""

    def check(self) -> None:
        """Find out by writing and reading whether it can be used, before batches depend on it.

        ConfigError for what the operator must mend, UnavailableError when it is not there now.
        """

    def close(self) -> None:
        """Let go of what is open."""


class BatchSource(Protocol):
    """The stored batches, for any process that reads them."""

    def find(self, origin: str, batch_no: int) -> BatchPlace | None:
        """Return where a stored batch is."""

    def read(self, place: BatchPlace) -> bytes:
        """Return the encoded batch as it came."""

    def after(self, position: int, *, limit: int) -> list[BatchPlace]:
        """Return stored batches that arrived after ``position``, in order of arrival."""

    def headers_after(self, position: int, *, limit: int) -> list[SignedHeader]:
        """Return what :meth:`after` does, each with the header and signature of its batch."""

    def holding(self, origin: str, epoch: int, seq: int) -> BatchPlace | None:
        """Return the batch that holds an event."""

    def last_position(self) -> int:
        """Return the newest position, 0 when empty."""


class BatchLedger(BatchSource, Protocol):
    """The batches and their headers: the truth."""

    def held(self, origins: Iterable[str]) -> AbstractContextManager[frozenset[str]]:
        """Have origins to ourselves in the block: nobody else judges or appends for them.

        Gives those that were free; another writer has the rest. What is asked about an
        origin in the block is what :meth:`append` adds to.
        """

    def head(self, origin: str) -> Head | None:
        """Return the origin's last contiguous durable batch, None when it has none."""

    def rotations(self, origin: str) -> tuple[Rotation, ...]:
        """Return the keys that stored batches have named, in order."""

    def rotated_owner(self, key_id: str) -> str | None:
        """Return the origin whose stored batches have named a key."""

    def append(self, batches: Sequence[AcceptedBatch]) -> None:
        """Store bytes, headers, heads, keys and notices; on return all are durable.

        At most ``APPEND_BATCHES_MAX``, all or none. On an error nothing is promised, though
        they may be there: the connection may have ended while they were committed.
        """

    def keep_receipt(self, origin: str, batch_no: int, receipt: bytes) -> None:
        """Keep the newest receipt given out; durable with the next append or close."""

    def remove_unpromised(self, origins: Sequence[str]) -> int:
        """Delete the bytes that a crash left past each head, at the start; return how many."""

    def close(self) -> None:
        """Keep the receipts not yet written, then close what is open."""


class EventIndex(Protocol):
    """Events by time, agent, host and so on. Derived: may be thrown away and rebuilt."""

    def add(self, batches: Iterable[tuple[BatchPlace, Sequence[Sequence[Any]]]]) -> int:
        """Add batches with their rows (values of ``canonical.FIELDS``), once each."""

    def position(self) -> int:
        """Return the position up to which batches are indexed."""

    def close(self) -> None:
        """Close what is open; what was added is kept."""


class IndexReader(Protocol):
    """The reading side of an index; UnavailableError when a question took too long."""

    def position(self) -> int:
        """Return the position up to which batches are indexed."""

    def find(
        self, query: EventQuery, keep: Callable[[EventRow], bool] | None = None
    ) -> list[EventRow]:
        """Return matching events that ``keep`` wants, newest first, ``query.limit`` at most."""

    def count(self, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
        """Return how many matching events there are by ``by``, most first."""

    def close(self) -> None:
        """Close what is open."""


class ControlStore(Protocol):
    """Who may ship and read, and who is shut out. Every write is durable on return.

    ``is_remote`` says that an answer may be waited for, so an event loop asks in a thread.
    """

    is_remote: bool

    def origin(self, name: str) -> Origin | None:
        """Return an enrolled origin, None when unknown."""

    def key_owner(self, key_id: str) -> str | None:
        """Return the origin a key is bound to, None when the key is unknown."""

    def identity(self, fingerprint: bytes, *, now_ns: int) -> Identity | None:
        """Return who a certificate stands for; None when unknown, revoked or expired."""

    def quarantine(self, evidence: Evidence) -> None:
        """Shut the origin out and keep where the evidence is."""

    def evidence(self, name: str) -> list[Evidence]:
        """Return the evidence held against an origin, oldest first."""

    def note_refusals(self, counts: Mapping[tuple[str, str], int], *, now_ns: int) -> None:
        """Add to the counters of refused batches by (origin, kind)."""

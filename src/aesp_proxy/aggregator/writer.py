"""The one thread that accepts: judge, make durable, then promise.

Every request hands its bytes to a queue and waits. The thread takes what has
piled up (at most 64), judges each in order, stores all that hold with one
append and one commit, and only then signs receipts and answers: concurrent
batches share the cost of being durable.

Rules: no receipt before :meth:`BatchLedger.append` has returned; when the
append fails nobody is promised anything and the heads are read from disk
again; a fork is evidence on disk before it is an answer. Other aggregators may write
to the same stores: a group is judged and stored while its hosts are ours alone
(:meth:`BatchLedger.held`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, assert_never

import structlog

from aesp_proxy.aggregator.ingest import (
    Accept,
    Duplicate,
    IngestLimits,
    Judgement,
    Refusal,
    Refuse,
    judge,
)
from aesp_proxy.aggregator.metrics import Meter
from aesp_proxy.aggregator.ports import Evidence, Role, key_in
from aesp_proxy.errors import AespError, RecordError, UnavailableError
from aesp_proxy.record.keyring import KeyRing, Rotation, pinned
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.signature import key_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aesp_proxy.aggregator.identity import ReceiptKey
    from aesp_proxy.aggregator.ports import (
        BatchLedger,
        ControlStore,
        Identity,
        ObjectStore,
        Origin,
    )
    from aesp_proxy.record.head import Head

GROUP_BATCHES_MAX: Final = 64
QUEUE_BATCHES_MAX: Final = 1024
EVIDENCE_MAX: Final = 16

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the peer is told: a receipt, or a refusal."""

    receipt: bytes | None = None
    refusal: Refuse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One batch on its way; exactly one of the two is called, once, from the thread."""

    data: bytes
    identity: Identity
    answer: Callable[[Answer], None]
    fail: Callable[[AespError], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What the writer writes to."""

    ledger: BatchLedger
    control: ControlStore
    objects: ObjectStore


class _Group:
    """What is known while one group is judged: stored heads, and those about to be."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.accepted: list[Accept] = []
        self._heads: dict[str, Head] = {}
        self._hashes: dict[tuple[str, int], bytes] = {}
        self._origins: dict[str, Origin | None] = {}
        self._rotations: dict[str, tuple[Rotation, ...]] = {}

    def add(self, accept: Accept) -> None:
        head = accept.batch.head
        self.accepted.append(accept)
        if accept.batch.rotations:
            held = self._rotations.get(head.origin, ())
            self._rotations[head.origin] = (*held, *accept.batch.rotations)
        self._heads[head.origin] = head
        self._hashes[head.origin, head.batch_no] = head.header_hash

    def origin(self, name: str) -> Origin | None:
        if name not in self._origins:
            self._origins[name] = self._stores.control.origin(name)
        return self._origins[name]

    def forget(self, name: str) -> None:
        """Have the origin asked for again: it was shut out."""
        self._origins.pop(name, None)

    def key_owner(self, key_id: str) -> str | None:
        for origin, rotations in self._rotations.items():
            if any(key_id_of(rotation.public_key) == key_id for rotation in rotations):
                return origin
        owner = self._stores.control.key_owner(key_id)
        return owner or self._stores.ledger.rotated_owner(key_id)

    def keyring(self, origin: Origin) -> KeyRing:
        ring = pinned(origin.public_key)
        stored = self._stores.ledger.rotations(origin.name)
        for rotation in (*stored, *self._rotations.get(origin.name, ())):
            ring = ring.rotated(rotation)
        return ring

    def head(self, name: str) -> Head | None:
        return self._heads.get(name) or self._stores.ledger.head(name)

    def newest(self, head: Head) -> Head:
        """Return the newest head of the origin that is stored now; no question to the store."""
        return self._heads.get(head.origin, head)

    def stored_hash(self, name: str, batch_no: int) -> bytes | None:
        if (name, batch_no) in self._hashes:
            return self._hashes[name, batch_no]
        place = self._stores.ledger.find(name, batch_no)
        return place.header_hash if place else None


class Writer:
    """Owns the stores from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        stores: Stores,
        *,
        receipt_key: ReceiptKey,
        limits: IngestLimits,
        now_ns: Callable[[], int],
        on_stored: Callable[[], None],
        meter: Meter | None = None,
    ) -> None:
        self._stores = stores
        self._receipt_key = receipt_key
        self._limits = limits
        self._now_ns = now_ns
        self._on_stored = on_stored
        self._meter = meter or Meter()
        self._queue: deque[Submission] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.failed: BaseException | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, submission: Submission) -> None:
        """Queue one batch. UnavailableError when the queue is full or the writer has ended."""
        with self._wake:
            if self._stopping or self.failed is not None:
                raise UnavailableError("the aggregator is stopping", remedy="try again")
            if len(self._queue) >= QUEUE_BATCHES_MAX:
                raise UnavailableError("too many batches wait", remedy="try again later")
            self._queue.append(submission)
            self._wake.notify()

    def _run(self) -> None:
        group: list[Submission] = []
        try:
            while group := self._take():
                self._serve(group)
        except BaseException as error:
            # The run loop's net: nobody waits for ever, and readiness says what happened.
            self.failed = error
            log.exception("writer_ended")
            with self._wake:
                left = [*group, *self._queue]
                self._queue.clear()
            for submission in left:
                submission.fail(UnavailableError("the writer has ended", remedy="restart"))

    def _take(self) -> list[Submission]:
        with self._wake:
            while not self._queue and not self._stopping:
                self._wake.wait()
            count = min(len(self._queue), GROUP_BATCHES_MAX)
            return [self._queue.popleft() for _ in range(count)]

    def _serve(self, submissions: Sequence[Submission]) -> None:
        """Judge, store and answer one group, its hosts being ours alone meanwhile."""
        begun_s = time.monotonic()
        hosts = {s.identity.name for s in submissions if s.identity.role is Role.HOST}
        with ExitStack() as stack:
            try:
                others = hosts - stack.enter_context(self._stores.ledger.held(hosts))
            except AespError as error:
                log.critical("batches_not_judged", error=str(error), batches=len(submissions))
                self._meter.count("store_failures")
                for submission in submissions:
                    submission.fail(error)
                return
            self._serve_held([s for s in submissions if s.identity.name not in others])
        for submission in submissions:
            if submission.identity.name in others:
                submission.fail(
                    UnavailableError("another aggregator has a batch of this host in hand")
                )
        self._meter.served(time.monotonic() - begun_s)

    def _serve_held(self, submissions: Sequence[Submission]) -> None:
        group = _Group(self._stores)
        now_ns = self._now_ns()
        judged: list[tuple[Submission, Judgement]] = []
        for submission in submissions:
            judgement = self._judge(submission, group, now_ns)
            if judgement is not None:
                judged.append((submission, judgement))
        try:
            if group.accepted:
                self._stores.ledger.append([accept.batch for accept in group.accepted])
        except (RecordError, UnavailableError) as error:
            log.critical("batches_not_stored", error=str(error), batches=len(group.accepted))
            self._meter.count("store_failures")
            self._fail_unstored(judged, error)
            return
        for submission, judgement in judged:
            submission.answer(self._answer(judgement, group))
        if group.accepted:
            self._note(group.accepted)
            self._on_stored()
        self._count_refusals(judged, now_ns)
        self._measure(group, judged)

    def _measure(self, group: _Group, judged: Sequence[tuple[Submission, Judgement]]) -> None:
        self._meter.accepted(
            batches=len(group.accepted),
            records=sum(accept.batch.header.count for accept in group.accepted),
            size_bytes=sum(len(accept.batch.data) for accept in group.accepted),
        )
        for _, judgement in judged:
            if isinstance(judgement, Refuse):
                self._meter.refused(judgement.kind.value)
                continue
            self._meter.count("receipts")
            if isinstance(judgement, Duplicate):
                self._meter.count("duplicates")

    def _judge(self, submission: Submission, group: _Group, now_ns: int) -> Judgement | None:
        """Judge one batch; None when it has been told that it failed."""
        try:
            judgement = judge(
                submission.data,
                identity=submission.identity,
                standing=group,
                limits=self._limits,
                now_ns=now_ns,
            )
            match judgement:
                case Accept():
                    group.add(judgement)
                case Refuse(kind=Refusal.FORK):
                    # Stored first: what the fork contradicts may be in this very group.
                    self._keep_evidence(submission.data, judgement, group, now_ns)
                    group.forget(judgement.origin)
                case Refuse() | Duplicate():
                    pass
                case _:
                    assert_never(judgement)
        except AespError as error:
            log.critical("batch_not_judged", error=str(error))
            submission.fail(error)
            return None
        return judgement

    def _fail_unstored(
        self, judged: Sequence[tuple[Submission, Judgement]], error: AespError
    ) -> None:
        for submission, judgement in judged:
            if isinstance(judgement, Refuse):
                submission.answer(Answer(refusal=judgement))
            else:
                submission.fail(error)

    def _answer(self, judgement: Judgement, group: _Group) -> Answer:
        match judgement:
            case Refuse():
                return Answer(refusal=judgement)
            case Accept():
                return Answer(receipt=self._receipt(group.newest(judgement.batch.head)))
            case Duplicate():
                return Answer(receipt=self._receipt(group.newest(judgement.head)))
            case _:
                assert_never(judgement)

    def _receipt(self, head: Head) -> bytes:
        """Sign for the highest contiguous batch that is durable now."""
        receipt = Receipt(
            origin=head.origin,
            batch_no=head.batch_no,
            header_hash=head.header_hash,
            time_ns=self._now_ns(),
            key_id=self._receipt_key.key_id,
        )
        encoded = encode_receipt(receipt, self._receipt_key.sign)
        self._stores.ledger.keep_receipt(head.origin, head.batch_no, encoded)
        return encoded

    def _keep_evidence(self, data: bytes, refusal: Refuse, group: _Group, now_ns: int) -> None:
        """Keep both histories, then shut the origin out; durable on return."""
        held = self._stores.control.evidence(refusal.origin)
        if len(held) >= EVIDENCE_MAX:
            return
        objects = self._stores.objects
        # Another aggregator may be keeping its own at this moment.
        named = f"-{sha256(data).hexdigest()}" if objects.by_hash else ""
        number = f"{refusal.batch_no:010d}-{len(held):02d}"
        offered = f"evidence/{refusal.origin}/{number}{named}.batch"
        objects.put_all([(offered, data)])
        known = group.stored_hash(refusal.origin, refusal.fork_of) if refusal.fork_of else None
        stored = key_in(objects, refusal.origin, refusal.fork_of or 0, known) if known else ""
        self._stores.control.quarantine(
            Evidence(
                origin=refusal.origin,
                batch_no=refusal.batch_no,
                kind=refusal.kind,
                stored_key=stored,
                offered_key=offered,
                noted_ns=now_ns,
            )
        )
        log.critical(
            "fork_found",
            origin=refusal.origin,
            batch_no=refusal.batch_no,
            stored=stored,
            offered=offered,
        )

    def _note(self, accepted: Sequence[Accept]) -> None:
        for accept in accepted:
            for notice, detail in accept.batch.notices:
                log.warning(
                    "batch_noted",
                    origin=accept.batch.header.origin,
                    batch_no=accept.batch.header.batch_no,
                    notice=notice.value,
                    detail=detail,
                )

    def _count_refusals(self, judged: Sequence[tuple[Submission, Judgement]], now_ns: int) -> None:
        """Count refusals against the peer that sent, not against whom the bytes name."""
        counts: Counter[tuple[str, str]] = Counter()
        for submission, refusal in judged:
            if not isinstance(refusal, Refuse):
                continue
            counts[submission.identity.name, refusal.kind.value] += 1
            log.warning(
                "batch_refused",
                peer=submission.identity.name,
                origin=refusal.origin,
                batch_no=refusal.batch_no,
                kind=refusal.kind.value,
                message=refusal.message,
            )
        if not counts:
            return
        try:
            self._stores.control.note_refusals(counts, now_ns=now_ns)
        except AespError as error:
            log.warning("refusals_not_counted", error=str(error))

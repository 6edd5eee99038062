"""Verify a whole sequence of batches and say, with place and kind, all that is wrong.

Rules: pure and incremental (feed one batch after the other in the order of the
store); one fault is reported once and does not make its neighbours look wrong:
after a batch that cannot be trusted the chain is entered again at the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aesp_proxy.record.batch import (
    Limits,
    SealedBatch,
    VerifiedBatch,
    decode_batch,
    verify_batch,
)
from aesp_proxy.record.faults import NOTES, ChainError, Fault
from aesp_proxy.record.head import Head, anchored, genesis
from aesp_proxy.record.header import BatchHeader, decode_header, header_hash
from aesp_proxy.record.keyring import KeyRing, rotations_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: where (``place``), what (``kind``), in words (``message``).

    ``record`` names the record as ``epoch/seq`` where it can be told, ``batch_no``
    the batch, 0 for none. ``is_note`` marks what is worth saying and no fault.
    """

    kind: Fault
    place: str
    message: str
    batch_no: int = 0
    record: str = ""

    @property
    def is_note(self) -> bool:
        """Whether this leaves the record provable."""
        return self.kind in NOTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What someone remembers of the chain: a receipt, or the host's own head."""

    name: str
    batch_no: int
    header_hash: bytes


class ChainVerifier:
    """Verifies the batches of one origin, fed in the order in which they are stored."""

    def __init__(
        self,
        *,
        keys: KeyRing,
        origin: str = "",
        limits: Limits | None = None,
        witnesses: tuple[Witness, ...] = (),
        released_to: int = 0,
    ) -> None:
        """``released_to``: batches up to this number may be absent at the front."""
        self._keys = keys
        self._origin = origin
        self._limits = limits or Limits()
        self._witnesses = witnesses
        self._released_to = released_to
        self._head: Head | None = None
        self._next_no = 1
        self._seen: dict[int, bytes] = {}
        self._missing: dict[int, str] = {}
        self.batch_count = 0
        self.record_count = 0
        self.lost_count = 0
        self.newest: VerifiedBatch | None = None

    @property
    def head(self) -> Head | None:
        """The chain after the last batch that held; None when the last one did not."""
        return self._head

    def feed(self, place: str, data: bytes, *, number: int = 0) -> list[Problem]:
        """Check the next batch; ``number`` is what the store says it is, 0 for unknown."""
        self.batch_count += 1
        try:
            batch = decode_batch(data, bytes_max=self._limits.batch_bytes_max)
            header = decode_header(batch.header_bytes)
        except ChainError as error:
            return self._unreadable(place, error, number)
        digest = header_hash(batch.header_bytes)
        twin = self._twin(place, header, digest)
        if twin is not None:
            return [twin]
        problems = self._placed(place, header, number)
        late = header.batch_no < self._next_no
        problems += self._checked(place, header, batch, late=late)
        self._seen[header.batch_no] = digest
        if not late:
            self._next_no = header.batch_no + 1
        return problems

    def _unreadable(self, place: str, error: ChainError, number: int) -> list[Problem]:
        self._head = None
        problems: list[Problem] = []
        if number >= self._next_no:
            problems = self._note_gap(place, number)
            self._next_no = number + 1
            self._seen[number] = b""
        return [*problems, _problem(place, error, batch_no=number)]

    def _twin(self, place: str, header: BatchHeader, digest: bytes) -> Problem | None:
        known = self._seen.get(header.batch_no)
        if not known:
            return None
        if known == digest:
            kind, message = Fault.REPLAYED, f"batch {header.batch_no} stands here a second time"
        else:
            kind, message = Fault.FORKED, f"a second batch {header.batch_no} with another hash"
        return Problem(kind=kind, place=place, message=message, batch_no=header.batch_no)

    def _placed(self, place: str, header: BatchHeader, number: int) -> list[Problem]:
        number_in = header.batch_no
        if number and number != number_in:
            return [self._misplaced(place, number_in, f"batch {number_in} stands at {number}")]
        if number_in in self._missing:
            return [self._misplaced(place, number_in, f"batch {number_in} comes too late")]
        return self._note_gap(place, number_in) if number_in > self._next_no else []

    def _misplaced(self, place: str, number: int, message: str) -> Problem:
        self._missing.pop(number, None)
        self._head = None
        return Problem(kind=Fault.REORDERED, place=place, message=message, batch_no=number)

    def _note_gap(self, place: str, number: int) -> list[Problem]:
        if number == self._next_no:
            return []
        self._head = None
        first = self._next_no
        if not self._seen:
            first = max(first, self._released_to + 1)
        if number - first > _MISSING_NAMED_MAX:
            message = f"batches {first} to {number - 1} are missing"
            return [Problem(kind=Fault.MISSING, place=place, message=message, batch_no=first)]
        for absent in range(first, number):
            self._missing[absent] = place
        return []

    def _checked(
        self, place: str, header: BatchHeader, batch: SealedBatch, *, late: bool
    ) -> list[Problem]:
        self._origin = self._origin or header.origin
        before = self._before(header, late=late)
        try:
            key = self._keys.key_for(header.key_id, header.batch_no)
            verified = verify_batch(batch, public_key=key, previous=before, limits=self._limits)
            for rotation in rotations_in(verified.values, batch_no=header.batch_no):
                self._keys = self._keys.rotated(rotation)
        except ChainError as error:
            if not late:
                self._head = None
            return [_problem(place, error, header=header)]
        self.record_count += header.count
        self.lost_count += header.lost + header.dropped
        self.newest = verified
        if not late:
            self._head = verified.head
        return [_notice(place, kind, verified) for kind in sorted(verified.notices)]

    def _before(self, header: BatchHeader, *, late: bool) -> Head:
        if self._head is not None and not late:
            return self._head
        if header.batch_no == 1:
            return genesis(self._origin)
        return anchored(self._origin, header.batch_no - 1, header.prev_hash)

    def finish(self) -> list[Problem]:
        """Say what is missing, and what the witnesses remember that is not here."""
        problems = [
            Problem(
                kind=Fault.MISSING,
                place=place,
                batch_no=number,
                message=f"batch {number} is missing",
            )
            for number, place in sorted(self._missing.items())
        ]
        newest = self._next_no - 1 if self._seen else 0
        for witness in self._witnesses:
            problems += self._heard(witness, newest)
        return problems

    def _heard(self, witness: Witness, newest: int) -> Iterator[Problem]:
        number = witness.batch_no
        if number > newest and not (number <= self._released_to and not self._seen):
            yield Problem(
                kind=Fault.TRUNCATED,
                place=witness.name,
                batch_no=number,
                message=f"the chain ends at batch {newest}, {witness.name} names batch {number}",
            )
        elif self._seen.get(number) and self._seen[number] != witness.header_hash:
            yield Problem(
                kind=Fault.FORKED,
                place=witness.name,
                batch_no=number,
                message=f"{witness.name} names another batch {number} than the one here",
            )


_MISSING_NAMED_MAX = 10_000


def _problem(
    place: str, error: ChainError, *, header: BatchHeader | None = None, batch_no: int = 0
) -> Problem:
    message, record = error.message, ""
    if header is not None:
        batch_no = header.batch_no
        if error.row >= 0:
            record = f"{header.epoch}/{header.first_seq + error.row}"
        elif header.count and error.kind is Fault.CHANGED:
            last = header.first_seq + header.count - 1
            message += (
                f"; it holds records {header.epoch}/{header.first_seq} to {header.epoch}/{last}"
            )
    return Problem(kind=error.kind, place=place, message=message, batch_no=batch_no, record=record)


def declared_losses(header: BatchHeader) -> str:
    """Say in words what a header declares to be absent; empty for nothing."""
    told = []
    if header.lost:
        told.append(f"{header.lost} records that it could not read back")
    if header.dropped:
        told.append(f"{header.dropped} records that it did not keep, as its settings allow")
    return " and ".join(told)


def _notice(place: str, kind: Fault, verified: VerifiedBatch) -> Problem:
    header = verified.header
    match kind:
        case Fault.CLOCK:
            message = "the sealing clock went backwards"
        case Fault.LOST:
            message = f"the host declares {declared_losses(header)}"
        case _:
            message = f"epoch {header.epoch} ended without closing its journal"
    return Problem(
        kind=kind,
        place=place,
        message=message,
        batch_no=header.batch_no,
        record=f"{header.epoch}/{header.first_seq}" if header.epoch else "",
    )


def verify_chain(
    batches: Iterable[tuple[str, bytes]], verifier: ChainVerifier
) -> Iterator[Problem]:
    """Feed every (place, bytes) and yield the problems as they are found."""
    for place, data in batches:
        yield from verifier.feed(place, data)
    yield from verifier.finish()

"""The newest state of one origin's chain, and the only way to advance it.

Rules: a head is a value; :func:`advance` checks one signed header against it
and gives the next head or says which fault it is. Sealer, verifier, shipper
and aggregator all use this one function. An epoch that ended, or was passed
over, never comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ormsgpack

from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.header import NO_HASH, BatchHeader, Flag

CLOCK_BACK_NS_MAX: Final = 2_000_000_000
OPEN_EPOCHS_MAX: Final = 4096
_WITH_DROPPED: Final = 2
_COUNT_END: Final = 1 << 63  # as the numbers of a header


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain stands after ``batch_no`` batches.

    ``next_seq`` gives for each open epoch the sequence number that must come
    next, ascending by epoch; ``epoch_max`` is the highest epoch ever seen.
    ``dropped`` gives for open epochs the sum of what their batches declare dropped.
    ``partial`` says that the chain was entered in its middle, so an epoch that is
    not known here may have begun before.
    """

    origin: str
    batch_no: int = 0
    header_hash: bytes = NO_HASH
    next_seq: tuple[tuple[int, int], ...] = ()
    epoch_max: int = 0
    sealed_wall_ns: int = 0
    sealed_mono_ns: int = 0
    boot_id: str = ""
    partial: bool = False
    dropped: tuple[tuple[int, int], ...] = ()

    def dropped_of(self, epoch: int) -> int:
        """Count what the batches of an open epoch have declared dropped."""
        return dict(self.dropped).get(epoch, 0)

    def expected_seq(self, epoch: int) -> int | None:
        """Sequence number that must come next in ``epoch``; None when it has ended.

        0 means: any, because the chain was entered in its middle.
        """
        known = dict(self.next_seq).get(epoch)
        if known is not None:
            return known
        if self.partial:
            return 0
        return 1 if epoch > self.epoch_max else None


def genesis(origin: str) -> Head:
    """Give the head before the first batch."""
    return Head(origin=origin)


def anchored(origin: str, batch_no: int, header_hash: bytes) -> Head:
    """Give a head from what a receipt says: enter the chain after ``batch_no``."""
    return Head(origin=origin, batch_no=batch_no, header_hash=header_hash, partial=True)


def check_place(head: Head, header: BatchHeader) -> None:
    """Check number, origin and predecessor of a header against ``head``."""
    if header.origin != head.origin:
        raise ChainError(
            Fault.WRONG_KEY, f"the batch is of origin {header.origin!r}, not {head.origin!r}"
        )
    expected = head.batch_no + 1
    if header.batch_no > expected:
        raise ChainError(Fault.MISSING, f"batch {expected} is missing before {header.batch_no}")
    if header.batch_no < expected:
        raise ChainError(Fault.REORDERED, f"batch {header.batch_no} comes after {head.batch_no}")
    if header.prev_hash != head.header_hash:
        raise ChainError(
            Fault.FORKED,
            f"batch {header.batch_no} names another predecessor than batch "
            f"{head.batch_no} of this chain",
        )


def clock_turned_back(head: Head, header: BatchHeader) -> bool:
    """Whether sealing time went backwards by more than ``CLOCK_BACK_NS_MAX``."""
    if not head.sealed_wall_ns:
        return False
    same_boot = bool(head.boot_id) and header.boot_id == head.boot_id
    return (
        header.sealed_wall_ns + CLOCK_BACK_NS_MAX < head.sealed_wall_ns
        or (same_boot and header.sealed_mono_ns < head.sealed_mono_ns)
        or bool(header.flags & Flag.CLOCK_BACK)
    )


def advance(head: Head, header: BatchHeader, header_hash: bytes) -> Head:
    """Check one header against ``head`` and give the next head.

    The signature is the caller's to check first. ChainError with the kind of
    the first fault; a clock that went back is not one (see
    :func:`clock_turned_back`).
    """
    check_place(head, header)
    next_seq, epoch_max, dropped = dict(head.next_seq), head.epoch_max, dict(head.dropped)
    if header.epoch:
        _check_seq(head, header)
        next_seq[header.epoch] = header.first_seq + header.count
        epoch_max = max(epoch_max, header.epoch)
        if header.dropped:
            dropped[header.epoch] = _counted(dropped.get(header.epoch, 0) + header.dropped)
        if header.flags & Flag.EPOCH_ENDED:
            del next_seq[header.epoch]
            dropped.pop(header.epoch, None)
    if len(next_seq) > OPEN_EPOCHS_MAX:
        raise ChainError(Fault.OVERSIZE, f"more than {OPEN_EPOCHS_MAX} epochs are open")
    return Head(
        origin=head.origin,
        batch_no=header.batch_no,
        header_hash=header_hash,
        next_seq=tuple(sorted(next_seq.items())),
        epoch_max=epoch_max,
        sealed_wall_ns=header.sealed_wall_ns,
        sealed_mono_ns=header.sealed_mono_ns,
        boot_id=header.boot_id,
        partial=head.partial,
        dropped=tuple(sorted(dropped.items())),
    )


def _counted(lost: int) -> int:
    if lost >= _COUNT_END:
        raise ChainError(Fault.OVERSIZE, "more losses are declared than can be counted")
    return lost


def _check_seq(head: Head, header: BatchHeader) -> None:
    expected = head.expected_seq(header.epoch)
    if expected is None:
        raise ChainError(Fault.REPLAYED, f"epoch {header.epoch} has ended and comes again")
    if expected and header.first_seq != expected + header.lost:
        raise ChainError(
            Fault.SEQ_GAP,
            f"batch {header.batch_no} starts at record {header.epoch}/{header.first_seq}, "
            f"expected {header.epoch}/{expected}",
        )


def encode_head(head: Head) -> bytes:
    """Pack a head for the state directory or a ledger; version 2 only where it says more."""
    values = (
        head.origin,
        head.batch_no,
        head.header_hash,
        head.next_seq,
        head.epoch_max,
        head.sealed_wall_ns,
        head.sealed_mono_ns,
        head.boot_id,
        head.partial,
    )
    return ormsgpack.packb((_WITH_DROPPED, *values, head.dropped) if head.dropped else (1, *values))


def decode_head(data: bytes) -> Head:
    """Unpack a head. ChainError(CHANGED) when the bytes are not a head."""
    try:
        version, *values = ormsgpack.unpackb(data)
        dropped = values.pop() if version == _WITH_DROPPED else ()
        origin, number, digest, next_seq, epoch_max, wall, mono, boot, partial = values
        head = Head(
            origin=origin,
            batch_no=number,
            header_hash=digest,
            next_seq=tuple((epoch, seq) for epoch, seq in next_seq),
            epoch_max=epoch_max,
            sealed_wall_ns=wall,
            sealed_mono_ns=mono,
            boot_id=boot,
            partial=partial,
            dropped=tuple((epoch, count) for epoch, count in dropped),
        )
        same = encode_head(head) == data
    except (ormsgpack.MsgpackDecodeError, TypeError, ValueError) as error:
        raise ChainError(Fault.CHANGED, f"the head is damaged: {error}") from error
    if not same:
        raise ChainError(Fault.CHANGED, "the head is damaged")
    return head

"""Seal what the journals hold into signed batches: one chain, whatever crashes.

Rules: one sealer at a time (the caller holds the lock). The order is: batch
durable, head durable, journal removed; so after a crash at any point the disk
says what was done, and :meth:`Sealer.open` finishes it. An error leaves the
object unusable: the next one reads everything from disk again, because after a
failed sync nothing in memory or cache is to be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from aesp_proxy.errors import RecordError
from aesp_proxy.record import rotation
from aesp_proxy.record.batch import SealedBatch, draft, encode_batch, seal
from aesp_proxy.record.canonical import POSITION, decode_row, pack_row
from aesp_proxy.record.files import Files, is_locked, write_durable
from aesp_proxy.record.head import Head, advance
from aesp_proxy.record.header import Flag, decode_header, header_hash
from aesp_proxy.record.journal_epoch import spend_epoch
from aesp_proxy.record.journal_tail import EpochTail, Stretch
from aesp_proxy.record.keyring import Rotation, rotation_record
from aesp_proxy.record.keys import SigningKey
from aesp_proxy.record.losses import read_losses
from aesp_proxy.record.sealer_recovery import recover_head
from aesp_proxy.record.state import (
    AuditPaths,
    numbered_batches,
    segments,
    write_head,
)

_TIME, _POLICY_HASH = POSITION["time_ns"], POSITION["policy_hash"]
_RECOUNT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """One reading of the clocks: wall UTC and monotonic nanoseconds, and which boot."""

    wall_ns: int
    mono_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealerOptions:
    """When to seal. ``heartbeat_s`` 0 means no heartbeats."""

    seal_bytes_max: int = 1024 * 1024
    seal_s_max: float = 60.0
    denial_s_max: float = 5.0
    heartbeat_s: float = 60.0


class _Pending:
    """What was read of one epoch and is not sealed yet."""

    __slots__ = ("began_ns", "stretch", "tail")

    def __init__(self, tail: EpochTail) -> None:
        self.tail = tail
        self.stretch = Stretch(first_seq=tail.next_seq)
        self.began_ns = 0


class Sealer:
    """Seals the journals of one state; not thread-safe."""

    def __init__(
        self,
        paths: AuditPaths,
        head: Head,
        key: SigningKey,
        options: SealerOptions,
        *,
        files: Files,
        clock: Callable[[], Stamp],
    ) -> None:
        self._paths, self._key, self._options = paths, key, options
        self._files, self._clock = files, clock
        self._pending: dict[int, _Pending] = {}
        self._sealed_ns = clock().mono_ns
        self._counted_ns = 0
        self._spool_bytes = 0
        self.head = head

    @classmethod
    def open(
        cls,
        paths: AuditPaths,
        origin: str,
        key: SigningKey,
        options: SealerOptions,
        *,
        files: Files,
        clock: Callable[[], Stamp],
    ) -> Self:
        """Find out from disk where the chain stands and finish what a crash left.

        RecordError when the disk fails, ChainError when what is there is no
        chain of this key.
        """
        try:
            head = recover_head(paths, origin, key, files)
            key = rotation.settle(paths, files, head, key)
        except OSError as error:
            raise _disk_error(error, paths) from error
        return cls(paths, head, key, options, files=files, clock=clock)

    def tick(self, *, drain: bool = False) -> int:
        """Read the journals and seal what is due; all there is with ``drain``.

        Gives the number of batches sealed. RecordError: make a new sealer.
        """
        try:
            sealed = self._tick(drain=drain)
            if not sealed and self._heartbeat_is_due():
                self._seal(Stretch(first_seq=0), epoch=0, flags=Flag.HEARTBEAT)
                sealed = 1
            if rotation.is_asked(self._paths):
                sealed += self._hand_over()
        except OSError as error:
            raise _disk_error(error, self._paths) from error
        return sealed

    def _tick(self, *, drain: bool) -> int:
        on_disk = segments(self._paths)
        for gone in self._pending.keys() - on_disk.keys():
            del self._pending[gone]
        return sum(self._serve(epoch, list(on_disk), drain=drain) for epoch in on_disk)

    def _hand_over(self) -> int:
        """Seal, with the old key, the record that names a new one, and sign with that then."""
        old = self._key
        new = rotation.make_next_key(self._paths, self._files, old_key_id=old.key_id)
        epoch = spend_epoch(self._paths, self._files)
        # Every lower epoch must have begun in the chain, for after this one it cannot.
        sealed = self._tick(drain=False) + self._open_below(epoch, list(segments(self._paths)))
        named = Rotation(public_key=new.public_key, from_batch=self.head.batch_no + 2)
        decided = rotation.HandOver(
            old_key_id=old.key_id, key_id=new.key_id, from_batch=named.from_batch
        )
        rotation.decide(self._paths, self._files, decided)
        record = rotation_record(named, old_key_id=old.key_id, time_ns=self._clock().wall_ns)
        row = pack_row(record, self.head.origin, epoch, 1)
        self._seal(Stretch(first_seq=1, rows=[row]), epoch=epoch, flags=Flag.EPOCH_ENDED)
        rotation.finish(self._paths, self._files, decided)
        self._key = new
        return sealed + 1

    def _serve(self, epoch: int, on_disk: list[int], *, drain: bool) -> int:
        expected = self.head.expected_seq(epoch)
        if expected is None:
            self._remove(epoch, segments(self._paths).get(epoch, []))
            return 0
        sealed = 0
        while True:
            # In this order: a writer that is dead now begins no segment after the listing.
            is_dead = not is_locked(self._paths.live(epoch))
            numbers = segments(self._paths).get(epoch, [])
            pending = self._read(epoch, numbers, expected, is_dead=is_dead)
            has_ended = pending.stretch.at_end and (is_dead or pending.stretch.is_closed)
            self._count_dropped(epoch, pending, has_ended=has_ended)
            if not (has_ended or self._is_due(pending, drain=drain)):
                return sealed
            sealed += self._open_below(epoch, on_disk)
            more = not pending.stretch.at_end
            sealed += self._seal_pending(epoch, pending, has_ended=has_ended)
            self._clean(epoch, numbers, pending, has_ended=has_ended)
            if has_ended or not more:
                return sealed

    def _read(self, epoch: int, numbers: list[int], expected: int, *, is_dead: bool) -> _Pending:
        pending = self._pending.get(epoch)
        if pending is None:
            tail = EpochTail(self._paths, self.head.origin, epoch, expected)
            pending = self._pending[epoch] = _Pending(tail)
        held = pending.stretch
        if held.is_closed:
            return pending
        if held.row_bytes >= self._options.seal_bytes_max:
            held.at_end = False
            return pending
        wanted = self._options.seal_bytes_max - held.row_bytes
        read = pending.tail.read(numbers, bytes_max=wanted, is_dead=is_dead)
        if read.lost and (held.rows or held.lost):
            # A hole begins a batch; what stands before it goes out first, unread again.
            pending.tail = EpochTail(
                self._paths, self.head.origin, epoch, held.first_seq + len(held.rows)
            )
            held.at_end = False
            return pending
        _merge(held, read)
        if (held.rows or held.lost) and not pending.began_ns:
            pending.began_ns = self._clock().mono_ns
        return pending

    def _count_dropped(self, epoch: int, pending: _Pending, *, has_ended: bool) -> None:
        """Take what the loss counter says: it only grows, and the head knows what is declared."""
        counted, declared = read_losses(self._paths.lost(epoch)), self.head.dropped_of(epoch)
        if counted is None:
            # Damaged: how many is not known; that there are some is taken for true.
            pending.stretch.dropped = 1 if has_ended else 0
        else:
            pending.stretch.dropped = max(0, counted.total - declared)
        if pending.stretch.dropped and not pending.began_ns:
            pending.began_ns = self._clock().mono_ns

    def _is_due(self, pending: _Pending, *, drain: bool) -> bool:
        stretch = pending.stretch
        if stretch.is_empty:
            return False
        if drain or not stretch.at_end or stretch.row_bytes >= self._options.seal_bytes_max:
            return True
        age_s = (self._clock().mono_ns - pending.began_ns) / 1e9
        is_urgent = stretch.denied or stretch.dropped
        limit = self._options.denial_s_max if is_urgent else self._options.seal_s_max
        return age_s >= limit

    def _open_below(self, epoch: int, on_disk: list[int]) -> int:
        """Let every lower epoch that waits come first: later it could not begin any more."""
        if epoch <= self.head.epoch_max:
            return 0
        count = 0
        for lower in on_disk:
            if self.head.epoch_max < lower < epoch:
                pending = self._pending.get(lower)
                if pending is not None:
                    count += self._seal_pending(lower, pending, has_ended=False)
        return count

    def _seal_pending(self, epoch: int, pending: _Pending, *, has_ended: bool) -> int:
        stretch = pending.stretch
        nothing = stretch.is_empty
        was_never_opened = epoch > self.head.epoch_max
        if nothing and has_ended and was_never_opened and stretch.is_closed:
            return 0
        flags = 0
        if has_ended:
            flags = Flag.EPOCH_ENDED if stretch.is_closed else Flag.EPOCH_ENDED | Flag.UNCLEAN
        count = 1
        if has_ended and stretch.torn_is_whole:
            # A whole frame whose sum is wrong: at least one record is lost behind the rest.
            if not nothing:
                self._seal(stretch, epoch=epoch, flags=0)
                count = 2
            after = stretch.first_seq + len(stretch.rows) + 1
            stretch = Stretch(first_seq=after, lost=1)
        self._seal(stretch, epoch=epoch, flags=flags)
        pending.stretch = Stretch(
            first_seq=stretch.first_seq + len(stretch.rows), is_closed=stretch.is_closed
        )
        pending.began_ns = 0
        return count

    def _seal(self, stretch: Stretch, *, epoch: int, flags: int) -> None:
        stamp = self._clock()
        first = decode_row(stretch.rows[0]) if stretch.rows else None
        last = decode_row(stretch.rows[-1]) if stretch.rows else None
        header = draft(
            self.head,
            key_id=self._key.key_id,
            epoch=epoch,
            first_seq=stretch.first_seq,
            wall_ns=stamp.wall_ns,
            mono_ns=stamp.mono_ns,
            boot_id=stamp.boot_id,
            first_time_ns=first[_TIME] if first else 0,
            last_time_ns=last[_TIME] if last else 0,
            lost=stretch.lost,
            dropped=stretch.dropped,
            policy_hash=last[_POLICY_HASH] if last else "",
            flags=flags,
        )
        self._commit(seal(stretch.rows, header=header, sign=self._key.sign))
        self._sealed_ns = stamp.mono_ns

    def _commit(self, batch: SealedBatch) -> None:
        header = decode_header(batch.header_bytes)
        head = advance(self.head, header, header_hash(batch.header_bytes))
        data = encode_batch(batch)
        write_durable(self._files, self._paths.batch(header.batch_no), data)
        write_head(self._paths, self._files, head)
        self.head = head
        self._spool_bytes += len(data)

    def _clean(self, epoch: int, numbers: list[int], pending: _Pending, *, has_ended: bool) -> None:
        if has_ended:
            self._remove(epoch, numbers)
            return
        for number in numbers:
            if number < pending.tail.segment:
                self._files.unlink(self._paths.segment(epoch, number))

    def _remove(self, epoch: int, numbers: list[int]) -> None:
        for number in numbers:
            self._files.unlink(self._paths.segment(epoch, number))
        self._files.unlink(self._paths.lost(epoch))
        self._files.unlink(self._paths.live(epoch))
        self._pending.pop(epoch, None)

    def _heartbeat_is_due(self) -> bool:
        wait_s = self._options.heartbeat_s
        return bool(wait_s) and (self._clock().mono_ns - self._sealed_ns) / 1e9 >= wait_s

    def spool_bytes(self) -> int:
        """Bytes of batches on disk, counted anew once a minute. RecordError."""
        now_ns = self._clock().mono_ns
        if not self._counted_ns or (now_ns - self._counted_ns) / 1e9 >= _RECOUNT_S:
            self._counted_ns = now_ns
            self._spool_bytes = sum(
                _size_of(path) for _, path in numbered_batches(self._paths.batches)
            )
        return self._spool_bytes


def has_unsealed(paths: AuditPaths) -> bool:
    """Whether a journal of a dead writer is still to be sealed. RecordError."""
    return any(not is_locked(paths.live(epoch)) for epoch in segments(paths))


def _merge(held: Stretch, read: Stretch) -> None:
    if not held.rows and not held.lost:
        held.first_seq, held.lost = read.first_seq, read.lost
    held.rows += read.rows
    held.row_bytes += read.row_bytes
    held.denied = held.denied or read.denied
    held.is_closed, held.at_end = read.is_closed, read.at_end
    held.torn_bytes, held.torn_is_whole = read.torn_bytes, read.torn_is_whole


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # the shipper released it meanwhile


def _disk_error(error: OSError, paths: AuditPaths) -> RecordError:
    return RecordError(
        f"cannot seal: {error.strerror}",
        where=str(error.filename or paths.root),
        remedy="make room or mend the disk; sealing goes on by itself",
    )

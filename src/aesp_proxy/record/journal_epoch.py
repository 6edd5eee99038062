"""One life of one journal writer: its epoch, its segments, its frames on disk.

Rules: a frame is one ``write`` to a file opened for appending, so it survives
the death of the process. What was reported failed and may have happened is
never followed by another record under the same number: the epoch is poisoned
and a new one begins. After a failed sync the file is not trusted again.
"""

from __future__ import annotations

import contextlib

from aesp_proxy.errors import RecordError
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.files import Files, Lock, write_all
from aesp_proxy.record.frames import FrameFlag, SegmentHead, encode_frame, encode_segment_head
from aesp_proxy.record.losses import LossCounter
from aesp_proxy.record.state import AuditPaths, read_head, segments

_EPOCH_DIGITS_MAX = 18
_EPOCH_REMEDY = "make room or mend the disk; the next epoch begins by itself"


class EpochWriter:
    """Writes frames of one epoch; not thread-safe, its owner locks."""

    def __init__(
        self,
        paths: AuditPaths,
        origin: str,
        *,
        files: Files,
        segment_bytes_max: int,
        may_lose: bool = False,
    ) -> None:
        """Take the next epoch number and begin its first segment. RecordError.

        ``may_lose``: with a counter, ``losses``, of what passes and cannot be written.
        """
        self._paths, self._origin, self._files = paths, origin, files
        self._segment_bytes_max = segment_bytes_max
        self._segment = 0
        self._descriptor = -1
        self._size = 0
        self._retired: list[int] = []
        self._names_unsynced = False
        self.next_seq = 1
        self.poison = ""
        self.losses: LossCounter | None = None
        try:
            with Lock.held(paths.allocation), contextlib.ExitStack() as undo:
                self.epoch = next_epoch(paths)
                live = Lock.try_take(paths.live(self.epoch))
                if live is None:
                    raise RecordError(f"epoch {self.epoch} is held by another writer")
                undo.callback(live.release)
                self._live = live
                _note_epoch(paths, files, self.epoch)
                if may_lose:
                    self.losses = LossCounter(paths.lost(self.epoch), files=files)
                    undo.callback(files.unlink, paths.lost(self.epoch))
                    undo.callback(self.losses.close)
                self._begin_segment()
                undo.pop_all()
        except OSError as error:
            raise RecordError(
                f"cannot begin an epoch: {error.strerror}",
                where=str(paths.journal),
                remedy="make room, or mend owner and mode",
            ) from error
        except ChainError as error:
            raise RecordError(
                error.message,
                where=error.where,
                remedy="try again: the sealer builds it anew, or says why not",
            ) from error

    def _begin_segment(self) -> None:
        number = self._segment + 1
        descriptor = self._files.create(self._paths.segment(self.epoch, number))
        head = SegmentHead(
            origin=self._origin, epoch=self.epoch, segment=number, first_seq=self.next_seq
        )
        data = encode_segment_head(head)
        try:
            write_all(self._files, descriptor, data)
        except OSError:
            self._files.close(descriptor)
            self._files.unlink(self._paths.segment(self.epoch, number))
            raise
        if self._descriptor >= 0:
            self._retired.append(self._descriptor)
        self._descriptor, self._size, self._segment = descriptor, len(data), number
        self._names_unsynced = True

    def append(self, flags: int, row: bytes) -> int:
        """Write one row and give its sequence number; it then survives ``kill -9``.

        RecordError when it did not reach the file. ``poison`` is set when the
        file may hold what was reported failed.
        """
        if self.poison:
            raise RecordError(self.poison, remedy=_EPOCH_REMEDY)
        seq = self.next_seq
        frame = encode_frame(seq, flags, row)
        try:
            written = self._files.write(self._descriptor, frame)
        except OSError as error:
            self._after_failure(whole_is_possible=True)
            raise RecordError(
                f"the journal cannot be written: {error.strerror}", remedy=_EPOCH_REMEDY
            ) from error
        if written != len(frame):
            self._after_failure(whole_is_possible=False)
            raise RecordError("the journal cannot be written: no space", remedy=_EPOCH_REMEDY)
        self._size += written
        self.next_seq = seq + 1
        if self._size >= self._segment_bytes_max:
            self._rotate()
        return seq

    def _rotate(self) -> None:
        # The record that filled the segment is written; a failure here is for the next one.
        try:
            self._begin_segment()
        except OSError as error:
            self.poison = f"a new journal segment cannot be made: {error.strerror}"

    def _after_failure(self, *, whole_is_possible: bool) -> None:
        # A part of a frame can be cut away: no reader takes a part. A whole frame
        # may have been read by the sealer already, so its number is spent.
        try:
            if self._files.size(self._descriptor) == self._size:
                return
            self._files.truncate(self._descriptor, self._size)
        except OSError as error:
            self.poison = f"the journal is damaged and cannot be mended: {error.strerror}"
        else:
            if whole_is_possible:
                self.poison = "a write was reported failed and may have happened"

    def take_descriptors(self) -> tuple[list[int], int]:
        """Retired descriptors, to be synced and closed by the caller, and the current one."""
        retired, self._retired = self._retired, []
        return retired, self._descriptor

    def take_unsynced_names(self) -> bool:
        """Whether the directory must be synced; asked once, by whoever then does it."""
        unsynced, self._names_unsynced = self._names_unsynced, False
        return unsynced

    def sync(self) -> None:
        """Make everything written so far survive a power cut. RecordError poisons the epoch."""
        self.sync_losses()
        retired, current = self.take_descriptors()
        self.sync_descriptors(retired, current, names=self.take_unsynced_names())

    def sync_descriptors(self, retired: list[int], current: int, *, names: bool) -> None:
        """Sync what :meth:`take_descriptors` gave; needs no lock."""
        try:
            for descriptor in retired:
                self._files.fdatasync(descriptor)
            self._files.fdatasync(current)
            if names:
                self._files.sync_dir(self._paths.journal)
        except OSError as error:
            self.poison = f"the journal cannot be made durable: {error.strerror}"
            raise RecordError(self.poison, remedy=_EPOCH_REMEDY) from error
        finally:
            for descriptor in retired:
                with contextlib.suppress(OSError):
                    self._files.close(descriptor)

    def sync_losses(self) -> None:
        """Make the loss counter survive a power cut. RecordError."""
        if self.losses is None:
            return
        try:
            self.losses.sync()
        except OSError as error:
            raise RecordError(
                f"the loss counter cannot be made durable: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Mark the end, sync, and let the sealer have the epoch. RecordError when not durable."""
        if self._descriptor < 0:
            return
        try:
            if not self.poison:
                end = encode_frame(self.next_seq, FrameFlag.CLOSED, b"")
                write_all(self._files, self._descriptor, end)
                self.sync()
        except OSError as error:
            raise RecordError(f"the journal cannot be closed: {error.strerror}") from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go without a mark: the sealer will say that the epoch ended uncleanly."""
        retired, current = self.take_descriptors()
        self._descriptor = -1
        if self.losses is not None:
            self.losses.close()
        for descriptor in (*retired, current):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    self._files.close(descriptor)
        self._live.release()


def spend_epoch(paths: AuditPaths, files: Files) -> int:
    """Take an epoch for records that never pass through a journal. OSError, RecordError.

    Every lower epoch that anyone has taken is on disk, or spent, on return.
    """
    with Lock.held(paths.allocation):
        epoch = next_epoch(paths)
        _note_epoch(paths, files, epoch)
    return epoch


def next_epoch(paths: AuditPaths) -> int:
    """Give the epoch after every one that ever was here. RecordError when that is in doubt."""
    counter = paths.journal / "epoch"
    counted = 0
    if counter.exists():
        text = counter.read_text("ascii", errors="replace").strip()
        if not (text.isascii() and text.isdigit() and len(text) < _EPOCH_DIGITS_MAX):
            raise RecordError(
                "the epoch counter is damaged",
                where=str(counter),
                remedy="restore it from a backup, or write a number above every epoch",
            )
        counted = int(text)
    head = read_head(paths)
    return max(counted, head.epoch_max if head else 0, *segments(paths), 0) + 1


def _note_epoch(paths: AuditPaths, files: Files, epoch: int) -> None:
    draft = paths.journal / "epoch.tmp"
    files.unlink(draft)
    descriptor = files.create(draft)
    try:
        write_all(files, descriptor, b"%d\n" % epoch)
        files.fdatasync(descriptor)
    finally:
        files.close(descriptor)
    files.replace(draft, paths.journal / "epoch")

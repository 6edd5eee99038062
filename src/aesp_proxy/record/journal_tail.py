"""Read one epoch of the journal in order, while it is written or long after.

Rules: only whole frames come out, each sequence number once, ascending. What
cannot be read is never passed over in silence: it shows as ``lost`` in front of
the next whole frame. A cut at the end of a dead epoch is a record whose
``append`` never returned, so it is nobody's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from aesp_proxy.errors import RecordError
from aesp_proxy.record.canonical import RECORD_BYTES_MAX
from aesp_proxy.record.frames import (
    FRAME_BYTES,
    MAGIC,
    FrameFlag,
    decode_segment_head,
    is_long_enough,
    resync,
    scan,
    scan_run,
)
from aesp_proxy.record.state import AuditPaths


@dataclass(slots=True, kw_only=True)
class Stretch:
    """Consecutive rows of one epoch: ``first_seq`` on, after ``lost`` unreadable records.

    ``dropped`` is what the epoch's loss counter says and no batch has declared yet.

    ``at_end`` says that nothing more can be read now; ``is_closed`` that the
    writer closed the epoch; ``torn_bytes`` what stands at its end and is no whole
    frame, ``torn_is_whole`` that it is long enough to be one and its sum is wrong.
    """

    first_seq: int
    rows: list[bytes] = field(default_factory=list)
    row_bytes: int = 0
    denied: bool = False
    lost: int = 0
    dropped: int = 0
    is_closed: bool = False
    at_end: bool = False
    torn_bytes: int = 0
    torn_is_whole: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether a batch of it would say nothing."""
        return not (self.rows or self.lost or self.dropped)


class EpochTail:
    """A reader's place in one epoch."""

    def __init__(self, paths: AuditPaths, origin: str, epoch: int, next_seq: int) -> None:
        """Begin at ``next_seq``; earlier records are skipped."""
        self._paths, self._origin, self.epoch = paths, origin, epoch
        self.next_seq = max(1, next_seq)
        self.segment = 0
        self._offset = 0
        self._closed = False

    def read(self, segments: list[int], *, bytes_max: int, is_dead: bool) -> Stretch:
        """Read on, up to about ``bytes_max`` bytes of rows.

        ``segments`` are the numbers on disk now, ascending; ``is_dead`` was asked
        before. RecordError when a file cannot be read or is another host's.
        """
        stretch = Stretch(first_seq=self.next_seq, is_closed=self._closed)
        while stretch.row_bytes < bytes_max and not self._closed:
            if self.segment not in segments and not self._step(segments):
                stretch.at_end = True
                return stretch
            is_last = self.segment == segments[-1]
            if not self._read_segment(stretch, bytes_max, is_last=is_last, is_dead=is_dead):
                return stretch
        stretch.at_end = self._closed
        return stretch

    def _step(self, segments: list[int]) -> bool:
        later = [number for number in segments if number > self.segment]
        if later:
            self.segment, self._offset = later[0], 0
        return bool(later)

    def _read_segment(
        self, stretch: Stretch, bytes_max: int, *, is_last: bool, is_dead: bool
    ) -> bool:
        """Take frames from the current segment; False when the caller should stop here."""
        data = self._load(bytes_max - stretch.row_bytes)
        if self._take_run(stretch, data, bytes_max - stretch.row_bytes):
            return True
        found = scan(data, 0, bytes_max=bytes_max - stretch.row_bytes)
        if not self._take(stretch, found.frames):
            return False
        self._offset += found.end
        if self._closed or found.frames:
            return True
        return self._at_stop(stretch, data, is_last=is_last, is_dead=is_dead)

    def _load(self, wanted: int) -> bytes:
        path = self._paths.segment(self.epoch, self.segment)
        if self._offset == 0:
            self._offset = self._head_end()
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                return file.read(wanted + 2 * RECORD_BYTES_MAX)
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error

    def _head_end(self) -> int:
        path = self._paths.segment(self.epoch, self.segment)
        try:
            with path.open("rb") as file:
                data = file.read(RECORD_BYTES_MAX)
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
        try:
            found = decode_segment_head(data, where=str(path))
        except RecordError:
            # A damaged head hides no record: the frames behind it say who they are.
            return len(MAGIC)
        if found is None:
            return len(MAGIC)
        head, end = found
        if (head.origin, head.epoch) != (self._origin, self.epoch):
            raise RecordError(
                f"is of {head.origin}/{head.epoch}", where=str(path), remedy="move it away"
            )
        return end

    def _take_run(self, stretch: Stretch, data: bytes, bytes_max: int) -> bool:
        rows, end, flags = scan_run(data, self.next_seq, bytes_max=bytes_max)
        if not rows:
            return False
        stretch.rows += rows
        stretch.row_bytes += end
        stretch.denied = stretch.denied or bool(flags & FrameFlag.DENIED)
        self.next_seq += len(rows)
        self._offset += end
        return True

    def _take(self, stretch: Stretch, frames: list[tuple[int, int, bytes]]) -> bool:
        """Add frames in sequence; False at a hole when rows before it are to go out first."""
        for seq, flags, row in frames:
            if flags & FrameFlag.SEGMENT or seq < self.next_seq:
                continue
            if seq > self.next_seq:
                if stretch.rows:
                    return False
                stretch.lost += seq - self.next_seq
                stretch.first_seq = self.next_seq = seq
            if flags & FrameFlag.CLOSED:
                self._closed = stretch.is_closed = True
                return True
            stretch.rows.append(row)
            stretch.row_bytes += len(row) + FRAME_BYTES
            stretch.denied = stretch.denied or bool(flags & FrameFlag.DENIED)
            self.next_seq = seq + 1
        return True

    def _at_stop(self, stretch: Stretch, data: bytes, *, is_last: bool, is_dead: bool) -> bool:
        """Nothing whole stands at the offset: wait, skip damage, or go to the next segment."""
        if not data and not is_last:
            self._offset, self.segment = 0, self.segment + 1
            return True
        if not data:
            stretch.at_end = True
            return False
        rest = self._rest()
        skip = resync(rest, 0, self.next_seq)
        if skip > 0:
            self._offset += skip
            return True
        if not is_last:
            self._offset, self.segment = 0, self.segment + 1
            return True
        stretch.at_end = True
        stretch.torn_bytes = len(rest) if is_dead else 0
        stretch.torn_is_whole = is_dead and is_long_enough(rest)
        return False

    def _rest(self) -> bytes:
        path = self._paths.segment(self.epoch, self.segment)
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error

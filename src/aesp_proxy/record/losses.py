"""The loss counter of one epoch: what its operator lets pass when it cannot be recorded.

Rules: nothing may be lost unless a class is named. Never lost is what was refused, asked,
redacted or audited, what has findings or is not read, what writes, runs or removes a file,
what came of a tool or a patch, and what tells of the service itself. The counter is a file of
its own beside the journal, with room taken when the epoch begins: it is written in place, so
it needs no room when the disk has none, and in two places by turns, so one torn write takes
nothing back. When a count is written it survives ``kill -9``. The sealer signs it in a header.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final
from zlib import crc32

from aesp_proxy.errors import RecordError
from aesp_proxy.model.decision import Verdict
from aesp_proxy.model.event import FileOperation
from aesp_proxy.model.record import CONTENT_KEY, Outcome, Record, RecordKind
from aesp_proxy.record.files import Files, write_all

_MAGIC: Final = b"AESPLOS1"
_SLOT: Final = struct.Struct("<8sQQQ4Q")  # magic, total, first and last time, of each class
_SUM: Final = struct.Struct("<I")
_SLOT_BYTES: Final = _SLOT.size + _SUM.size
_SLOT_AT: Final = (0, 512)  # a disk writes a sector whole or not


class Losable(StrEnum):
    """A class of events of which the record may lose some; the words of ``audit.may_lose``."""

    OUTCOMES = "outcomes"
    """How an allowed attempt came off; its decision is recorded."""
    NAMES = "names"
    """Allowed queries for a name."""
    FILE_READS = "file_reads"
    """Allowed openings of a file for reading."""
    REQUESTS = "requests"
    """Allowed requests and connections."""


_ORDER: Final = tuple(Losable)


def losable_of(record: Record) -> Losable | None:
    """Give the class of a record that may be lost where the operator says so; None: never."""
    passed = record.verdict == Verdict.ALLOW.value and record.outcome is not Outcome.DENIED
    if record.kind is RecordKind.LIFECYCLE or not passed or record.findings:
        return None
    if record.kind is RecordKind.OUTCOME:
        return Losable.OUTCOMES
    if any(key == CONTENT_KEY for key, _ in record.metadata):
        return None  # what nobody reads: the record is all there is of it
    if record.action == "dns.query":
        return Losable.NAMES
    if record.action == FileOperation.OPEN:
        return Losable.FILE_READS
    if record.action == "tcp.connect" or record.action.startswith("http."):
        return Losable.REQUESTS
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What one epoch has lost since it began: UTC nanoseconds of the first and the last."""

    of: Mapping[Losable, int] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0

    @property
    def total(self) -> int:
        """All classes together."""
        return sum(self.of.values())

    def plus(self, losable: Losable, now_ns: int) -> Losses:
        """Give the count with one more."""
        counts = {**self.of, losable: self.of.get(losable, 0) + 1}
        return Losses(of=counts, first_ns=self.first_ns or now_ns, last_ns=now_ns)


NO_LOSSES: Final = Losses()


class LossCounter:
    """The counter of a living epoch; not thread-safe, its owner locks."""

    def __init__(self, path: Path, *, files: Files) -> None:
        """Take the room for it. OSError when there is none."""
        self._files, self._turn = files, 0
        self._descriptor = files.create_fixed(path)
        self._is_trusted = True
        self.losses = NO_LOSSES
        try:
            empty = _encode(NO_LOSSES)
            write_all(files, self._descriptor, empty.ljust(_SLOT_AT[1], b"\x00") + empty)
        except OSError:
            self.close()
            files.unlink(path)
            raise

    def add(self, losable: Losable, *, now_ns: int, is_durable: bool) -> None:
        """Count one. RecordError: it is not counted, so it must not take effect."""
        if not self._is_trusted:
            raise RecordError("the loss counter could not be made durable")
        losses, turn = self.losses.plus(losable, now_ns), 1 - self._turn
        data = _encode(losses)
        try:
            written = self._files.overwrite(self._descriptor, data, _SLOT_AT[turn])
            if is_durable:
                self.sync()
        except OSError as error:
            raise RecordError(f"the loss counter cannot be written: {error.strerror}") from error
        if written != len(data):
            raise RecordError("the loss counter cannot be written whole")
        self.losses, self._turn = losses, turn

    def sync(self) -> None:
        """Make the count survive a power cut. OSError: the file is not trusted again."""
        try:
            self._files.fdatasync(self._descriptor)
        except OSError:
            self._is_trusted = False
            raise

    def close(self) -> None:
        """Let go of the file; again is harmless."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._files.close(self._descriptor)
            self._descriptor = -1


def _encode(losses: Losses) -> bytes:
    counts = (losses.of.get(losable, 0) for losable in _ORDER)
    packed = _SLOT.pack(_MAGIC, losses.total, losses.first_ns, losses.last_ns, *counts)
    return packed + _SUM.pack(crc32(packed))


def read_losses(path: Path) -> Losses | None:
    """Read the counter of an epoch; nothing lost where it has none, None when it is damaged.

    RecordError when the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return NO_LOSSES
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
    whole = [losses for at in _SLOT_AT if (losses := _decode(data[at : at + _SLOT_BYTES]))]
    return max(whole, key=lambda losses: losses.total) if whole else None


def _decode(data: bytes) -> Losses | None:
    if len(data) != _SLOT_BYTES or _SUM.unpack(data[_SLOT.size :])[0] != crc32(data[: _SLOT.size]):
        return None
    magic, total, first_ns, last_ns, *counts = _SLOT.unpack(data[: _SLOT.size])
    if magic != _MAGIC or total != sum(counts):
        return None
    of = {losable: count for losable, count in zip(_ORDER, counts, strict=True) if count}
    return Losses(of=of, first_ns=first_ns, last_ns=last_ns)


def losses_record(
    losses: Losses, before: Losses, *, epoch: int, time_ns: int, first_ns: int
) -> Record:
    """Compose the record that says what was lost between ``before`` and now, by class."""
    gone = {losable: losses.of.get(losable, 0) - before.of.get(losable, 0) for losable in _ORDER}
    return Record(
        kind=RecordKind.LIFECYCLE,
        time_ns=time_ns,
        event_type="audit.records_lost",
        action="audit.lose_records",
        outcome=Outcome.FAILURE,
        verdict="",
        reason="record_failed",
        guard="journal",
        severity="critical",
        message=f"{sum(gone.values())} records could not be kept; audit.may_lose let them pass",
        resource=str(epoch),
        metadata=tuple(
            sorted(
                [(losable.value, str(count)) for losable, count in gone.items() if count]
                + [("first_ns", str(first_ns)), ("last_ns", str(losses.last_ns))]
            )
        ),
    )

"""The journal: what the deciding process writes before anything takes effect.

Rules: when ``append`` returns, the record survives the death of this process;
in the blocking modes it survives a power cut. When it raises, nothing passes.
Of classes that the operator has named (``losses``) a counter may survive in its place.
A thread syncs every ``sync_ms`` and once a second looks at the space in use.
No key, no hashing and no network here: another process seals what this writes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from aesp_proxy.errors import InputError, RecordError
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.canonical import pack_row
from aesp_proxy.record.files import OS_FILES, Files
from aesp_proxy.record.frames import FrameFlag
from aesp_proxy.record.journal_epoch import EpochWriter
from aesp_proxy.record.losses import NO_LOSSES, Losable, losable_of, losses_record
from aesp_proxy.record.state import AuditPaths, ensure_origin, list_dir, prepare, read_status

MIB: Final = 1024 * 1024
SEALER_SILENT_S_MAX: Final = 15.0
HIGH_WATER: Final = 0.8
_REOPEN_S: Final = 1.0
_LIMITS_S: Final = 1.0


class Mode(StrEnum):
    """When a record counts as written."""

    BATCH = "batch"
    """It survives ``kill -9``; the disk follows within ``sync_ms``."""
    BLOCKING = "blocking"
    """It survives a power cut."""
    BLOCKING_STRICT = "blocking-strict"
    """As blocking, and any doubt refuses: a silent sealer, a spool near its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """How a journal behaves; ``spool_bytes_max`` counts unsealed and sealed bytes on disk.

    ``may_lose`` names the classes of which a count is enough where no record can be written.
    """

    mode: Mode = Mode.BATCH
    sync_ms: int = 20
    segment_bytes_max: int = 16 * MIB
    spool_bytes_max: int = 4096 * MIB
    may_lose: frozenset[Losable] = frozenset()


class Journal:
    """Appends records of one process; safe to call from several threads."""

    def __init__(
        self,
        paths: AuditPaths,
        origin: str,
        options: JournalOptions,
        *,
        files: Files,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._paths, self._options, self._files = paths, options, files
        self._monotonic, self._wall = monotonic, wall
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._refusal = ""
        self._reopened_s = monotonic()
        self._limits_s = float("-inf")
        self._is_dirty = False
        self._is_durable = options.mode is not Mode.BATCH
        self._told = NO_LOSSES
        self._untold_ns = 0
        self.origin = origin
        self._writer = self._new_writer()
        self.check_limits()

    @classmethod
    def open(
        cls,
        state_dir: Path,
        origin: str = "",
        *,
        options: JournalOptions | None = None,
        files: Files = OS_FILES,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        background: bool = True,
    ) -> Self:
        """Begin a new epoch under ``state_dir``; several processes may do so at once.

        ``origin`` names the host when the state has no name yet. Without
        ``background`` the caller syncs. ConfigError for a state that cannot be
        used, RecordError when it cannot be written.
        """
        paths = prepare(state_dir)
        origin = ensure_origin(paths, wanted=origin)
        journal = cls(
            paths,
            origin,
            options or JournalOptions(),
            files=files,
            monotonic=monotonic,
            wall=wall,
        )
        if background:
            journal._start()
        return journal

    @property
    def epoch(self) -> int:
        """The epoch that the next record gets."""
        return self._writer.epoch

    def append(self, record: Record) -> RecordId:
        """Write one record and give its identity. RecordError: it must not take effect.

        An identity with seq 0 has no record: it was of a class that may be lost, and is counted.
        """
        with self._lock:
            try:
                return self._write(record)
            except RecordError as error:
                losable = losable_of(record)
                if losable is None or losable not in self._options.may_lose:
                    raise
                return self._lose(record, losable, error)

    def _write(self, record: Record) -> RecordId:
        if self._refusal or self._writer.poison:
            self._recover()
        if self._untold_ns:
            self._append_notes(self._untold(self._writer))
        writer = self._writer
        row = self._pack(record)
        flags = FrameFlag.DENIED if record.outcome is Outcome.DENIED else 0
        seq = writer.append(flags, row)
        self._is_dirty = True
        if self._is_durable:
            writer.sync()
        return RecordId(origin=self.origin, epoch=writer.epoch, seq=seq)

    def _pack(self, record: Record) -> bytes:
        try:
            return pack_row(record, self.origin, self._writer.epoch, self._writer.next_seq)
        except InputError as error:
            raise RecordError(error.message) from error

    def _lose(self, record: Record, losable: Losable, why: RecordError) -> RecordId:
        """Count what passes without a record; what no record could hold is refused, not lost."""
        self._pack(record)
        counter = self._writer.losses
        if counter is None:
            raise why
        now_ns = int(self._wall() * 1e9)
        counter.add(losable, now_ns=now_ns, is_durable=self._is_durable)
        self._untold_ns = self._untold_ns or now_ns
        self._is_dirty = True
        return RecordId(origin=self.origin, epoch=self._writer.epoch, seq=0)

    def _untold(self, writer: EpochWriter) -> list[Record]:
        """Compose, once there is room again, what was lost and is not told yet."""
        if not self._untold_ns or writer.losses is None:
            return []
        lost, before, first_ns = writer.losses.losses, self._told, self._untold_ns
        self._told, self._untold_ns = lost, 0
        now_ns = int(self._wall() * 1e9)
        return [losses_record(lost, before, epoch=writer.epoch, time_ns=now_ns, first_ns=first_ns)]

    def _append_notes(self, notes: list[Record]) -> None:
        for note in notes:
            self._writer.append(0, self._pack(note))

    def _recover(self) -> None:
        if self._writer.poison:
            self._reopen()
        if self._refusal:
            raise RecordError(
                self._refusal,
                where=str(self._paths.root),
                remedy="ship or archive batches, or raise audit.spool_bytes_max",
            )

    def _reopen(self) -> None:
        now = self._monotonic()
        if now - self._reopened_s < _REOPEN_S:
            raise RecordError(self._writer.poison, remedy="trying again within a second")
        self._reopened_s = now
        poisoned = self._writer
        self._writer = self._new_writer()
        poisoned.abandon()
        notes = [self._reopened_record(poisoned), *self._untold(poisoned)]
        self._told = NO_LOSSES  # the new epoch counts from nothing
        self._append_notes(notes)

    def _reopened_record(self, poisoned: EpochWriter) -> Record:
        return Record(
            kind=RecordKind.LIFECYCLE,
            time_ns=int(self._wall() * 1e9),
            event_type="audit.journal_reopened",
            action="audit.reopen_journal",
            outcome=Outcome.FAILURE,
            verdict="",
            reason="record_failed",
            guard="journal",
            severity="critical",
            message=f"epoch {poisoned.epoch} was given up: {poisoned.poison}",
            resource=str(poisoned.epoch),
            metadata=(("next_seq", str(poisoned.next_seq)),),
        )

    def _new_writer(self) -> EpochWriter:
        return EpochWriter(
            self._paths,
            self.origin,
            files=self._files,
            segment_bytes_max=self._options.segment_bytes_max,
            may_lose=bool(self._options.may_lose),
        )

    def sync(self) -> None:
        """Make all that was appended survive a power cut. RecordError poisons the epoch."""
        with self._lock:
            if not self._is_dirty:
                return
            self._is_dirty = False
            writer = self._writer
            retired, current = writer.take_descriptors()
            names = writer.take_unsynced_names()
        # Outside the lock: appends go on while the disk works.
        writer.sync_descriptors(retired, current, names=names)
        writer.sync_losses()

    def check_limits(self) -> None:
        """Look at space and sealer, and refuse or accept from now on."""
        self._limits_s = self._monotonic()
        try:
            self._refusal = self._doubt()
        except RecordError as error:
            self._refusal = str(error)

    def _doubt(self) -> str:
        status, modified_s = read_status(self._paths)
        spooled = int(status.get("spool_bytes", 0)) + _bytes_in(self._paths.journal)
        limit = self._options.spool_bytes_max
        if spooled >= limit:
            return f"{spooled} bytes wait on disk, the limit is {limit}"
        if self._options.mode is not Mode.BLOCKING_STRICT:
            return ""
        if spooled >= limit * HIGH_WATER:
            return f"{spooled} bytes wait on disk, close to the limit of {limit}"
        if self._wall() - modified_s > SEALER_SILENT_S_MAX:
            return "the sealer has not been heard of"
        return ""

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._options.sync_ms / 1000):
                # A failed sync poisons the epoch; the next append says so.
                with contextlib.suppress(RecordError):
                    self.sync()
                if self._monotonic() - self._limits_s >= _LIMITS_S:
                    self.check_limits()
        finally:
            if not self._stop.is_set():
                self._refusal = "the journal's syncing thread has died"

    def close(self) -> None:
        """Stop, mark the end of the epoch and make it durable. RecordError when not durable."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bytes_in(directory: Path) -> int:
    total = 0
    for path in list_dir(directory):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total

"""Read the records of a state directory: sealed first, then what is not sealed yet.

Rules: reading takes no lock and changes nothing; a batch that is sealed while
one reads is read once. What is given is what the files say, checked for form
only: whether it is true is the business of ``audit verify``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesp_proxy.errors import InputError, RecordError
from aesp_proxy.model.record import Record, RecordId
from aesp_proxy.record.batch import (
    PREFIX_BYTES,
    Limits,
    decode_batch,
    header_bytes_of,
    open_body,
)
from aesp_proxy.record.canonical import decode
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.files import is_locked
from aesp_proxy.record.header import HEADER_BYTES_MAX, BatchHeader, decode_header
from aesp_proxy.record.journal_tail import EpochTail, Stretch
from aesp_proxy.record.state import (
    AuditPaths,
    audit_paths,
    load_origin,
    numbered_batches,
    read_head,
    segments,
)

Entry = tuple[RecordId, Record]
_STRETCH_BYTES_MAX = 1024 * 1024


class StateReader:
    """A reader's place in one state directory; asking again goes on where it stopped."""

    def __init__(self, paths: AuditPaths, *, epoch: int = 0) -> None:
        """Read everything, or only ``epoch``. Nothing is opened yet."""
        self._paths, self._epoch = paths, epoch
        self._batch_no = 0
        self._next_seq: dict[int, int] = {}
        self._tails: dict[int, EpochTail] = {}

    def skip_to_last(self, count: int) -> None:
        """Leave out batches so old that ``count`` newer records stand in later ones."""
        head = read_head(self._paths)
        if head is None:
            return
        next_seq, left, newest = dict(head.next_seq), count, head.batch_no
        for number, path in reversed(numbered_batches(self._paths.batches)):
            if left <= 0:
                self._batch_no = number
                break
            if number <= newest:
                header = peek_header(path)
                next_seq[header.epoch] = header.first_seq
                left -= header.count
        else:
            return
        # Where each epoch goes on: behind what the batches left out hold of it.
        self._next_seq = {epoch: seq for epoch, seq in next_seq.items() if epoch}

    def new_entries(self) -> Iterator[Entry]:
        """Give what is there and was not given yet. RecordError, ChainError, InputError."""
        return map(decode, self.new_rows())

    def new_rows(self) -> Iterator[bytes]:
        """Give the same as packed rows, not looked into yet."""
        # The journal is listed first: what is sealed meanwhile is then found in a batch.
        on_disk = segments(self._paths)
        yield from self._sealed()
        for epoch in on_disk:
            if self._epoch in {0, epoch}:
                yield from self._unsealed(epoch)
        yield from self._sealed()

    def _sealed(self) -> Iterator[bytes]:
        for number, path in numbered_batches(self._paths.batches):
            if number <= self._batch_no:
                continue
            try:
                epoch = peek_header(path).epoch
                data = path.read_bytes() if epoch and self._epoch in {0, epoch} else b""
            except FileNotFoundError:
                continue  # released meanwhile
            except OSError as error:
                raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
            if data:
                yield from self._batch_rows(data, str(path))
            self._batch_no = number

    def _batch_rows(self, data: bytes, where: str) -> Iterator[bytes]:
        try:
            header, rows = batch_rows(data)
        except ChainError as error:
            raise ChainError(error.kind, error.message, where=where) from error
        given = self._next_seq.get(header.epoch, 1)
        self._next_seq[header.epoch] = max(given, header.first_seq + header.count)
        yield from rows[max(0, given - header.first_seq) :]

    def _unsealed(self, epoch: int) -> Iterator[bytes]:
        tail = self._tails.get(epoch)
        next_seq = self._next_seq.get(epoch, 1)
        if tail is None or tail.next_seq < next_seq:
            tail = EpochTail(self._paths, load_origin(self._paths), epoch, next_seq)
            self._tails[epoch] = tail
        at_end = False
        while not at_end:
            stretch = read_stretch(self._paths, tail)
            if stretch is None or (stretch.lost and self._is_sealed_meanwhile(stretch)):
                del self._tails[epoch]
                return
            yield from stretch.rows
            self._next_seq[epoch] = stretch.first_seq + len(stretch.rows)
            at_end = stretch.at_end

    def _is_sealed_meanwhile(self, stretch: Stretch) -> bool:
        # Segments are removed once sealed: a hole then is no loss, the batch has it.
        newest = numbered_batches(self._paths.batches)
        return bool(newest) and newest[-1][0] > self._batch_no and stretch.lost > 0


def peek_header(path: Path) -> BatchHeader:
    """Read the header of a batch file and nothing more. OSError; ChainError for bad form."""
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES_MAX + PREFIX_BYTES)
    try:
        return decode_header(header_bytes_of(start))
    except ChainError as error:
        raise ChainError(error.kind, error.message, where=str(path)) from error


def batch_rows(data: bytes) -> tuple[BatchHeader, list[bytes]]:
    """Take the rows out of a batch without checking a signature. ChainError for bad form."""
    batch = decode_batch(data)
    header = decode_header(batch.header_bytes)
    limits = Limits()
    rows = open_body(
        header,
        batch.body,
        inflated_bytes_max=limits.inflated_bytes_max,
        rows_max=limits.rows_max,
    )
    return header, rows


def read_stretch(paths: AuditPaths, tail: EpochTail) -> Stretch | None:
    """Read on in an epoch; None when its files were removed because they are sealed."""
    is_dead = not is_locked(paths.live(tail.epoch))
    numbers = segments(paths).get(tail.epoch)
    if not numbers:
        return None
    try:
        return tail.read(numbers, bytes_max=_STRETCH_BYTES_MAX, is_dead=is_dead)
    except RecordError:
        if segments(paths).get(tail.epoch) != numbers:
            return None
        raise


def read_state(state_dir: Path, *, epoch: int = 0) -> Iterator[Entry]:
    """Give every record of a state directory, or of one epoch, in order of epochs sealed.

    ConfigError when it is no state directory; RecordError, ChainError and
    InputError name the file that cannot be read.
    """
    paths = audit_paths(state_dir)
    load_origin(paths)
    yield from StateReader(paths, epoch=epoch).new_entries()


def find_record(paths: AuditPaths, epoch: int, seq: int) -> tuple[Record, BatchHeader | None]:
    """Find one record and the header of its batch, None when it is not sealed yet.

    InputError when there is none.
    """
    for _, path in numbered_batches(paths.batches):
        header = peek_header(path)
        if header.epoch == epoch and 0 <= seq - header.first_seq < header.count:
            _, rows = batch_rows(path.read_bytes())
            return decode(rows[seq - header.first_seq])[1], header
    for record_id, record in StateReader(paths, epoch=epoch).new_entries():
        if record_id.seq == seq:
            return record, None
    raise InputError(
        f"holds no record {epoch}/{seq}",
        where=str(paths.root.parent),
        remedy="another state: --state; released ones are at the aggregator",
    )

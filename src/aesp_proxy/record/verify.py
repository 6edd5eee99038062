"""Verify what lies in a directory, off line: batches, receipts, and the unsealed journal.

Rules: nothing is changed and no network is used. The keys may come from the
directory itself, which proves that the record is of one piece; only a pinned
key proves whose it is, and the report says which of the two was done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aesp_proxy.errors import ConfigError, InputError, RecordError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.canonical import POSITION, decode_row
from aesp_proxy.record.chain import ChainVerifier, Problem, Witness
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.head import Head
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.journal_tail import EpochTail, Stretch
from aesp_proxy.record.keyring import KeyRing, KeySpan, pinned
from aesp_proxy.record.keys import PUBLIC_SUFFIX, load_public_keys
from aesp_proxy.record.losses import read_losses
from aesp_proxy.record.reader import read_stretch
from aesp_proxy.record.receipt import Receipt, decode_receipt, verify_receipt
from aesp_proxy.record.signature import key_id_of, public_from_pem
from aesp_proxy.record.state import (
    AuditPaths,
    audit_paths,
    load_origin,
    numbered_batches,
    read_head,
    segments,
)

_ROUNDS_MAX = 100

Progress = Callable[[int, int], None]
"""Told after each batch: how many are done, how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What the verifier brings along and does not take from the directory."""

    key: bytes | None = None
    receipt: bytes | None = None
    aggregator_key: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found.

    ``unsealed`` counts journal records that no batch holds yet, ``lost`` those that the host
    declares to be in no batch at all.
    """

    origin: str = ""
    batches: int = 0
    records: int = 0
    unsealed: int = 0
    lost: int = 0
    newest_batch: int = 0
    key_is_pinned: bool = False
    receipt_batch: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def add(self, found: list[Problem]) -> None:
        """Sort what was found into problems and notes."""
        for problem in found:
            (self.notes if problem.is_note else self.problems).append(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What kind of directory it is: ``audit`` is None for bare batch files."""

    batches: Path
    audit: AuditPaths | None


def locate(directory: Path) -> Place:
    """Tell a state directory, an audit directory and a directory of batches apart.

    ConfigError when it is none of them.
    """
    for paths in (audit_paths(directory), AuditPaths(directory)):
        if paths.origin.is_file() and paths.batches.is_dir():
            return Place(batches=paths.batches, audit=paths)
    if not directory.is_dir():
        raise ConfigError("is no directory", where=str(directory))
    if numbered_batches(directory):
        return Place(batches=directory, audit=None)
    raise ConfigError(
        "holds no record",
        where=str(directory),
        remedy="name a state directory, or one with .batch files of one origin",
    )


def verify_place(
    directory: Path, pins: Pins, *, progress: Progress = lambda _done, _all: None
) -> Report:
    """Verify everything under ``directory``.

    ConfigError when it holds no record or no key is known; RecordError when a
    file cannot be read. What is wrong with the record itself is in the report.
    """
    place = locate(directory)
    report = Report(key_is_pinned=pins.key is not None)
    origin = load_origin(place.audit) if place.audit else ""
    head = _head_of(place, report)
    receipt, is_proved = _receipt_of(place, pins, report)
    verifier = ChainVerifier(
        keys=_ring_of(place, pins),
        origin=origin,
        witnesses=_witnesses(head, receipt),
        released_to=receipt.batch_no if receipt and is_proved else 0,
    )
    _feed_all(place, verifier, report, progress)
    report.add(verifier.finish())
    report.batches, report.records = verifier.batch_count, verifier.record_count
    report.lost += verifier.lost_count
    newest = verifier.newest
    if newest is not None:
        report.origin, report.newest_batch = newest.header.origin, newest.header.batch_no
    else:
        report.origin = origin
    return report


def _feed_all(place: Place, verifier: ChainVerifier, report: Report, progress: Progress) -> None:
    """Verify batches and journal of a state that may be sealed meanwhile.

    A batch is on disk before its journal goes: if none came while the journal was
    read, what is absent from the journal is absent.
    """
    fed = _feed(place, verifier, report, 0, progress)
    for _ in range(_ROUNDS_MAX):
        unsealed = _verify_journal(place.audit, verifier) if place.audit else Report()
        before, fed = fed, _feed(place, verifier, report, fed, progress)
        if fed == before:
            break
    report.unsealed, report.lost = unsealed.unsealed, unsealed.lost
    report.problems += unsealed.problems
    report.notes += unsealed.notes


def _feed(
    place: Place, verifier: ChainVerifier, report: Report, after: int, progress: Progress
) -> int:
    found = [item for item in numbered_batches(place.batches) if item[0] > after]
    for done, (number, path) in enumerate(found, start=1):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
        report.add(verifier.feed(path.name, data, number=number))
        progress(done, len(found))
    return found[-1][0] if found else after


def _head_of(place: Place, report: Report) -> Head | None:
    if place.audit is None:
        return None
    try:
        return read_head(place.audit)
    except ChainError as error:
        report.problems.append(Problem(kind=error.kind, place="head", message=error.message))
        return None


def _witnesses(head: Head | None, receipt: Receipt | None) -> tuple[Witness, ...]:
    found = []
    if head is not None and head.batch_no:
        found.append(Witness(name="head", batch_no=head.batch_no, header_hash=head.header_hash))
    if receipt is not None:
        found.append(
            Witness(name="receipt", batch_no=receipt.batch_no, header_hash=receipt.header_hash)
        )
    return tuple(found)


def _receipt_of(place: Place, pins: Pins, report: Report) -> tuple[Receipt | None, bool]:
    """Give the receipt, and whether its signature was checked."""
    data = pins.receipt
    if data is None and place.audit is not None and place.audit.receipt.exists():
        data = place.audit.receipt.read_bytes()
    if data is None:
        return None, False
    key = pins.aggregator_key or _aggregator_key(place)
    try:
        receipt = verify_receipt(data, public_key=key) if key else decode_receipt(data)[0]
    except ChainError as error:
        report.problems.append(Problem(kind=error.kind, place="receipt", message=error.message))
        return None, False
    report.receipt_batch = receipt.batch_no
    return receipt, bool(key)


def _aggregator_key(place: Place) -> bytes | None:
    if place.audit is None:
        return None
    path = place.audit.root.parent / "forward" / "aggregator.pub"
    return public_from_pem(path.read_bytes(), where=str(path)) if path.is_file() else None


def _ring_of(place: Place, pins: Pins) -> KeyRing:
    if pins.key is not None:
        return pinned(pins.key)
    keys = load_public_keys(place.audit) if place.audit else _keys_beside(place.batches)
    if not keys and numbered_batches(place.batches):
        raise ConfigError(
            "no key to verify with", where=str(place.batches), remedy="give it with --key FILE.pub"
        )
    first = _first_key_id(place.batches)
    if first in keys:
        # The first key, and from then on only those that the chain itself names.
        return pinned(keys[first])
    return KeyRing(spans=tuple(KeySpan(public_key=key) for key in keys.values()))


def _keys_beside(batches: Path) -> dict[str, bytes]:
    """Find public keys beside bare batches, or where an aggregator keeps an origin's first."""
    enrolled = batches.absolute().parent.parent / "origins" / (batches.absolute().name + ".pub")
    found = {}
    for path in (*sorted(batches.glob("*" + PUBLIC_SUFFIX)), enrolled):
        if path.is_file():
            key = public_from_pem(path.read_bytes(), where=str(path))
            found[key_id_of(key)] = key
    return found


def _first_key_id(batches: Path) -> str:
    numbered = numbered_batches(batches)
    if not numbered or numbered[0][0] != 1:
        return ""
    try:
        return decode_header(decode_batch(numbered[0][1].read_bytes()).header_bytes).key_id
    except (ChainError, OSError):
        return ""


def _verify_journal(paths: AuditPaths, verifier: ChainVerifier) -> Report:
    report = Report()
    proved = verifier.head
    if proved is None or proved.partial:
        # Where the beginning was released, only the host's own head knows every open epoch.
        with contextlib.suppress(ChainError):
            proved = read_head(paths) or proved
    origin = load_origin(paths)
    for epoch in segments(paths):
        expected = proved.expected_seq(epoch) if proved else 1
        if expected is None:
            continue  # sealed wholly; the sealer had no time to remove the files
        tail = EpochTail(paths, origin, epoch, expected)
        for stretch in _stretches(paths, tail):
            report.unsealed += len(stretch.rows)
            report.add(_problems_in(stretch, tail, origin, f"{epoch}-{tail.segment}.wal"))
        _count_lost(paths, epoch, proved.dropped_of(epoch) if proved else 0, report)
    return report


def _count_lost(paths: AuditPaths, epoch: int, declared: int, report: Report) -> None:
    """Say what a loss counter holds beyond what the batches of its epoch have declared."""
    path = paths.lost(epoch)
    losses = read_losses(path)
    lost = 0 if losses is None else losses.total - declared
    report.lost += max(0, lost)
    if losses is None:
        message = "the loss counter of the epoch is damaged"
    elif lost > 0:
        message = f"{lost} records were not kept, as the settings allow; no batch says so yet"
    else:
        return
    kind = Fault.CHANGED if losses is None else Fault.LOST
    report.add([Problem(kind=kind, place=path.name, record=f"{epoch}/0", message=message)])


def _stretches(paths: AuditPaths, tail: EpochTail) -> Iterator[Stretch]:
    while True:
        stretch = read_stretch(paths, tail)
        if stretch is None:
            return
        yield stretch
        if stretch.at_end:
            return


def _problems_in(stretch: Stretch, tail: EpochTail, origin: str, place: str) -> list[Problem]:
    problems = []
    epoch, first = tail.epoch, stretch.first_seq
    if stretch.lost:
        problems.append(
            Problem(
                kind=Fault.CHANGED,
                place=place,
                record=f"{epoch}/{first - stretch.lost}",
                message=f"{stretch.lost} unsealed records cannot be read, before {epoch}/{first}",
            )
        )
    for index, row in enumerate(stretch.rows):
        wrong = _wrong_row(row, origin, epoch, first + index)
        if wrong:
            problems.append(
                Problem(
                    kind=Fault.NON_CANONICAL,
                    place=place,
                    message=wrong,
                    record=f"{epoch}/{first + index}",
                )
            )
    if stretch.torn_bytes:
        kind = Fault.CHANGED if stretch.torn_is_whole else Fault.UNCLEAN
        problems.append(
            Problem(
                kind=kind,
                place=place,
                record=f"{epoch}/{tail.next_seq}",
                message=f"{stretch.torn_bytes} bytes at the end are no whole record",
            )
        )
    return problems


def _wrong_row(row: bytes, origin: str, epoch: int, seq: int) -> str:
    try:
        values = decode_row(row)
    except InputError as error:
        return error.message
    named = (values[POSITION["origin"]], values[POSITION["epoch"]], values[POSITION["seq"]])
    return "" if named == (origin, epoch, seq) else "the record names another place than its own"

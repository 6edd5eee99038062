"""Records, chains and states to test with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.batch import SealedBatch, draft, encode_batch, seal
from aesp_proxy.record.canonical import pack_row
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.head import Head, advance, genesis
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.journal import Journal, JournalOptions
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.signature import (
    Signer,
    key_id_of,
    new_private_pem,
    signer_from_pem,
)
from aesp_proxy.record.state import AuditPaths, ensure_origin, prepare

ORIGIN = "h-test"
SAMPLE = Record(
    kind=RecordKind.DECISION,
    time_ns=1_792_000_000_000_000_000,
    event_type="authorization",
    action="http.post",
    outcome=Outcome.SUCCESS,
    verdict="allow",
    reason="allowed",
    guard="egress_allowlist",
    severity="info",
    message="host is allowed",
    resource="https://api.example.test/v1/messages",
    target_host="api.example.test",
    target_port=443,
    agent_id="a1",
    findings=(
        Finding(
            rule="r",
            severity=Severity.ERROR,
            location="body",
            offset=3,
            masked="x…",
            fingerprint="ab",
        ),
    ),
    metadata=(("k", "v"),),
)


def record_of(number: int) -> Record:
    """A record that differs from every other."""
    return replace(SAMPLE, event_id=f"e-{number}", time_ns=SAMPLE.time_ns + number)


@dataclass
class ChainMaker:
    """Seals batches as a host would, or as a thief would."""

    public_key: bytes
    sign: Signer
    head: Head = field(default_factory=lambda: genesis(ORIGIN))
    seq: int = 1
    wall_ns: int = 1_000_000_000_000
    batches: list[bytes] = field(default_factory=list)

    def rows(self, count: int, *, epoch: int = 1, first_seq: int | None = None) -> list[bytes]:
        first = self.seq if first_seq is None else first_seq
        return [
            pack_row(record_of(first + i), self.head.origin, epoch, first + i) for i in range(count)
        ]

    def seal_rows(self, rows: list[bytes], **changes: object) -> SealedBatch:
        """Seal any rows under any header; keeps them as the next of the chain."""
        epoch = int(str(changes.pop("epoch", 1)))
        first_seq = int(str(changes.pop("first_seq", self.seq)))
        self.wall_ns += 1_000_000_000
        header = draft(
            self.head,
            key_id=key_id_of(self.public_key),
            epoch=epoch,
            first_seq=first_seq,
            wall_ns=self.wall_ns,
            mono_ns=self.wall_ns,
            boot_id="boot",
            first_time_ns=SAMPLE.time_ns + first_seq if rows else 0,
            last_time_ns=SAMPLE.time_ns + first_seq + len(rows) - 1 if rows else 0,
        )
        batch = seal(rows, header=replace(header, **changes), sign=self.sign)  # type: ignore[arg-type]
        full = decode_header(batch.header_bytes)
        try:
            self.head = advance(self.head, full, header_hash(batch.header_bytes))
        except ChainError:
            self.head = replace(
                self.head, batch_no=full.batch_no, header_hash=header_hash(batch.header_bytes)
            )
        self.seq = first_seq + len(rows)
        self.batches.append(encode_batch(batch))
        return batch

    def add(self, count: int = 3, **changes: object) -> SealedBatch:
        """Seal ``count`` more records."""
        return self.seal_rows(self.rows(count), **changes)


@pytest.fixture(autouse=True)
def _disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power of the machine; what is synced is tested by order."""
    monkeypatch.setattr(OsFiles, "fdatasync", staticmethod(os.fstat))
    monkeypatch.setattr(OsFiles, "sync_dir", lambda _, path: path.stat())


@pytest.fixture
def sample() -> Record:
    return SAMPLE


@pytest.fixture
def numbered_record() -> Callable[[int], Record]:
    return record_of


@pytest.fixture(scope="session")
def key_pair() -> tuple[bytes, Signer]:
    return signer_from_pem(new_private_pem())


@pytest.fixture
def chain(key_pair: tuple[bytes, Signer]) -> ChainMaker:
    return ChainMaker(*key_pair)


@pytest.fixture
def new_chain() -> Callable[[], ChainMaker]:
    """Make a chain of another key."""
    return lambda: ChainMaker(*signer_from_pem(new_private_pem()))


class QuickFiles(OsFiles):
    """Does not wait for the disk: no test here cuts the power."""

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        os.fstat(descriptor)

    def sync_dir(self, path: Path) -> None:
        path.stat()


QUICK = QuickFiles()


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.wall_ns, self.mono_ns, self.boot_id = 1_792_000_000 * 10**9, 10**9, "boot"

    def __call__(self) -> Stamp:
        return Stamp(wall_ns=self.wall_ns, mono_ns=self.mono_ns, boot_id=self.boot_id)

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)
        self.mono_ns += int(seconds * 1e9)


class StateMaker:
    """A state directory with journals and a sealer, driven by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths: AuditPaths = prepare(directory)
        self.origin = ensure_origin(self.paths, wanted=ORIGIN)
        self.clock = Clock()
        self.journals: list[Journal] = []

    def journal(self, **options: object) -> Journal:
        journal = Journal.open(
            self.directory,
            options=JournalOptions(**options),  # type: ignore[arg-type]
            monotonic=lambda: self.clock.mono_ns / 1e9,
            wall=lambda: self.clock.wall_ns / 1e9,
            files=QUICK,
            background=False,
        )
        self.journals.append(journal)
        return journal

    def sealer(self, **options: object) -> Sealer:
        return Sealer.open(
            self.paths,
            self.origin,
            load_signing_key(self.paths),
            SealerOptions(**{"heartbeat_s": 0, **options}),  # type: ignore[arg-type]
            files=QUICK,
            clock=self.clock,
        )

    def fill(self, journal: Journal, count: int, *, denied: bool = False) -> None:
        for number in range(count):
            record = record_of(number)
            if denied:
                record = replace(record, outcome=Outcome.DENIED, verdict="deny")
            journal.append(record)


@pytest.fixture
def state(tmp_path: Path):
    maker = StateMaker(tmp_path / "state")
    yield maker
    for journal in maker.journals:
        journal._writer.abandon()


@pytest.fixture(scope="session")
def state_maker() -> Callable[[Path], StateMaker]:
    """Make a state wherever one likes; who does lets go of its journals."""
    return StateMaker


@pytest.fixture
def new_state(tmp_path: Path):
    """Make states one after another."""
    made: list[StateMaker] = []

    def make() -> StateMaker:
        made.append(StateMaker(tmp_path / f"state-{len(made)}"))
        return made[-1]

    yield make
    for maker in made:
        for journal in maker.journals:
            journal._writer.abandon()

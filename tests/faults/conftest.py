"""A state whose disk fails when told, and what must hold after any failure."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from audit_world import memory_dir

from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.files import Files, OsFiles
from aesp_proxy.record.journal import Journal, JournalOptions
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.reader import read_state
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.state import ensure_origin, numbered_batches, prepare, read_head
from aesp_proxy.record.verify import Pins, Report, verify_place


class Crash(BaseException):
    """The process dies here: nothing in the program may catch this."""


class QuickFiles(OsFiles):
    """Does not wait for the disk: no test here cuts the power."""

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        os.fstat(descriptor)

    def sync_dir(self, path: Path) -> None:
        path.stat()


QUICK = QuickFiles()


@dataclass
class FaultyFiles(QuickFiles):
    """Fails operation number ``fail_at``: before it is done or after; as an error or a death.

    ``is_torn``: half of what is written gets there; other operations are not done.
    """

    fail_at: int = -1
    is_done: bool = False
    is_crash: bool = False
    is_torn: bool = False
    code: int = 5
    calls: list[str] = field(default_factory=list)

    def _step(self, name: str, act: Callable[[], object]) -> object:
        self.calls.append(name)
        if len(self.calls) - 1 != self.fail_at:
            return act()
        if self.is_done:
            act()
        if self.is_crash:
            raise Crash(name)
        raise OSError(self.code, os.strerror(self.code))

    def create(self, path: Path) -> int:
        return self._step("create", lambda: QUICK.create(path))  # type: ignore[return-value]

    def create_fixed(self, path: Path) -> int:
        return self._step("create", lambda: QUICK.create_fixed(path))  # type: ignore[return-value]

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> int:  # type: ignore[override]
        if self.is_torn and len(self.calls) == self.fail_at:
            os.pwrite(descriptor, data[: len(data) // 2], offset)
        return self._step(  # type: ignore[return-value]
            "overwrite", lambda: os.pwrite(descriptor, data, offset)
        )

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        if self.is_torn and len(self.calls) == self.fail_at:
            os.write(descriptor, data[: len(data) // 2])
        return self._step("write", lambda: os.write(descriptor, data))  # type: ignore[return-value]

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        self._step("fdatasync", lambda: QUICK.fdatasync(descriptor))

    def truncate(self, descriptor: int, size: int) -> None:  # type: ignore[override]
        self._step("truncate", lambda: os.ftruncate(descriptor, size))

    def replace(self, source: Path, target: Path) -> None:
        self._step("replace", lambda: QUICK.replace(source, target))

    def unlink(self, path: Path) -> None:
        self._step("unlink", lambda: QUICK.unlink(path))

    def sync_dir(self, path: Path) -> None:
        self._step("sync_dir", lambda: QUICK.sync_dir(path))


def make_record(number: int, *, denied: bool = False) -> Record:
    return Record(
        kind=RecordKind.DECISION,
        time_ns=1_792_000_000_000_000_000 + number,
        event_type="authorization",
        action="http.get",
        outcome=Outcome.DENIED if denied else Outcome.SUCCESS,
        verdict="deny" if denied else "allow",
        reason="allowed",
        guard="egress_allowlist",
        severity="info",
        message="m",
        resource=f"https://h{number}.test/",
        event_id=f"e-{number}",
    )


class FaultState:
    """One state directory; journals and sealers of it may be given failing files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = prepare(directory)
        self.origin = ensure_origin(self.paths, wanted="h-test")
        self.key = load_signing_key(self.paths)
        self.acknowledged: set[tuple[int, int]] = set()
        self.now_ns = 1_792_000_000 * 10**9
        self._next = 0

    def journal(self, files: Files = QUICK, **options: Any) -> Journal:
        return Journal.open(
            self.directory,
            options=JournalOptions(**options),
            files=files,
            background=False,
            monotonic=lambda: self.now_ns / 1e9,
            wall=lambda: self.now_ns / 1e9,
        )

    def append(self, journal: Journal, count: int = 1) -> None:
        for _ in range(count):
            self._next += 1
            given = journal.append(make_record(self._next))
            self.acknowledged.add((given.epoch, given.seq))

    def sealer(self, files: Files = QUICK, **options: int) -> Sealer:
        return Sealer.open(
            self.paths,
            self.origin,
            self.key,
            SealerOptions(**{"heartbeat_s": 0, **options}),
            files=files,
            clock=self.clock,
        )

    def clock(self) -> Stamp:
        self.now_ns += 1000
        return Stamp(wall_ns=self.now_ns, mono_ns=self.now_ns, boot_id="boot")

    def promised(self) -> dict[int, bytes]:
        """Batches that a shipper may have sent: they must never change again."""
        head = read_head(self.paths)
        newest = head.batch_no if head else 0
        return {
            number: path.read_bytes()
            for number, path in numbered_batches(self.paths.batches)
            if number <= newest
        }

    def assert_whole(self, *, losses: bool = False) -> Report:
        """Everything acknowledged is there once, and all of it verifies."""
        report = verify_place(self.directory, Pins(key=self.key.public_key))
        if not losses:
            assert report.problems == []
        read = [(i.epoch, i.seq) for i, _ in read_state(self.directory)]
        assert len(read) == len(set(read))
        assert self.acknowledged <= set(read)
        return report


@pytest.fixture(autouse=True)
def _disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power of the machine; what is synced is tested by order."""
    monkeypatch.setattr(OsFiles, "fdatasync", staticmethod(os.fstat))
    monkeypatch.setattr(OsFiles, "sync_dir", lambda _, path: path.stat())


@pytest.fixture
def quick_dir(tmp_path: Path) -> Iterator[Path]:
    """Give a directory in memory where there is one: thousands of small files are made here."""
    memory = memory_dir()
    if memory is None:
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="aesp-test-", dir=memory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def fault_state(quick_dir: Path) -> FaultState:
    return FaultState(quick_dir / "state")


@pytest.fixture
def new_fault_state(quick_dir: Path) -> Callable[[], FaultState]:
    made = []

    def make() -> FaultState:
        made.append(FaultState(quick_dir / f"state-{len(made)}"))
        return made[-1]

    return make


@pytest.fixture
def faulty() -> type[FaultyFiles]:
    return FaultyFiles


@pytest.fixture
def crash() -> type[Crash]:
    return Crash

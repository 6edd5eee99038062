"""Any order of appending, sealing, failing, dying, shipping and releasing keeps one true chain.

Hypothesis drives a host with failing files and a region whose answers get lost;
30 orders here, 5,000 in the long run, as many as ``AESP_EXAMPLES`` says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from audit_world import memory_dir
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aesp_proxy.errors import AespError, RecordError, UnavailableError
from aesp_proxy.forward.shipper import Shipper
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import Answer
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.batch import decode_batch, verify_batch
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.head import genesis
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.journal import Journal, JournalOptions
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem
from aesp_proxy.record.state import ensure_origin, prepare
from aesp_proxy.record.verify import Pins, verify_place

EXAMPLES = int(os.environ.get("AESP_EXAMPLES", "30"))
MANY = int(os.environ.get("AESP_EXAMPLES", "5000"))
KEY = signer_from_pem(new_private_pem())
_failures = st.none() | st.tuples(st.integers(0, 30), st.booleans())


class Flaky(OsFiles):
    """Fails the operation that is due, before or after it is done; never waits for the disk."""

    def __init__(self) -> None:
        self.due: tuple[int, bool] | None = None

    def _guard(self, act):
        if self.due is None:
            return act()
        left, is_done = self.due
        self.due = (left - 1, is_done) if left else None
        if left:
            return act()
        if is_done:
            act()
        raise OSError(5, "Input/output error")

    def create(self, path: Path) -> int:
        return self._guard(lambda: OsFiles.create(self, path))  # type: ignore[no-any-return]

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        return self._guard(lambda: os.write(descriptor, data))  # type: ignore[no-any-return]

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        self._guard(lambda: os.fstat(descriptor))

    def truncate(self, descriptor: int, size: int) -> None:  # type: ignore[override]
        self._guard(lambda: os.ftruncate(descriptor, size))

    def replace(self, source: Path, target: Path) -> None:
        self._guard(lambda: source.replace(target))

    def unlink(self, path: Path) -> None:
        self._guard(lambda: path.unlink(missing_ok=True))

    def sync_dir(self, path: Path) -> None:
        self._guard(path.stat)


class Region:
    """Takes batches as the contract says, and keeps every byte it ever promised."""

    def __init__(self, host_key: bytes) -> None:
        self.host_key = host_key
        self.head = genesis("h-test")
        self.batches: list[bytes] = []
        self.is_lossy = False

    def post(self, body: bytes) -> Answer:
        batch = decode_batch(body)
        number = decode_header(batch.header_bytes).batch_no
        if number == self.head.batch_no + 1:
            self.head = verify_batch(batch, public_key=self.host_key, previous=self.head).head
            self.batches.append(body)
        else:
            assert number <= self.head.batch_no, "the host left out a batch"
            assert self.batches[number - 1] == body, "the host told two stories"
        if self.is_lossy:
            raise UnavailableError("the answer was lost")
        receipt = Receipt(
            origin="h-test",
            batch_no=self.head.batch_no,
            header_hash=self.head.header_hash,
            time_ns=1,
            key_id=key_id_of(KEY[0]),
        )
        return Answer(status=200, body=encode_receipt(receipt, KEY[1]))


class HostMachine(RuleBasedStateMachine):
    """One host and one region, in any order of events."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="aesp-machine-", dir=memory_dir()))
        self.is_same = False
        self.paths = prepare(self.directory)
        ensure_origin(self.paths, wanted="h-test")
        self.key = load_signing_key(self.paths)
        self.region = Region(self.key.public_key)
        self.files = Flaky()
        self.now_ns = 1_792_000_000 * 10**9
        self.journals: list[Journal] = []
        self.sealer: Sealer | None = None
        self.acknowledged: set[tuple[int, int]] = set()
        self.count = 0

    def stamp(self) -> Stamp:
        self.now_ns += 1_000_000
        return Stamp(wall_ns=self.now_ns, mono_ns=self.now_ns, boot_id="b")

    @contextlib.contextmanager
    def failing(self, failure):
        self.files.due = failure
        try:
            yield
        finally:
            self.files.due = None

    @precondition(lambda self: len(self.journals) < 3)
    @rule(failure=_failures, small=st.booleans())
    def open_journal(self, failure, small: bool) -> None:  # noqa: FBT001
        options = JournalOptions(segment_bytes_max=600 if small else 10**6)
        with self.failing(failure), contextlib.suppress(AespError):
            self.journals.append(
                Journal.open(
                    self.directory,
                    options=options,
                    files=self.files,
                    background=False,
                    monotonic=lambda: self.now_ns / 1e9,
                    wall=lambda: self.now_ns / 1e9,
                )
            )

    @precondition(lambda self: self.journals)
    @rule(data=st.data(), failure=_failures, times=st.integers(1, 4))
    def append(self, data: st.DataObject, failure, times: int) -> None:
        journal = data.draw(st.sampled_from(self.journals))
        with self.failing(failure):
            for _ in range(times):
                self.count += 1
                try:
                    given = journal.append(make_record(self.count))
                    self.acknowledged.add((given.epoch, given.seq))
                except RecordError:
                    self.now_ns += 2 * 10**9

    @precondition(lambda self: self.journals)
    @rule(data=st.data(), failure=_failures)
    def sync(self, data: st.DataObject, failure) -> None:
        journal = data.draw(st.sampled_from(self.journals))
        with self.failing(failure), contextlib.suppress(RecordError):
            journal.sync()

    @precondition(lambda self: self.journals)
    @rule(data=st.data(), failure=_failures, is_killed=st.booleans())
    def end_journal(self, data: st.DataObject, failure, is_killed: bool) -> None:  # noqa: FBT001
        journal = data.draw(st.sampled_from(self.journals))
        self.journals.remove(journal)
        with self.failing(failure), contextlib.suppress(RecordError):
            if is_killed:
                journal._writer.abandon()
            else:
                journal.close()

    @rule(failure=_failures, drain=st.booleans())
    def seal(self, failure, drain: bool) -> None:  # noqa: FBT001
        options = SealerOptions(seal_bytes_max=800, heartbeat_s=0, seal_s_max=0.01)
        with self.failing(failure):
            try:
                if self.sealer is None:
                    self.sealer = Sealer.open(
                        self.paths,
                        "h-test",
                        self.key,
                        options,
                        files=self.files,
                        clock=self.stamp,
                    )
                self.sealer.tick(drain=drain)
            except RecordError:
                self.sealer = None

    @rule()
    def kill_sealer(self) -> None:
        self.sealer = None
        self.is_same = True

    @rule(is_lossy=st.booleans(), failure=_failures)
    def ship(self, is_lossy: bool, failure) -> None:  # noqa: FBT001
        self.region.is_lossy = is_lossy
        spool = Spool(self.paths, "h-test", KEY[0], files=self.files)
        shipper = Shipper(spool, self.region, wall=lambda: self.now_ns / 1e9)
        with self.failing(failure), contextlib.suppress(UnavailableError, RecordError):
            shipper.ship_once()

    @rule(minutes=st.integers(1, 40))
    def wait(self, minutes: int) -> None:
        self.now_ns += minutes * 60 * 10**9
        self.is_same = True

    @invariant()
    def everything_verifies(self) -> None:
        if not hasattr(self, "paths"):
            return
        if self.is_same:  # no file was touched since it was found whole
            self.is_same = False
            return
        pins = Pins(key=self.key.public_key, aggregator_key=KEY[0])
        assert verify_place(self.directory, pins).problems == []

    def teardown(self) -> None:
        if not hasattr(self, "paths"):
            return
        try:
            self.settle()
        finally:
            for journal in self.journals:
                journal._writer.abandon()
            shutil.rmtree(self.directory)

    def settle(self) -> None:
        """After the last failure everything acknowledged reaches the region, once."""
        for journal in self.journals:
            with contextlib.suppress(RecordError):
                journal.close()
        self.sealer = None
        self.seal(None, drain=True)
        self.ship(is_lossy=False, failure=None)
        found = set()
        for data in self.region.batches:
            header = decode_header(decode_batch(data).header_bytes)
            for seq in range(header.first_seq, header.first_seq + header.count):
                assert (header.epoch, seq) not in found
                found.add((header.epoch, seq))
        assert self.acknowledged <= found


def make_record(number: int):
    return Record(
        kind=RecordKind.DECISION,
        time_ns=number,
        event_type="t",
        action="a",
        outcome=Outcome.DENIED if number % 5 == 0 else Outcome.SUCCESS,
        verdict="allow",
        reason="allowed",
        guard="g",
        severity="info",
        message="",
        resource=f"r{number}",
    )


def orders(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


TestHost = HostMachine.TestCase
TestHost.settings = orders(EXAMPLES)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_thousands_of_orders() -> None:
    run_state_machine_as_test(HostMachine, settings=orders(MANY))

"""What the operator lets be lost is counted, signed and told; nothing else is ever lost."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import RecordError
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import CONTENT_KEY, NOT_READ_RAW, Outcome, Record, RecordKind
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.head import Head, advance, decode_head, encode_head
from aesp_proxy.record.header import BatchHeader, decode_header
from aesp_proxy.record.journal import Journal, JournalOptions, Mode
from aesp_proxy.record.losses import NO_LOSSES, Losable, Losses, losable_of, read_losses
from aesp_proxy.record.reader import read_state
from aesp_proxy.record.state import numbered_batches, read_head, write_status
from aesp_proxy.record.verify import Pins, Report, verify_place

PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=1,
    event_type="authorization",
    action="http.get",
    outcome=Outcome.SUCCESS,
    verdict="allow",
    reason="allowed",
    guard="egress_allowlist",
    severity="info",
    message="",
    resource="https://a.test/",
)
FINDING = Finding(
    rule="r", severity=Severity.WARNING, location="body", offset=0, masked="x", fingerprint="a"
)
ALL = frozenset(Losable)

CLASSES = {
    "request": ({}, Losable.REQUESTS),
    "connection": ({"action": "tcp.connect"}, Losable.REQUESTS),
    "name": ({"action": "dns.query"}, Losable.NAMES),
    "open-for-reading": ({"action": "file.open"}, Losable.FILE_READS),
    "outcome": ({"kind": RecordKind.OUTCOME}, Losable.OUTCOMES),
    "outcome-that-did-not-come-off": (
        {"kind": RecordKind.OUTCOME, "outcome": Outcome.FAILURE}, Losable.OUTCOMES,
    ),
    "refusal": ({"verdict": "deny", "outcome": Outcome.DENIED}, None),
    "refused-outcome": (
        {"kind": RecordKind.OUTCOME, "verdict": "deny", "outcome": Outcome.DENIED}, None,
    ),
    "audited": ({"verdict": "audit"}, None),
    "redacted": ({"verdict": "redact"}, None),
    "asked": ({"verdict": "ask"}, None),
    "no-verdict": ({"verdict": ""}, None),
    "with-a-finding": ({"findings": (FINDING,)}, None),
    "not-read": ({"action": "tcp.connect", "metadata": ((CONTENT_KEY, NOT_READ_RAW),)}, None),
    "of-the-service": ({"kind": RecordKind.LIFECYCLE, "verdict": ""}, None),
    "write": ({"action": "file.write"}, None),
    "exec": ({"action": "file.exec"}, None),
    "delete": ({"action": "file.delete"}, None),
    "tool": ({"action": "tool.call"}, None),
    "unknown": ({"action": "custom"}, None),
}  # fmt: skip


def of_class(losable: Losable) -> Record:
    changes = next(changes for changes, found in CLASSES.values() if found is losable)
    return replace(PLAIN, **changes)


def over_the_limit(state, journal: Journal, *, is_over: bool = True) -> None:
    write_status(state.paths, {"spool_bytes": 1 << 40 if is_over else 0})
    journal.check_limits()


def headers(state) -> list[BatchHeader]:
    return [
        decode_header(decode_batch(path.read_bytes()).header_bytes)
        for _, path in numbered_batches(state.paths.batches)
    ]


def verified(state) -> Report:
    return verify_place(state.directory, Pins())


@pytest.mark.parametrize(
    ("changes", "losable"), [pytest.param(*case, id=name) for name, case in CLASSES.items()]
)
def test_only_these_may_be_lost_and_only_where_their_class_is_named(
    new_state, changes, losable
) -> None:
    record = replace(PLAIN, **changes)
    assert losable_of(record) is losable
    for named in (*([one] for one in Losable), []):
        state = new_state()
        journal = state.journal(may_lose=frozenset(named))
        over_the_limit(state, journal)
        if losable in named:
            assert journal.append(record).seq == 0
            continue
        with pytest.raises(RecordError, match="bytes wait on disk"):
            journal.append(record)
        counted = read_losses(state.paths.lost(1))
        assert counted == NO_LOSSES


def test_nothing_may_be_lost_by_default_and_there_is_no_counter(state) -> None:
    assert JournalOptions().may_lose == frozenset()
    state.journal()
    assert not state.paths.lost(1).exists()


def test_what_is_lost_is_counted_in_the_very_file_before_append_returns(state) -> None:
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    for number in range(1, 6):
        journal.append(of_class(Losable.NAMES))
        counted = read_losses(state.paths.lost(1))
        assert counted is not None
        assert (counted.total, counted.of) == (number, {Losable.NAMES: number})
    assert list(read_state(state.directory)) == []


def test_the_count_is_signed_by_growth_and_said_by_verify(state) -> None:
    journal, sealer = state.journal(may_lose=ALL), state.sealer()
    journal.append(PLAIN)
    over_the_limit(state, journal)
    for losable in (Losable.REQUESTS, Losable.NAMES, Losable.OUTCOMES):
        journal.append(of_class(losable))
    report = verified(state)
    assert [(p.kind, p.place) for p in report.problems] == [(Fault.LOST, "1.lost")]
    assert "no batch says so yet" in report.problems[0].message
    assert sealer.tick() == 0
    state.clock.pass_s(5)
    assert sealer.tick() == 1
    assert sealer.tick(drain=True) == 0
    journal.append(of_class(Losable.NAMES))
    state.sealer().tick(drain=True)
    journal.close()
    state.sealer().tick()
    assert [(h.count, h.dropped, h.lost) for h in headers(state)] == [
        (1, 3, 0), (0, 1, 0), (0, 0, 0),
    ]  # fmt: skip
    report = verified(state)
    assert report.lost == 4
    assert [(p.kind, p.batch_no) for p in report.problems] == [(Fault.LOST, 1), (Fault.LOST, 2)]
    assert "did not keep, as its settings allow" in report.problems[0].message
    assert not state.paths.lost(1).exists()


def test_once_there_is_room_a_record_tells_what_was_lost(state) -> None:
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    for losable in (Losable.NAMES, Losable.NAMES, Losable.FILE_READS):
        journal.append(of_class(losable))
    over_the_limit(state, journal, is_over=False)
    journal.append(PLAIN)
    journal.append(PLAIN)
    notes = [r for _, r in read_state(state.directory) if r.event_type == "audit.records_lost"]
    assert len(notes) == 1
    told = dict(notes[0].metadata)
    assert (told["names"], told["file_reads"]) == ("2", "1")
    assert set(told) == {"names", "file_reads", "first_ns", "last_ns"}
    over_the_limit(state, journal)
    journal.append(of_class(Losable.NAMES))
    over_the_limit(state, journal, is_over=False)
    journal.append(PLAIN)
    notes = [r for _, r in read_state(state.directory) if r.event_type == "audit.records_lost"]
    assert dict(notes[1].metadata)["names"] == "1"


def test_a_killed_writer_loses_no_count(state) -> None:
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    for _ in range(7):
        journal.append(PLAIN)
    journal._writer.abandon()
    assert state.sealer().tick() == 1
    assert [h.dropped for h in headers(state)] == [7]


def test_a_sealer_that_died_before_its_head_declares_nothing_twice(state) -> None:
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    journal.append(PLAIN)
    before = state.paths.head.read_bytes() if state.paths.head.exists() else None
    state.sealer().tick(drain=True)
    assert before is None
    state.paths.head.unlink()
    journal.append(PLAIN)
    state.sealer().tick(drain=True)
    assert [h.dropped for h in headers(state)] == [1, 1]
    assert verified(state).lost == 2


def test_a_damaged_counter_is_declared_as_a_loss_and_not_passed_over(state) -> None:
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    journal.append(PLAIN)
    path = state.paths.lost(1)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert [(p.kind, p.place) for p in verified(state).problems] == [(Fault.CHANGED, "1.lost")]
    journal._writer.abandon()
    state.sealer().tick()
    assert [h.dropped for h in headers(state)] == [1]


@pytest.mark.parametrize("place", [0, 1], ids=["first-place", "second-place"])
def test_a_torn_write_takes_nothing_back(state, place: int) -> None:
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    for _ in range(6 + place):
        journal.append(PLAIN)
    path = state.paths.lost(1)
    data = bytearray(path.read_bytes())
    at = 512 * (1 - place)  # where the next write would go
    data[at : at + 40] = b"\x00" * 40
    path.write_bytes(data)
    counted = read_losses(path)
    assert counted is not None
    assert counted.total == 6 + place


class Broken(OsFiles):
    """The disk is full, and counters fail as told."""

    counter_code = 0
    sync_code = 0
    write_code = 0

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        if Broken.write_code:
            raise OSError(Broken.write_code, os.strerror(Broken.write_code))
        return os.write(descriptor, data)

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> int:  # type: ignore[override]
        if Broken.counter_code:
            raise OSError(Broken.counter_code, os.strerror(Broken.counter_code))
        return os.pwrite(descriptor, data, offset)

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        if Broken.sync_code:
            raise OSError(Broken.sync_code, os.strerror(Broken.sync_code))


@pytest.fixture
def broken(state, monkeypatch: pytest.MonkeyPatch):
    def make(mode: Mode = Mode.BATCH) -> Journal:
        options = JournalOptions(mode=mode, may_lose=ALL)
        journal = Journal.open(state.directory, options=options, files=Broken(), background=False)
        state.journals.append(journal)
        for name, code in (("write", errno.ENOSPC), ("counter", 0), ("sync", 0)):
            monkeypatch.setattr(Broken, f"{name}_code", code)
        return journal

    return make


def test_on_a_full_disk_the_counter_needs_no_room(state, broken) -> None:
    journal = broken()
    for _ in range(3):
        assert journal.append(PLAIN).seq == 0
    with pytest.raises(RecordError, match="cannot be written"):
        journal.append(replace(PLAIN, verdict="deny", outcome=Outcome.DENIED))
    counted = read_losses(state.paths.lost(1))
    assert counted is not None
    assert counted.total == 3


def test_what_cannot_be_counted_does_not_pass(state, broken, monkeypatch) -> None:
    journal = broken()
    monkeypatch.setattr(Broken, "counter_code", errno.EIO)
    with pytest.raises(RecordError, match="loss counter cannot be written"):
        journal.append(PLAIN)
    assert read_losses(state.paths.lost(1)) == NO_LOSSES


def test_a_blocking_journal_counts_durably_or_not_at_all(broken, monkeypatch) -> None:
    journal = broken(Mode.BLOCKING)
    assert journal.append(PLAIN).seq == 0
    monkeypatch.setattr(Broken, "sync_code", errno.EIO)
    with pytest.raises(RecordError, match="loss counter"):
        journal.append(PLAIN)
    monkeypatch.setattr(Broken, "sync_code", 0)
    with pytest.raises(RecordError, match="could not be made durable"):
        journal.append(PLAIN)


def test_a_record_that_no_journal_could_hold_is_refused_and_not_lost(state) -> None:
    journal = state.journal(may_lose=ALL)
    huge = replace(PLAIN, message="x" * 70_000)
    for is_over in (False, True):
        over_the_limit(state, journal, is_over=is_over)
        with pytest.raises(RecordError):
            journal.append(huge)
    assert read_losses(state.paths.lost(1)) == NO_LOSSES


@given(st.lists(st.sampled_from([*Losable, "seal", "kill"]), max_size=12))
def test_what_the_headers_declare_is_what_was_lost(state_maker, tmp_path_factory, steps) -> None:
    state = state_maker(tmp_path_factory.mktemp("losses"))
    journal = state.journal(may_lose=ALL)
    over_the_limit(state, journal)
    lost = 0
    for step in steps:
        if step == "seal":
            state.sealer().tick(drain=True)
        elif step == "kill":
            journal._writer.abandon()
            journal = state.journal(may_lose=ALL)
            over_the_limit(state, journal)
        else:
            journal.append(of_class(step))
            lost += 1
    journal._writer.abandon()
    state.sealer().tick(drain=True)
    assert sum(header.dropped for header in headers(state)) == lost
    assert verify_place(state.directory, Pins()).lost == lost


def test_a_head_without_losses_is_packed_as_before(state) -> None:
    journal = state.journal(may_lose=ALL)
    journal.append(PLAIN)
    state.sealer().tick(drain=True)
    head = read_head(state.paths)
    assert head is not None
    assert encode_head(head)[1] == 1
    over_the_limit(state, journal)
    journal.append(PLAIN)
    state.sealer().tick(drain=True)
    head = read_head(state.paths)
    assert head is not None
    assert (encode_head(head)[1], head.dropped) == (2, ((1, 1),))
    assert decode_head(encode_head(head)) == head
    assert decode_head(encode_head(Head(origin="h", batch_no=3))).dropped == ()


def test_more_losses_than_can_be_counted_are_refused_and_not_a_crash(chain) -> None:
    chain.add(1, dropped=(1 << 63) - 1)
    head = chain.head
    assert decode_head(encode_head(head)) == head
    header = decode_header(chain.add(1, dropped=1).header_bytes)
    with pytest.raises(ChainError, match="more losses"):
        advance(head, header, bytes(32))


def test_losses_add_up_by_class() -> None:
    losses = Losses().plus(Losable.NAMES, 5).plus(Losable.NAMES, 7).plus(Losable.REQUESTS, 9)
    assert (losses.total, losses.first_ns, losses.last_ns) == (3, 5, 9)

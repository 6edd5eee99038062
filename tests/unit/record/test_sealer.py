from __future__ import annotations

from dataclasses import replace

import pytest

from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.faults import Fault
from aesp_proxy.record.files import OS_FILES
from aesp_proxy.record.header import BatchHeader, Flag, decode_header
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.reader import StateReader, find_record, read_state
from aesp_proxy.record.signature import new_private_pem
from aesp_proxy.record.state import numbered_batches, read_head, segments, write_head
from aesp_proxy.record.verify import Pins, verify_place

KIB = 1024


def headers(state) -> list[BatchHeader]:
    return [
        decode_header(decode_batch(path.read_bytes()).header_bytes)
        for _, path in numbered_batches(state.paths.batches)
    ]


def assert_holds(state, records: int) -> None:
    report = verify_place(state.directory, Pins())
    assert report.problems == []
    assert report.records + report.unsealed == records


def test_a_closed_journal_is_sealed_at_once_and_removed(state) -> None:
    journal = state.journal()
    state.fill(journal, 10)
    journal.close()
    assert state.sealer().tick() == 1
    (header,) = headers(state)
    assert (header.epoch, header.first_seq, header.count) == (1, 1, 10)
    assert header.flags == Flag.EPOCH_ENDED
    assert segments(state.paths) == {}
    assert_holds(state, 10)


def test_a_living_journal_waits_for_age_or_size(state) -> None:
    journal, sealer = state.journal(), state.sealer(seal_bytes_max=20 * KIB)
    state.fill(journal, 3)
    assert sealer.tick() == 0
    state.clock.pass_s(59)
    assert sealer.tick() == 0
    state.clock.pass_s(2)
    assert sealer.tick() == 1
    state.fill(journal, 100)
    assert sealer.tick() >= 1
    assert sum(header.count for header in headers(state)) >= 60
    sealer.tick(drain=True)
    assert_holds(state, 103)


def test_a_refusal_is_sealed_within_seconds(state) -> None:
    journal, sealer = state.journal(), state.sealer()
    state.fill(journal, 2)
    state.fill(journal, 1, denied=True)
    assert sealer.tick() == 0
    state.clock.pass_s(5)
    assert sealer.tick() == 1
    assert headers(state)[0].count == 3


def test_a_killed_writer_is_sealed_at_once_and_marked_unclean(state) -> None:
    journal = state.journal()
    state.fill(journal, 4)
    journal._writer.abandon()
    state.sealer().tick()
    (header,) = headers(state)
    assert header.flags == Flag.EPOCH_ENDED | Flag.UNCLEAN
    report = verify_place(state.directory, Pins())
    assert report.problems == []
    assert [note.kind for note in report.notes] == [Fault.UNCLEAN]


def test_an_epoch_that_ends_after_its_records_were_sealed_says_so(state) -> None:
    journal, sealer = state.journal(), state.sealer()
    state.fill(journal, 4)
    sealer.tick(drain=True)
    assert headers(state)[0].flags == 0
    journal.close()
    sealer.tick()
    assert [(header.count, header.flags) for header in headers(state)] == [
        (4, 0),
        (0, Flag.EPOCH_ENDED),
    ]
    assert sealer.head.next_seq == ()
    assert_holds(state, 4)


def test_an_epoch_closed_without_a_record_leaves_no_trace(state) -> None:
    state.journal().close()
    assert state.sealer().tick(drain=True) == 0
    assert headers(state) == []
    assert segments(state.paths) == {}


def test_a_lower_epoch_that_waits_begins_before_a_higher_one(state) -> None:
    waiting, busy = state.journal(), state.journal()
    state.fill(busy, 2)
    busy.close()
    sealer = state.sealer()
    sealer.tick()
    state.fill(waiting, 2)
    waiting.close()
    sealer.tick()
    assert [(header.epoch, header.count) for header in headers(state)] == [(1, 0), (2, 2), (1, 2)]
    assert_holds(state, 4)


def test_epochs_of_several_writers_share_one_chain(state) -> None:
    sealer = state.sealer()
    journals = [state.journal() for _ in range(3)]
    for _ in range(3):
        for journal in journals:
            state.fill(journal, 5)
        sealer.tick(drain=True)
    for journal in journals:
        journal.close()
    sealer.tick()
    assert [header.batch_no for header in headers(state)] == list(range(1, 13))
    assert_holds(state, 45)


def test_big_journals_become_several_batches_and_segments_go_as_they_are_sealed(state) -> None:
    journal = state.journal(segment_bytes_max=30 * KIB)
    state.fill(journal, 400)
    sealer = state.sealer(seal_bytes_max=20 * KIB)
    assert sealer.tick() > 3
    assert len(segments(state.paths)[1]) <= 2
    sealer.tick(drain=True)
    assert all(header.inflated_bytes < 25 * KIB for header in headers(state))
    assert_holds(state, 400)


def test_a_sealer_begins_where_the_last_one_stopped(state) -> None:
    journal = state.journal()
    for _ in range(4):
        state.fill(journal, 3)
        state.sealer().tick(drain=True)
    assert [(header.first_seq, header.count) for header in headers(state)] == [
        (1, 3), (4, 3), (7, 3), (10, 3),
    ]  # fmt: skip
    assert_holds(state, 12)


def test_silence_is_broken_by_heartbeats_only_when_asked(state) -> None:
    silent, heart = state.sealer(), None
    state.clock.pass_s(1000)
    assert silent.tick() == 0
    heart = state.sealer(heartbeat_s=60)
    assert heart.tick() == 0
    state.clock.pass_s(60)
    assert heart.tick() == 1
    assert heart.tick() == 0
    (header,) = headers(state)
    assert (header.count, header.epoch, header.flags) == (0, 0, Flag.HEARTBEAT)
    assert_holds(state, 0)


def test_a_wall_clock_that_goes_back_is_declared(state) -> None:
    journal, sealer = state.journal(), state.sealer()
    state.fill(journal, 1)
    sealer.tick(drain=True)
    state.clock.wall_ns -= 3600 * 10**9
    state.clock.mono_ns += 10**9
    state.fill(journal, 1)
    sealer.tick(drain=True)
    assert headers(state)[1].flags & Flag.CLOCK_BACK
    report = verify_place(state.directory, Pins())
    assert [problem.kind for problem in report.problems] == [Fault.CLOCK]


def _damage(state, needle: bytes) -> None:
    path = state.paths.segment(1, 1)
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_record_in_the_journal_is_a_declared_loss(state) -> None:
    journal = state.journal()
    state.fill(journal, 10)
    journal.close()
    _damage(state, b"e-4")
    report = verify_place(state.directory, Pins())
    assert [(p.kind, p.record) for p in report.problems] == [(Fault.CHANGED, "1/5")]
    state.sealer().tick()
    assert [(h.first_seq, h.count, h.lost) for h in headers(state)] == [(1, 4, 0), (6, 5, 1)]
    report = verify_place(state.directory, Pins())
    assert [(p.kind, p.record) for p in report.problems] == [(Fault.LOST, "1/6")]


def test_a_damaged_last_record_is_a_declared_loss_too(state) -> None:
    journal = state.journal()
    state.fill(journal, 3)
    journal._writer.abandon()
    _damage(state, b"e-2")
    state.sealer().tick()
    assert [(h.first_seq, h.count, h.lost) for h in headers(state)] == [(1, 2, 0), (4, 0, 1)]
    report = verify_place(state.directory, Pins())
    assert Fault.LOST in {problem.kind for problem in report.problems}


def test_a_head_behind_its_batches_is_moved_on(state) -> None:
    journal = state.journal()
    for _ in range(3):
        state.fill(journal, 2)
        state.sealer().tick(drain=True)
        if not numbered_batches(state.paths.batches)[1:]:
            old = state.paths.head.read_bytes()
    state.paths.head.write_bytes(old)
    sealer = state.sealer()
    assert sealer.head.batch_no == 3
    assert read_head(state.paths) == sealer.head


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_lost_head_is_built_anew_from_all_batches(state, damage: bytes | None) -> None:
    journal = state.journal()
    for _ in range(3):
        state.fill(journal, 2)
        state.sealer().tick(drain=True)
    head = read_head(state.paths)
    if damage is None:
        state.paths.head.unlink()
    else:
        state.paths.head.write_bytes(damage)
    assert state.sealer().head == head


def test_a_lost_head_is_not_guessed_when_batches_were_released(state) -> None:
    journal = state.journal()
    for _ in range(3):
        state.fill(journal, 2)
        state.sealer().tick(drain=True)
    state.paths.batch(1).unlink()
    state.paths.head.unlink()
    with pytest.raises(RecordError, match="released"):
        state.sealer()


def test_the_sealer_refuses_to_fork_the_chain(state) -> None:
    journal = state.journal()
    for _ in range(3):
        state.fill(journal, 2)
        state.sealer().tick(drain=True)
    state.paths.head.unlink()
    data = bytearray(state.paths.batch(2).read_bytes())
    data[-1] ^= 1
    state.paths.batch(2).write_bytes(bytes(data))
    with pytest.raises(Exception, match="not what was signed"):
        state.sealer()
    assert state.paths.batch(2).exists()


def test_a_batch_that_was_never_promised_is_put_aside(state) -> None:
    journal = state.journal()
    state.fill(journal, 2)
    state.sealer().tick(drain=True)
    state.paths.batch(2).write_bytes(b"torn")
    state.fill(journal, 2)
    state.sealer().tick(drain=True)
    assert (state.paths.batches / "0000000002.batch.damaged").read_bytes() == b"torn"
    assert_holds(state, 4)


def test_a_head_of_another_host_is_refused(state) -> None:
    sealer = state.sealer(heartbeat_s=1)
    state.clock.pass_s(2)
    sealer.tick()
    write_head(state.paths, OS_FILES, replace(sealer.head, origin="h-other"))
    with pytest.raises(RecordError, match="h-other"):
        state.sealer()


def test_journal_of_another_host_is_not_sealed(state, tmp_path, sample) -> None:
    other = Journal.open(tmp_path / "other", "h-other", background=False)
    other.append(sample)
    other.close()
    source = tmp_path / "other" / "audit" / "journal" / "1-1.wal"
    state.paths.segment(1, 1).write_bytes(source.read_bytes())
    with pytest.raises(RecordError, match="h-other"):
        state.sealer().tick()


def test_a_key_that_others_may_read_is_refused(state) -> None:
    key = load_signing_key(state.paths)
    path = state.paths.keys / f"{key.key_id}.key"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        load_signing_key(state.paths)


def test_a_damaged_or_swapped_key_is_refused(state) -> None:
    key = load_signing_key(state.paths)
    path = state.paths.keys / f"{key.key_id}.key"
    pem = path.read_bytes()
    path.write_bytes(pem[:60])
    with pytest.raises(ConfigError, match="not a PEM private key"):
        load_signing_key(state.paths)
    path.write_bytes(new_private_pem())
    with pytest.raises(ConfigError, match="another key"):
        load_signing_key(state.paths)


def test_a_reader_goes_on_where_it_stopped_across_sealing(state) -> None:
    journal, sealer = state.journal(), state.sealer()
    reader = StateReader(state.paths)
    seen: list[int] = []
    for round_no in range(6):
        state.fill(journal, 3)
        if round_no % 2:
            sealer.tick(drain=True)
        seen += [record_id.seq for record_id, _ in reader.new_entries()]
    assert seen == list(range(1, 19))


def test_one_epoch_is_read_alone(state) -> None:
    for count in (2, 3):
        journal = state.journal()
        state.fill(journal, count)
        journal.close()
    state.sealer().tick()
    state.fill(state.journal(), 4)
    for epoch, count in ((1, 2), (2, 3), (3, 4)):
        assert len(list(read_state(state.directory, epoch=epoch))) == count


def test_a_record_is_found_sealed_or_not(state) -> None:
    journal = state.journal()
    state.fill(journal, 3)
    state.sealer().tick(drain=True)
    state.fill(journal, 3)
    assert find_record(state.paths, 1, 2)[1].batch_no == 1
    assert find_record(state.paths, 1, 5)[1] is None
    with pytest.raises(Exception, match="no record 1/9"):
        find_record(state.paths, 1, 9)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 100])
def test_the_last_records_are_read_without_the_batches_before_them(state, count: int) -> None:
    first, second = state.journal(), state.journal()
    sealer = state.sealer()
    for _ in range(4):
        state.fill(first, 3)
        sealer.tick(drain=True)
    state.fill(second, 2)
    sealer.tick(drain=True)
    state.fill(first, 2)
    everything = [str(i) for i, _ in read_state(state.directory)]
    reader = StateReader(state.paths)
    reader.skip_to_last(count)
    read = [str(i) for i, _ in reader.new_entries()]
    assert len(read) >= min(count, len(everything))
    assert read == everything[len(everything) - len(read) :]
    if count < 4:
        assert len(read) < len(everything)


def test_a_record_that_is_sealed_while_it_is_verified_holds(state) -> None:
    journal, sealer = state.journal(segment_bytes_max=2000), state.sealer()
    state.fill(journal, 20)
    sealer.tick(drain=True)
    rounds = iter(range(3))

    def seal_more(*_: int) -> None:
        if next(rounds, None) is not None:
            state.fill(journal, 20)
            sealer.tick(drain=True)

    report = verify_place(state.directory, Pins(), progress=seal_more)
    assert report.problems == []
    assert (report.records, report.unsealed) == (80, 0)

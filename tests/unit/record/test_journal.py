from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.model.record import RecordId
from aesp_proxy.record.files import OsFiles, is_locked
from aesp_proxy.record.journal import Journal, JournalOptions, Mode
from aesp_proxy.record.reader import read_state
from aesp_proxy.record.state import segments, write_status

MIB = 1024 * 1024


def read_ids(state) -> list[str]:
    return [f"{record_id.epoch}/{record_id.seq}" for record_id, _ in read_state(state.directory)]


def test_records_are_numbered_from_one_in_each_epoch(state, sample) -> None:
    first = state.journal()
    assert first.append(sample) == RecordId(origin="h-test", epoch=1, seq=1)
    assert first.append(sample).seq == 2
    second = state.journal()
    assert second.append(sample) == RecordId(origin="h-test", epoch=2, seq=1)
    assert first.append(sample).seq == 3
    assert read_ids(state) == ["1/1", "1/2", "1/3", "2/1"]


def test_what_is_appended_can_be_read_at_once_by_another_process(state, numbered_record) -> None:
    journal = state.journal()
    records = [numbered_record(number) for number in range(20)]
    for record in records:
        journal.append(record)
    assert [record for _, record in read_state(state.directory)] == records


def test_an_epoch_is_never_given_twice(state, sample) -> None:
    for expected in (1, 2):
        journal = state.journal()
        assert journal.epoch == expected
        journal.close()
    state.sealer().tick(drain=True)
    assert segments(state.paths) == {}
    assert state.journal().epoch == 3
    (state.paths.journal / "epoch").unlink()
    assert state.journal().epoch == 4


@pytest.mark.parametrize("text", ["soon", "", "-1", "9" * 5000])
def test_a_damaged_epoch_counter_is_refused(state, text: str) -> None:
    (state.paths.journal / "epoch").write_text(text)
    with pytest.raises(RecordError, match="epoch counter is damaged"):
        state.journal()


def test_a_damaged_head_is_refused_with_what_to_do(state) -> None:
    state.paths.head.write_bytes(b"damaged")
    with pytest.raises(RecordError, match="head is damaged") as caught:
        state.journal()
    assert "sealer" in caught.value.remedy


def test_segments_rotate_by_size_and_nothing_is_lost(state, numbered_record) -> None:
    journal = state.journal(segment_bytes_max=2000)
    for number in range(50):
        journal.append(numbered_record(number))
    journal.sync()
    assert len(segments(state.paths)[1]) > 3
    assert read_ids(state) == [f"1/{seq}" for seq in range(1, 51)]


def test_a_writer_holds_its_epoch_until_it_closes(state, sample) -> None:
    journal = state.journal()
    assert is_locked(state.paths.live(1))
    journal.append(sample)
    journal.close()
    assert not is_locked(state.paths.live(1))


@pytest.mark.parametrize("mode", [Mode.BLOCKING, Mode.BLOCKING_STRICT])
def test_the_blocking_modes_sync_before_they_return(state, sample, mode: Mode) -> None:
    class Counting(OsFiles):
        synced = 0

        def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
            Counting.synced += 1
            os.fdatasync(descriptor)

    write_status(state.paths, {"spool_bytes": 0})
    journal = Journal.open(
        state.directory,
        options=JournalOptions(mode=mode),
        files=Counting(),
        background=False,
        wall=lambda: state.paths.status.stat().st_mtime,
    )
    before = Counting.synced
    for _ in range(3):
        journal.append(sample)
    assert Counting.synced == before + 3
    journal.close()


def test_batch_mode_leaves_syncing_to_its_thread(state, sample) -> None:
    synced = threading.Event()

    class Watched(OsFiles):
        def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
            os.fdatasync(descriptor)
            if threading.current_thread().name == "journal-sync":
                synced.set()

    with Journal.open(state.directory, files=Watched()) as journal:
        journal.append(sample)
        assert synced.wait(10)


def test_over_the_limit_nothing_passes_until_there_is_room(state, sample) -> None:
    journal = state.journal(spool_bytes_max=MIB)
    journal.append(sample)
    write_status(state.paths, {"spool_bytes": MIB})
    journal.check_limits()
    with pytest.raises(RecordError, match="wait on disk") as caught:
        journal.append(sample)
    assert "ship or archive" in caught.value.remedy
    write_status(state.paths, {"spool_bytes": 0})
    journal.check_limits()
    assert journal.append(sample).seq == 2


def test_strict_mode_refuses_while_the_sealer_is_silent_or_the_spool_nearly_full(
    state, sample
) -> None:
    journal = state.journal(mode=Mode.BLOCKING_STRICT, spool_bytes_max=MIB)
    with pytest.raises(RecordError, match="sealer has not been heard"):
        journal.append(sample)
    write_status(state.paths, {"spool_bytes": 0})
    state.clock.wall_ns = int(state.paths.status.stat().st_mtime * 1e9)
    journal.check_limits()
    journal.append(sample)
    write_status(state.paths, {"spool_bytes": int(MIB * 0.9)})
    journal.check_limits()
    with pytest.raises(RecordError, match="close to the limit"):
        journal.append(sample)
    state.clock.pass_s(60)
    write_status(state.paths, {"spool_bytes": 0})
    state.clock.wall_ns += 60 * 10**9
    journal.check_limits()
    with pytest.raises(RecordError, match="sealer has not been heard"):
        journal.append(sample)


def test_a_damaged_status_counts_as_silence(state, sample) -> None:
    journal = state.journal(mode=Mode.BLOCKING_STRICT)
    for text in ("{", "[]", '{"spool_bytes": "much"}', "{}"):
        state.paths.status.write_text(text)
        journal.check_limits()
        with pytest.raises(RecordError):
            journal.append(sample)


def test_a_record_without_canonical_form_is_refused_and_spends_no_number(state, sample) -> None:
    journal = state.journal()
    with pytest.raises(RecordError, match="no canonical form"):
        journal.append(replace(sample, message="\ud800"))
    assert journal.append(sample).seq == 1


class Failing(OsFiles):
    """Writes as told: an errno, a number of bytes, or normally."""

    def __init__(self) -> None:
        self.plan: list[object] = []
        self.sync_errno = 0

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        step = self.plan.pop(0) if self.plan else None
        match step:
            case None:
                return os.write(descriptor, data)
            case ("done", int(code)):
                os.write(descriptor, data)
                raise OSError(code, os.strerror(code))
            case ("part", int(code)):
                os.write(descriptor, data[: len(data) // 2])
                raise OSError(code, os.strerror(code))
            case int(count) if count >= 0:
                return os.write(descriptor, data[:count])
            case int(code):
                raise OSError(-code, os.strerror(-code))
        raise AssertionError(step)

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        if self.sync_errno:
            raise OSError(self.sync_errno, os.strerror(self.sync_errno))
        os.fdatasync(descriptor)


@pytest.fixture
def failing(state):
    files = Failing()
    journal = Journal.open(
        state.directory,
        files=files,
        background=False,
        monotonic=lambda: state.clock.mono_ns / 1e9,
        wall=lambda: state.clock.wall_ns / 1e9,
    )
    yield files, journal
    files.plan, files.sync_errno = [], 0
    journal._writer.abandon()


@pytest.mark.parametrize("step", [-errno.ENOSPC, -errno.EIO, 0, 7, 100])
def test_a_failed_or_short_write_refuses_and_the_next_record_follows(
    state, sample, failing, step: int
) -> None:
    files, journal = failing
    journal.append(sample)
    files.plan = [step]
    with pytest.raises(RecordError, match="cannot be written"):
        journal.append(sample)
    assert journal.append(sample) == RecordId(origin="h-test", epoch=1, seq=2)
    assert read_ids(state) == ["1/1", "1/2"]


@pytest.mark.parametrize("how", ["done", "part"])
def test_a_write_that_may_have_happened_spends_its_epoch(state, sample, failing, how: str) -> None:
    files, journal = failing
    journal.append(sample)
    files.plan = [(how, errno.EIO)]
    with pytest.raises(RecordError):
        journal.append(sample)
    with pytest.raises(RecordError, match="may have happened"):
        journal.append(sample)
    state.clock.pass_s(2)
    assert journal.append(sample) == RecordId(origin="h-test", epoch=2, seq=2)
    entries = list(read_state(state.directory))
    assert [f"{i.epoch}/{i.seq}" for i, _ in entries] == ["1/1", "2/1", "2/2"]
    assert entries[1][1].event_type == "audit.journal_reopened"
    assert dict(entries[1][1].metadata) == {"next_seq": "2"}


def test_after_a_failed_sync_the_file_is_never_trusted_again(state, sample, failing) -> None:
    files, journal = failing
    journal.append(sample)
    files.sync_errno = errno.EIO
    with pytest.raises(RecordError, match="cannot be made durable"):
        journal.sync()
    with pytest.raises(RecordError, match="cannot be made durable"):
        journal.append(sample)
    files.sync_errno = 0
    with pytest.raises(RecordError, match="cannot be made durable"):
        journal.append(sample)
    state.clock.pass_s(2)
    assert journal.append(sample).epoch == 2


def test_a_blocking_append_whose_sync_fails_refuses(state, sample) -> None:
    files = Failing()
    journal = Journal.open(
        state.directory,
        options=JournalOptions(mode=Mode.BLOCKING),
        files=files,
        background=False,
    )
    files.sync_errno = errno.EIO
    with pytest.raises(RecordError, match="cannot be made durable"):
        journal.append(sample)
    files.sync_errno = 0
    journal._writer.abandon()


def test_a_syncing_thread_that_dies_refuses_everything(
    state, sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: died.set())
    journal = Journal.open(state.directory)
    try:
        monkeypatch.setattr(journal, "check_limits", lambda: 1 / 0)
        journal._limits_s = float("-inf")
        assert died.wait(10)
        with pytest.raises(RecordError, match="syncing thread has died"):
            journal.append(sample)
    finally:
        monkeypatch.undo()
        journal.close()


def test_two_threads_never_share_a_number(state, sample) -> None:
    with Journal.open(state.directory) as journal:
        given: list[int] = []

        def work() -> None:
            given.extend(journal.append(sample).seq for _ in range(200))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(given) == list(range(1, 801))
    assert read_ids(state) == [f"1/{seq}" for seq in range(1, 801)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot make the audit directory"):
        Journal.open(tmp_path / "state")


def test_a_state_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError, match="cannot make the audit directory"):
        Journal.open(tmp_path / "state")


def test_a_state_of_another_host_is_refused(state) -> None:
    with pytest.raises(ConfigError, match="belongs to"):
        Journal.open(state.directory, "h-other")
    state.paths.origin.write_text("../x")
    with pytest.raises(ConfigError, match="origin is damaged"):
        Journal.open(state.directory)

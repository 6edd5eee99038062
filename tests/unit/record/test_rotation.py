"""A chain goes from key to key; every step of that may fail, and nothing forks or is lost."""

from __future__ import annotations

import os
import stat

import pytest

from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.record import rotation
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.header import Flag, decode_header, header_hash
from aesp_proxy.record.keys import KEY_SUFFIX, current_key_id, load_public_keys, load_signing_key
from aesp_proxy.record.state import numbered_batches, read_head
from aesp_proxy.record.verify import Pins, verify_place


def signers(state) -> list[str]:
    """Key ids in the order of the batches."""
    return [
        decode_header(decode_batch(path.read_bytes()).header_bytes).key_id
        for _, path in numbered_batches(state.paths.batches)
    ]


def private_keys(state) -> set[str]:
    return {path.name.removesuffix(KEY_SUFFIX) for path in state.paths.keys.glob("*" + KEY_SUFFIX)}


def assert_proved(state, first_key: bytes, records: int) -> None:
    """The whole chain holds for who knows the very first key only."""
    report = verify_place(state.directory, Pins(key=first_key))
    assert report.problems == []
    assert report.records + report.unsealed == records


def test_the_next_batch_is_signed_by_a_key_that_the_old_one_named(state) -> None:
    first = load_signing_key(state.paths)
    journal, sealer = state.journal(), state.sealer()
    state.fill(journal, 3)
    sealer.tick(drain=True)
    rotation.ask(state.paths)
    assert sealer.tick() == 1
    state.fill(journal, 2)
    sealer.tick(drain=True)
    new = current_key_id(state.paths)
    assert signers(state) == [first.key_id, first.key_id, new]
    assert new != first.key_id
    assert not rotation.is_asked(state.paths)
    assert_proved(state, first.public_key, 6)


def test_the_old_private_half_is_gone_and_the_public_half_stays(state) -> None:
    first = load_signing_key(state.paths)
    rotation.ask(state.paths)
    state.sealer().tick()
    new = current_key_id(state.paths)
    assert private_keys(state) == {new}
    assert set(load_public_keys(state.paths)) == {first.key_id, new}
    mode = (state.paths.keys / (new + KEY_SUFFIX)).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_journals_that_are_open_go_on_over_a_rotation(state) -> None:
    first = load_signing_key(state.paths)
    journals = [state.journal() for _ in range(3)]
    sealer = state.sealer()
    state.fill(journals[1], 2)
    rotation.ask(state.paths)
    sealer.tick()
    for journal in journals:
        state.fill(journal, 2)
        journal.close()
    sealer.tick(drain=True)
    assert_proved(state, first.public_key, 9)


def test_one_rotation_after_another_holds(state) -> None:
    first, sealer = load_signing_key(state.paths), state.sealer()
    for _ in range(4):
        rotation.ask(state.paths)
        sealer.tick()
    assert len(set(signers(state))) == 4
    assert len(load_public_keys(state.paths)) == 5
    assert_proved(state, first.public_key, 4)


def test_a_retired_key_signs_nothing_more(state, new_chain) -> None:
    old = load_signing_key(state.paths)
    rotation.ask(state.paths)
    state.sealer().tick()
    thief = new_chain()
    thief.public_key, thief.sign, thief.head = old.public_key, old.sign, read_head(state.paths)
    thief.seal_rows([], epoch=0, first_seq=0, flags=int(Flag.HEARTBEAT))
    state.paths.batch(2).write_bytes(thief.batches[-1])
    report = verify_place(state.directory, Pins(key=old.public_key))
    assert {problem.kind.value for problem in report.problems} == {"wrong_key"}


class Failing(OsFiles):
    """Fails operation ``fail_at``, done or not; as an error, for the caller dies by it too."""

    def __init__(self, fail_at: int, *, is_done: bool) -> None:
        self.calls, self.fail_at, self.is_done = 0, fail_at, is_done

    def _step(self, act):
        self.calls += 1
        if self.calls - 1 != self.fail_at:
            return act()
        if self.is_done:
            act()
        raise OSError(5, "Input/output error")

    def create(self, path):
        return self._step(lambda: OsFiles.create(self, path))

    def write(self, descriptor, data):
        return self._step(lambda: os.write(descriptor, data))

    def fdatasync(self, descriptor):
        self._step(lambda: None)

    def replace(self, source, target):
        self._step(lambda: source.replace(target))

    def unlink(self, path):
        self._step(lambda: path.unlink(missing_ok=True))

    def sync_dir(self, path):
        self._step(path.stat)


def rotate_with(state, files: Failing) -> bool:
    """Ask for a key and seal with failing files; whether it failed."""
    sealer = state.sealer()
    sealer._files = files
    rotation.ask(state.paths)
    try:
        sealer.tick()
    except RecordError:
        return True
    return False


@pytest.mark.parametrize("is_done", [False, True], ids=["not-done", "done-said-failed"])
def test_a_rotation_that_fails_at_any_step_is_finished_or_undone(new_state, is_done) -> None:
    steps = Failing(-1, is_done=is_done)
    rotate_with(new_state(), steps)
    assert steps.calls > 25
    for step in range(steps.calls):
        state = new_state()
        first = load_signing_key(state.paths)
        journal = state.journal()
        state.fill(journal, 2)
        assert rotate_with(state, Failing(step, is_done=is_done)), step
        promised = read_head(state.paths)
        state.sealer().tick(drain=True)
        state.fill(journal, 1)
        journal.close()
        state.sealer().tick(drain=True)
        now = current_key_id(state.paths)
        assert private_keys(state) == {now} != {first.key_id}, step
        assert set(signers(state)) == {first.key_id, now}, step
        assert not rotation.is_asked(state.paths)
        assert len(load_public_keys(state.paths)) == 2, step
        assert_proved(state, first.public_key, 4)
        if promised is not None:
            held = decode_batch(state.paths.batch(promised.batch_no).read_bytes())
            assert header_hash(held.header_bytes) == promised.header_hash, step


@pytest.mark.parametrize("text", [b"", b"[]", b'["k-a","../x",1]', b"\xff", b'["k-a","k-b",-1]'])
def test_a_damaged_note_stops_the_sealer_and_is_named(state, text: bytes) -> None:
    (state.paths.keys / "next").write_bytes(text)
    with pytest.raises(ConfigError, match="note of a key rotation is damaged"):
        state.sealer()

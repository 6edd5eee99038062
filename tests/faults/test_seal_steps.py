"""Each step of sealing fails in each way; after each, everything verifies and nothing forked."""

from __future__ import annotations

import errno

import pytest

from aesp_proxy.errors import RecordError

WAYS = [
    pytest.param({"is_done": False, "is_crash": False, "code": errno.ENOSPC}, id="not-done"),
    pytest.param({"is_done": True, "is_crash": False, "code": errno.EIO}, id="done-said-failed"),
    pytest.param({"is_torn": True, "code": errno.ENOSPC}, id="torn"),
    pytest.param({"is_torn": True, "is_crash": True}, id="died-torn"),
    pytest.param({"is_done": False, "is_crash": True}, id="died-before"),
    pytest.param({"is_done": True, "is_crash": True}, id="died-after"),
]


def prepared(state):
    """One sealed batch, a closed epoch, a killed one, a living one, rotated segments."""
    first = state.journal()
    state.append(first, 2)
    state.sealer().tick(drain=True)
    state.append(first, 2)
    first.close()
    killed = state.journal(segment_bytes_max=700)
    state.append(killed, 6)
    killed._writer.abandon()
    living = state.journal()
    state.append(living, 3)
    return living


def attempt(state, files, crash) -> bool:
    """Seal once with failing files; whether a failure came up."""
    try:
        state.sealer(files, seal_bytes_max=900).tick(drain=True)
    except (RecordError, crash):
        return True
    return False


def steps_of(state, faulty, crash) -> list[str]:
    living = prepared(state)
    files = faulty()
    assert not attempt(state, files, crash)
    living.close()
    return files.calls


@pytest.mark.parametrize("way", WAYS)
def test_sealing_survives_the_failure_of_every_step(new_fault_state, faulty, crash, way) -> None:
    names = steps_of(new_fault_state(), faulty, crash)
    assert len(names) > 40
    for step, name in enumerate(names):
        if way.get("is_torn") and name != "write":
            continue
        state = new_fault_state()
        living = prepared(state)
        assert attempt(state, faulty(fail_at=step, **way), crash), step
        promised = state.promised()
        state.assert_whole()
        state.append(living, 2)
        living.close()
        state.sealer().tick(drain=True)
        report = state.assert_whole()
        assert report.unsealed == 0
        now = state.promised()
        assert {number: now[number] for number in promised} == promised, step


def test_a_second_failure_while_recovering_changes_nothing(new_fault_state, faulty, crash) -> None:
    for step in range(0, 60, 7):
        for again in range(6):
            state = new_fault_state()
            living = prepared(state)
            attempt(state, faulty(fail_at=step, is_done=True, is_crash=True), crash)
            promised = state.promised()
            attempt(state, faulty(fail_at=again, is_done=again % 2 == 0), crash)
            living.close()
            state.sealer().tick(drain=True)
            assert state.assert_whole().unsealed == 0
            now = state.promised()
            assert {number: now[number] for number in promised} == promised

"""Each step of journalling fails in each way: what was acknowledged is there, once."""

from __future__ import annotations

import errno

import pytest

from aesp_proxy.errors import AespError, RecordError

WAYS = [
    pytest.param({"is_done": False, "code": errno.ENOSPC}, id="not-done"),
    pytest.param({"is_done": True, "code": errno.EIO}, id="done-said-failed"),
    pytest.param({"is_torn": True, "code": errno.ENOSPC}, id="torn"),
    pytest.param({"is_torn": True, "is_crash": True}, id="died-torn"),
    pytest.param({"is_done": False, "is_crash": True}, id="died-before"),
    pytest.param({"is_done": True, "is_crash": True}, id="died-after"),
]


def live(state, files) -> None:
    journal = state.journal(files, segment_bytes_max=900)
    try:
        for _ in range(4):
            for _ in range(2):
                try:
                    state.append(journal)
                except RecordError:
                    state.now_ns += 2 * 10**9
            try:
                journal.sync()
            except RecordError:
                state.now_ns += 2 * 10**9
        journal.close()
    finally:
        journal._writer.abandon()


@pytest.mark.parametrize("way", WAYS)
def test_every_step_of_a_journal_may_fail(new_fault_state, faulty, crash, way) -> None:
    files = faulty()
    live(new_fault_state(), files)
    names = files.calls
    steps = len(names)
    assert steps > 20
    for step in range(steps):
        if way.get("is_torn") and names[step] != "write":
            continue
        state = new_fault_state()
        files = faulty(fail_at=step, **way)
        try:
            live(state, files)
        except (AespError, crash):
            assert len(files.calls) > step
        after = state.journal()
        state.append(after, 2)
        after.close()
        state.assert_whole()
        state.sealer().tick(drain=True)
        assert state.assert_whole().unsealed == 0

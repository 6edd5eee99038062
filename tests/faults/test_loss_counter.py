"""Each step of counting a loss fails in each way: what passed is declared, whatever breaks."""

from __future__ import annotations

import errno

import pytest

from aesp_proxy.errors import AespError, RecordError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.losses import Losable
from aesp_proxy.record.state import numbered_batches, write_status
from aesp_proxy.record.verify import Pins, verify_place

WAYS = [
    pytest.param({"is_done": False, "code": errno.EIO}, id="not-done"),
    pytest.param({"is_done": True, "code": errno.EIO}, id="done-said-failed"),
    pytest.param({"is_torn": True, "code": errno.ENOSPC}, id="torn"),
    pytest.param({"is_torn": True, "is_crash": True}, id="died-torn"),
    pytest.param({"is_done": False, "is_crash": True}, id="died-before"),
    pytest.param({"is_done": True, "is_crash": True}, id="died-after"),
]


class Host:
    """A journal that is over its limit now and then; ``passed`` counts what went unrecorded."""

    def __init__(self, state, files) -> None:
        self.state, self.files, self.passed = state, files, 0

    def live(self) -> None:
        journal = self.state.journal(self.files, may_lose=frozenset(Losable))
        try:
            for is_over in (False, True, False, True):
                write_status(self.state.paths, {"spool_bytes": 1 << 50 if is_over else 0})
                journal.check_limits()
                for _ in range(3):
                    self._try(journal)
            journal.close()
        except RecordError:
            return
        finally:
            journal._writer.abandon()

    def _try(self, journal) -> None:
        from_before = self.state._next
        try:
            self.state.append(journal)
        except RecordError:
            self.state.now_ns += 2 * 10**9
            return
        lost = {given for given in self.state.acknowledged if given[1] == 0}
        self.state.acknowledged -= lost
        self.passed += len(lost)
        assert self.state._next == from_before + 1


def declared(state) -> int:
    return sum(
        decode_header(decode_batch(path.read_bytes()).header_bytes).dropped
        for _, path in numbered_batches(state.paths.batches)
    )


@pytest.mark.parametrize("way", WAYS)
def test_every_step_of_counting_may_fail(new_fault_state, faulty, crash, way) -> None:
    files = faulty()
    Host(new_fault_state(), files).live()
    names = files.calls
    assert names.count("overwrite") == 6
    for step, name in enumerate(names):
        if way.get("is_torn") and name not in {"write", "overwrite"}:
            continue
        state = new_fault_state()
        host = Host(state, faulty(fail_at=step, **way))
        try:
            host.live()
        except (AespError, crash):
            assert len(host.files.calls) > step
        write_status(state.paths, {"spool_bytes": 0})
        state.journal().close()
        state.sealer().tick(drain=True)
        state.assert_whole(losses=True)
        # A write that was reported failed, or during which it died, may count for one too many.
        assert host.passed <= declared(state) <= host.passed + 1
        assert verify_place(state.directory, Pins()).lost == declared(state)

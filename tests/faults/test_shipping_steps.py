"""Each step of shipping fails in each way: no promise is lost, nothing goes without its receipt."""

from __future__ import annotations

import contextlib
import errno

import pytest

from aesp_proxy.errors import RecordError
from aesp_proxy.forward.shipper import Shipper
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import Answer
from aesp_proxy.record.batch import decode_batch, verify_batch
from aesp_proxy.record.head import genesis
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem
from aesp_proxy.record.state import numbered_batches, read_head
from aesp_proxy.record.verify import Pins, verify_place

PUBLIC, SIGN = signer_from_pem(new_private_pem())
BATCHES = 2
WAYS = [
    pytest.param({"is_done": False, "code": errno.ENOSPC}, id="not-done"),
    pytest.param({"is_done": True, "code": errno.EIO}, id="done-said-failed"),
    pytest.param({"is_torn": True, "code": errno.ENOSPC}, id="torn"),
    pytest.param({"is_done": False, "is_crash": True}, id="died-before"),
    pytest.param({"is_done": True, "is_crash": True}, id="died-after"),
    pytest.param({"is_torn": True, "is_crash": True}, id="died-torn"),
]


class Region:
    """Verifies and remembers every batch; answers with receipts."""

    def __init__(self, host_key: bytes) -> None:
        self.host_key, self.head = host_key, genesis("h-test")
        self.batches: list[bytes] = []

    def post(self, body: bytes) -> Answer:
        if body not in self.batches:
            batch = decode_batch(body)
            self.head = verify_batch(batch, public_key=self.host_key, previous=self.head).head
            self.batches.append(body)
        receipt = Receipt(
            origin="h-test",
            batch_no=self.head.batch_no,
            header_hash=self.head.header_hash,
            time_ns=1,
            key_id=key_id_of(PUBLIC),
        )
        return Answer(status=200, body=encode_receipt(receipt, SIGN))


def sealed(state) -> Region:
    for _ in range(BATCHES):
        journal = state.journal()
        state.append(journal, 2)
        journal.close()
        state.sealer().tick(drain=True)
    return Region(state.key.public_key)


def ship(state, region: Region, files, *, minutes: int) -> None:
    spool = Spool(state.paths, "h-test", PUBLIC, files=files)
    Shipper(spool, region, wall=lambda: state.now_ns / 1e9 + 60 * minutes).ship_once()


def ship_twice(state, region: Region, files) -> None:
    """Ship, and half an hour later release what was covered."""
    ship(state, region, files, minutes=0)
    journal = state.journal()
    state.append(journal, 1)
    journal.close()
    state.sealer().tick(drain=True)
    ship(state, region, files, minutes=31)


def steps_of(calls: list[str], way) -> list[int]:
    """Numbers of the steps to fail; only a write can be torn."""
    return [at for at, call in enumerate(calls) if call == "write" or not way.get("is_torn")]


@pytest.mark.parametrize("way", WAYS)
def test_shipping_survives_the_failure_of_every_step(new_fault_state, faulty, crash, way) -> None:
    state = new_fault_state()
    files = faulty()
    ship_twice(state, sealed(state), files)
    assert len(files.calls) > 20
    for step in steps_of(files.calls, way):
        state = new_fault_state()
        region = sealed(state)
        # What cannot be removed is removed later, and is no error.
        with contextlib.suppress(RecordError, crash):
            ship_twice(state, region, faulty(fail_at=step, **way))
        covered = len(region.batches)
        here = [number for number, _ in numbered_batches(state.paths.batches)]
        assert set(range(covered + 1, newest(state) + 1)) <= set(here), step
        ship(state, region, faulty(), minutes=31)
        ship(state, region, faulty(), minutes=62)
        assert len(region.batches) == newest(state), step
        report = verify_place(
            state.directory, Pins(key=state.key.public_key, aggregator_key=PUBLIC)
        )
        assert report.problems == [], step
        assert report.receipt_batch == newest(state), step


def newest(state) -> int:
    head = read_head(state.paths)
    assert head is not None
    return head.batch_no

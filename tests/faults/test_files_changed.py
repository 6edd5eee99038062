"""Any byte of what a state keeps, cut or flipped: `audit verify` says so or says the same."""

from __future__ import annotations

import pytest

from aesp_proxy.errors import AespError
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem
from aesp_proxy.record.state import read_head
from aesp_proxy.record.verify import Pins, verify_place

STRIDE = 5
PUBLIC, SIGN = signer_from_pem(new_private_pem())


@pytest.fixture
def kept(fault_state):
    """Two sealed batches and a receipt for both."""
    for _ in range(2):
        journal = fault_state.journal()
        fault_state.append(journal, 2)
        journal.close()
        fault_state.sealer().tick(drain=True)
    head = read_head(fault_state.paths)
    assert head is not None
    receipt = Receipt(
        origin=fault_state.origin,
        batch_no=head.batch_no,
        header_hash=head.header_hash,
        time_ns=1,
        key_id=key_id_of(PUBLIC),
    )
    fault_state.paths.receipt.write_bytes(encode_receipt(receipt, SIGN))
    return fault_state


def told(state) -> tuple[int, int, int, bool]:
    """What is proved, and whether anything is said to be wrong."""
    pins = Pins(key=state.key.public_key, aggregator_key=PUBLIC)
    try:
        report = verify_place(state.directory, pins)
    except AespError:
        return 0, 0, 0, True
    return report.batches, report.records, report.receipt_batch, bool(report.problems)


@pytest.mark.parametrize("name", ["batch", "head", "receipt", "origin"])
def test_a_byte_that_is_cut_or_flipped_is_never_passed_over(kept, name: str) -> None:
    paths = kept.paths
    path = {
        "batch": paths.batch(1), "head": paths.head, "receipt": paths.receipt,
        "origin": paths.origin,
    }[name]  # fmt: skip
    data, whole = path.read_bytes(), told(kept)
    assert whole == (2, 4, 2, False)
    for place in range(0, len(data), STRIDE if name == "batch" else 2):
        for changed in (
            data[:place],
            data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :],
        ):
            path.write_bytes(changed)
            found = told(kept)
            # The newline behind the origin's name says nothing, so it may be another.
            assert found[-1] or found == whole, (name, place)
    path.write_bytes(data)
    assert told(kept) == whole


def test_the_signing_key_itself_damaged_anywhere_signs_nothing_else(kept) -> None:
    path = next(kept.paths.keys.glob("*.key"))
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            assert load_signing_key(kept.paths).public_key == kept.key.public_key, place
        except AespError:
            continue

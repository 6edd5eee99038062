from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.receipt import Receipt, decode_receipt, encode_receipt, verify_receipt
from aesp_proxy.record.signature import key_id_of


@pytest.fixture
def receipt(key_pair) -> Receipt:
    return Receipt(
        origin="h-test",
        batch_no=7,
        header_hash=b"\x05" * 32,
        time_ns=9,
        key_id=key_id_of(key_pair[0]),
    )


def test_a_receipt_verifies_with_the_pinned_key(receipt, key_pair) -> None:
    data = encode_receipt(receipt, key_pair[1])
    assert verify_receipt(data, public_key=key_pair[0], origin="h-test") == receipt
    assert decode_receipt(data)[0] == receipt


def test_no_byte_of_a_receipt_may_change(receipt, key_pair) -> None:
    data = encode_receipt(receipt, key_pair[1])
    for at in range(len(data)):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]):
            with pytest.raises(ChainError):
                verify_receipt(changed, public_key=key_pair[0])


def test_a_receipt_of_another_key_or_origin_is_refused(receipt, key_pair, new_chain) -> None:
    data = encode_receipt(receipt, key_pair[1])
    with pytest.raises(ChainError) as caught:
        verify_receipt(data, public_key=new_chain().public_key)
    assert caught.value.kind is Fault.WRONG_KEY
    with pytest.raises(ChainError) as caught:
        verify_receipt(data, public_key=key_pair[0], origin="h-other")
    assert caught.value.kind is Fault.REPLAYED


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    with pytest.raises(ChainError):
        decode_receipt(data)

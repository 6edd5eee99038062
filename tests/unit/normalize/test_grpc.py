"""gRPC messages come out whole however the data is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.grpc import MessageReader


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


@given(st.lists(st.binary(max_size=30), max_size=6), st.integers(1, 9))
def test_messages_are_whole_however_they_are_cut(messages, step):
    wire = b"".join(map(framed, messages))
    reader = MessageReader(100)
    got = [m for at in range(0, len(wire), step) for m in reader.feed(wire[at : at + step])]
    assert got == [framed(m) for m in messages]
    assert reader.is_between


@pytest.mark.parametrize("wire", [framed(b"x" * 101), framed(b"x", flag=1)])
def test_what_cannot_be_scanned_is_refused(wire):
    with pytest.raises(InputError):
        MessageReader(100).feed(wire)


def test_a_compressed_message_is_taken_where_it_can_be_read_and_no_other_flag_is_known():
    reader = MessageReader(100, may_be_compressed=True)
    assert reader.feed(framed(b"x", flag=1)) == [framed(b"x", flag=1)]
    with pytest.raises(InputError):
        reader.feed(framed(b"x", flag=2))


def test_a_begun_message_is_known():
    reader = MessageReader(100)
    assert reader.feed(framed(b"abc")[:-1]) == []
    assert not reader.is_between

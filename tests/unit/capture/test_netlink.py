"""Netlink messages: made and read, byte for byte."""

from __future__ import annotations

import errno
import struct

import pytest

from aesp_proxy.intercept import netlink


def test_attributes_are_padded_and_their_length_is_not():
    assert netlink.attribute(5, b"abc") == struct.pack("=HH", 7, 5) + b"abc\0"


def test_what_was_put_together_comes_apart_again():
    inner = netlink.nested(7, netlink.attribute(1, b"a"), netlink.attribute(2, b"bcdef"))
    ((kind, value),) = netlink.attributes(inner)
    assert kind == 7
    assert list(netlink.attributes(value)) == [(1, b"a"), (2, b"bcdef")]


@pytest.mark.parametrize("cut", range(1, 12))
def test_what_is_cut_off_is_left_out(cut):
    whole = netlink.attribute(1, b"abcd") + netlink.attribute(2, b"efgh")
    assert list(netlink.attributes(whole[:-cut])) in ([(1, b"abcd")], [])
    data = netlink.message(3, 0, 1, b"abcd")
    assert list(netlink.messages(data[:-cut])) == []


@pytest.mark.parametrize("data", [b"\0" * 40, b"\1\0\0\0" * 8, b""])
def test_lengths_that_cannot_be_do_not_loop(data):
    assert list(netlink.messages(data)) == []
    assert list(netlink.attributes(data)) == []


def test_a_refusal_is_raised_and_an_acknowledgement_is_not():
    accepted = netlink.Received(2, 0, struct.pack("=i", 0))
    netlink._raise_refusal(accepted)
    with pytest.raises(PermissionError):
        netlink._raise_refusal(netlink.Received(2, 0, struct.pack("=i", -errno.EPERM)))

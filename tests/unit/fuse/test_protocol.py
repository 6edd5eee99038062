"""Requests of the kernel: read as they are meant, and never beyond their end."""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

import pytest
from fuzz_targets import load_target
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.fuse import protocol, replies

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda raw: raw not in {b".", b".."} and b"/" not in raw and b"\0" not in raw
)
fuzz_one = load_target("fuzz_fuse").fuzz_one


@given(raw=NAMES, size=st.integers(0, 2**32 - 1), flags=st.integers(0, 2**32 - 1))
def test_names_come_back_as_the_bytes_that_they_were(raw, size, flags):
    body = struct.pack("=IIII", flags, size, 0, 0) + raw + b"\0"
    assert protocol.create(body)[2].encode(sys.getfilesystemencoding(), "surrogateescape") == raw


@pytest.mark.parametrize("raw", [b"", b".", b"..", b"a/b", b"a\0b", b"a\0b\0"])
def test_what_is_no_name_is_refused(raw):
    with pytest.raises(InputError):
        protocol.name(raw + b"\0")


def test_a_name_without_its_end_is_refused():
    with pytest.raises(InputError):
        protocol.name(b"name")


@pytest.mark.parametrize("length", [0, 39, 41, 2**32 - 1], ids=str)
def test_a_header_that_lies_about_the_length_is_refused(length):
    whole = protocol.HEADER.pack(length, 1, 2, 3, 0, 0, 0, 0, 0)
    with pytest.raises(InputError):
        protocol.header(whole)


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (6, 40), (8, 1)])
def test_another_protocol_is_refused(major, minor):
    with pytest.raises(InputError, match="older than"):
        protocol.hello(struct.pack("=IIII", major, minor, 0, 0))


def test_flags_beyond_the_first_32_count_only_where_the_kernel_says_so():
    extended = struct.pack("=IIIII44x", 7, 45, 0, protocol.Init.INIT_EXT, 1 << 5)
    assert protocol.hello(extended).flags & protocol.Init.PASSTHROUGH
    plain = struct.pack("=IIIII44x", 7, 45, 0, 0, 1 << 5)
    assert not protocol.hello(plain).flags & protocol.Init.PASSTHROUGH


def test_a_write_of_another_length_than_it_says_is_refused():
    head = struct.pack("=QQIIQII", 1, 0, 5, 0, 0, 0, 0)
    assert bytes(protocol.write(head + b"12345")[1]) == b"12345"
    for data in (b"1234", b"123456"):
        with pytest.raises(InputError):
            protocol.write(head + data)


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
def test_a_place_beyond_any_file_is_refused(number):
    with pytest.raises(InputError):
        protocol.transfer(struct.pack("=QQIIQII", 1, number, 5, 0, 0, 0, 0))


def test_a_time_before_1970_is_one():
    words = [0] * 16
    body = struct.pack(
        "=IIQQQQQQIIIIIIII", protocol.Valid.MTIME, 0, 0, 0, 0, 0, 2**64 - 5, *words[7:]
    )
    assert protocol.attributes(body).mtime_ns == -5_000_000_000


@given(
    names=st.lists(NAMES, max_size=20),
    room=st.integers(0, 2000),
)
def test_a_listing_never_takes_more_room_than_there_is(names, room):
    entries = [
        replies.Entry(index, raw.decode("utf-8", "surrogateescape"), 0o100000)
        for index, raw in enumerate(names)
    ]
    payload = replies.listing(enumerate(entries, 1), bytes_max=room)
    assert len(payload) <= room
    assert len(payload) % 8 == 0


def test_answers_have_the_sizes_that_the_kernel_expects():
    status = replies.status_of(Path("/").stat())
    assert len(replies.entry(1, status, keep_ns=1)) == 128
    assert len(replies.no_entry(keep_ns=1)) == 128
    assert len(replies.attributes(status, keep_ns=1)) == 104
    assert len(replies.opened(1, 0)) == 16
    welcome = replies.Welcome(40, 0, 1 << 37, 1 << 20, 12, 0)
    assert len(replies.welcome(welcome)) == 64
    assert len(replies.forget_attributes(3)) == 40


def test_random_requests_are_a_value_or_an_input_error():
    source = random.Random(7)
    for _ in range(3000):
        fuzz_one(source.randbytes(source.randrange(120)))

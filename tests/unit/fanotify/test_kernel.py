"""What the kernel hands out is read with bounds, and what it never writes is refused."""

from __future__ import annotations

import struct

import pytest
from fuzz_targets import load_target
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.fanotify.kernel import (
    CREATE,
    OPEN_PERM,
    RENAME,
    Change,
    Event,
    Handle,
    Place,
    read_changes,
    read_events,
)

fuzz_fanotify = load_target("fuzz_fanotify").fuzz_one
FSID = b"filesyst"


def event(mask: int, fd: int = 7, pid: int = 42, more: bytes = b"", *, version: int = 3) -> bytes:
    return struct.pack("=IBBHQii", 24 + len(more), version, 0, 24, mask, fd, pid) + more


def info(kind: int, handle: bytes = b"dirhandle", name: bytes = b"") -> bytes:
    body = FSID + struct.pack("=Ii", len(handle), 1) + handle + (name + b"\0" if name else b"")
    body += b"\0" * (-len(body) % 4)
    return struct.pack("=BBH", kind, 0, 4 + len(body)) + body


def test_several_questions_are_read_in_their_order():
    data = event(OPEN_PERM) + event(OPEN_PERM, fd=8, pid=43)
    assert read_events(data) == [Event(OPEN_PERM, 7, 42), Event(OPEN_PERM, 8, 43)]


def test_a_created_name_and_a_rename_tell_their_places_and_the_file_system():
    handle = Handle(1, b"dirhandle", FSID)
    created = event(CREATE, -1, 9, info(2, name=b".env") + info(1, b"target"))
    renamed = event(RENAME, -1, 9, info(10, name=b"old") + info(12, b"other", b"new"))
    assert read_changes(created + renamed) == [
        Change(CREATE, 9, Place(handle, b".env"), None, Handle(1, b"target", FSID)),
        Change(RENAME, 9, Place(handle, b"old"), Place(Handle(1, b"other", FSID), b"new")),
    ]


WHOLE = event(CREATE, -1, 9, info(2, name=b".env"))


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_what_is_cut_off_anywhere_is_refused(length):
    with pytest.raises(InputError):
        read_changes(WHOLE[:length])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(event(OPEN_PERM, version=2), id="another version"),
        pytest.param(struct.pack("=IBBHQii", 24, 3, 0, 200, 0, 0, 0), id="head longer than event"),
        pytest.param(struct.pack("=IBBHQii", 0, 3, 0, 24, 0, 0, 0), id="no length"),
        pytest.param(event(CREATE, more=b"\1\0\xff\xff"), id="info longer than event"),
        pytest.param(event(CREATE, more=b"\2\0\4\0"), id="no handle"),
        pytest.param(
            event(CREATE, more=struct.pack("=BBH8sIi", 2, 0, 20, FSID, 1 << 31, 1)),
            id="handle longer than info",
        ),
    ],
)
def test_what_no_kernel_writes_is_refused(data):
    with pytest.raises(InputError):
        read_changes(data)


@given(st.binary(max_size=200), st.integers(0, len(WHOLE) - 1))
def test_no_bytes_at_all_give_anything_but_events_or_a_refusal(data, at):
    fuzz_fanotify(data)
    fuzz_fanotify(WHOLE[:at] + data[:4] + WHOLE[at + 4 :])

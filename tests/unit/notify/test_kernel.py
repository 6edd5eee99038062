"""What the kernel says of a held call, read as it is laid out."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.notify import kernel
from aesp_proxy.intercept.notify.kernel import How, Memory, read_how, read_notification


def test_a_notification_is_read():
    data = struct.pack("=QIIiIQ6Q", 1 << 40, 77, 0, 257, 0xC000003E, 5, 2**64 - 100, 2, 3, 4, 5, 6)
    found = read_notification(data + b"more")
    assert found.id == 1 << 40
    assert (found.thread, found.number) == (77, 257)
    assert kernel.as_int(found.arguments[0]) == -100
    assert kernel.as_long(found.arguments[0]) == -100
    assert kernel.as_int(7 << 32 | 0xFFFFFFFF) == -1


@given(st.binary(max_size=79))
def test_a_short_notification_is_none(data):
    with pytest.raises(InputError):
        read_notification(data)


@given(st.binary(max_size=64))
def test_an_open_how_is_read_as_the_kernel_does(data):
    if len(data) < 24:
        with pytest.raises(OSError, match="short") as caught:
            read_how(data)
        assert caught.value.errno == errno.EINVAL
    elif any(data[24:]):
        with pytest.raises(OSError, match="future") as caught:
            read_how(data)
        assert caught.value.errno == errno.E2BIG
    else:
        assert read_how(data) == How(*struct.unpack("=QQQ", data[:24]))


def test_a_string_is_read_up_to_its_end():
    memory, text = Memory(), ctypes.create_string_buffer(b"/a/name")
    assert memory.string(os.getpid(), ctypes.addressof(text)) == b"/a/name"


def two_pages() -> tuple[mmap.mmap, int]:
    """A page of memory before one that cannot be read."""
    area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None)
    page = ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE)
    assert libc.mprotect(*page, 0) == 0
    return area, start + mmap.PAGESIZE


def test_a_string_that_ends_where_memory_ends_is_read():
    area, end = two_pages()
    ctypes.memmove(end - 5, b"/tmp\0", 5)
    assert Memory().string(os.getpid(), end - 5) == b"/tmp"
    ctypes.memmove(end - 5, b"/tmpx", 5)
    with pytest.raises(OSError, match="process_vm_readv") as caught:
        Memory().string(os.getpid(), end - 5)
    assert caught.value.errno == errno.EFAULT
    assert area is not None


def test_a_string_over_pages_is_read_and_one_without_an_end_is_too_long():
    area = mmap.mmap(-1, 4 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    text = b"x" * 4000
    ctypes.memmove(start + 3000, text + b"\0", 4001)
    assert Memory().string(os.getpid(), start + 3000) == text
    ctypes.memset(start, ord("y"), 4 * mmap.PAGESIZE)
    with pytest.raises(OSError, match="end") as caught:
        Memory().string(os.getpid(), start + 1)
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("address", [0, 1, 2**63, 2**64 - 1])
def test_nowhere_is_a_fault(address):
    with pytest.raises(OSError, match="process_vm_readv") as caught:
        Memory().string(os.getpid(), address)
    assert caught.value.errno == errno.EFAULT

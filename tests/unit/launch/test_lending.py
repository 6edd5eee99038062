"""Memory that an ancestor reads for who may not."""

from __future__ import annotations

import ctypes
import errno
import os
import threading

import pytest

from aesp_proxy.intercept.notify.kernel import Memory
from aesp_proxy.launch.isolation.lending import Lender, memory_of


@pytest.fixture
def lender():
    lender = Lender()
    with lender._socket, lender.theirs:
        yield lender


def borrowing(lender: Lender) -> Memory:
    """Memory that the kernel does not let us read ourselves."""
    memory = Memory(lender.theirs.fileno())

    def refused(*_: object) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    memory._read = refused
    return memory


def test_what_may_not_be_read_is_borrowed(lender):
    text = ctypes.create_string_buffer(b"/a/path")
    answering = threading.Thread(target=lender.answer)
    answering.start()
    assert borrowing(lender).string(os.getpid(), ctypes.addressof(text)) == b"/a/path"
    answering.join()


def test_what_is_not_there_is_a_fault_of_the_caller_s(lender):
    answering = threading.Thread(target=lender.answer)
    answering.start()
    with pytest.raises(OSError, match="lent") as caught:
        borrowing(lender).string(os.getpid(), 2**63 + 1)
    answering.join()
    assert caught.value.errno == errno.EFAULT


def test_without_a_lender_it_is_an_error(lender):
    memory = borrowing(lender)
    memory._lender = -1
    with pytest.raises(PermissionError):
        memory.string(os.getpid(), 4096)


def test_a_lender_that_nobody_asks_any_more_is_closed(lender):
    assert lender.is_open
    lender.theirs.close()
    lender.answer()
    assert not lender.is_open


@pytest.mark.parametrize("question", [b"x", b"x" * 15])
def test_nonsense_closes_it(lender, question):
    lender.theirs.send(question)
    lender.answer()
    assert not lender.is_open


@pytest.mark.parametrize("length", [0, 4097, 1 << 31])
def test_no_more_is_read_than_a_path_has(length):
    with pytest.raises(OSError, match="no length"):
        memory_of(os.getpid(), 4096, length)

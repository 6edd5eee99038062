"""Read the memory of the command's processes for the file guard, where it may not itself.

Some kernels let only an ancestor look into a process (yama: ``kernel.yama.ptrace_scope``
1). The file guard is none; the reaper is one of all that the command starts. A question
is a thread, an address and a length, an answer an error number and the bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from typing import Final

from aesp_proxy.launch.isolation import kernel

QUESTION: Final = struct.Struct("=iQI")
ERROR: Final = struct.Struct("=i")
LENGTH_MAX: Final = 4096
_READ_MEMORY: Final = {"x86_64": 310, "aarch64": 270}


class Lender:
    """The reaper's end; ``theirs`` is to be handed out."""

    def __init__(self) -> None:
        self._socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._is_open = True

    def fileno(self) -> int:
        """Return what to wait on for ``answer``."""
        return self._socket.fileno()

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask."""
        return self._is_open

    def answer(self) -> None:
        """Answer one question that has come; closed when nobody is left to ask."""
        try:
            question = self._socket.recv(QUESTION.size)
        except OSError:
            question = b""
        if len(question) != QUESTION.size:
            self._is_open = False
            return
        try:
            answer = ERROR.pack(0) + memory_of(*QUESTION.unpack(question))
        except OSError as error:
            answer = ERROR.pack(error.errno or errno.EFAULT)
        with contextlib.suppress(OSError):
            self._socket.send(answer)


def memory_of(thread: int, address: int, length: int) -> bytes:
    """Return a piece of another process's memory: process_vm_readv(2)."""
    if not 0 < length <= LENGTH_MAX:
        raise OSError(errno.EINVAL, "no length to read")
    buffer = ctypes.create_string_buffer(length)
    ours = struct.pack("@PN", ctypes.addressof(buffer), length)
    theirs = struct.pack("@PN", address, length)
    number = _READ_MEMORY.get(os.uname().machine, -1)
    got = kernel.syscall(number, thread, ours, 1, theirs, 1, 0)
    if got != length:
        raise OSError(errno.EFAULT, "memory that is not there")
    return buffer.raw

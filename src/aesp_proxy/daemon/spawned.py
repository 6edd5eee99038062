"""Run one of our modules as a process that cannot outlive its parent.

``python -I -m aesp_proxy.daemon.spawned PARENT_PID SIGNAL MODULE ARG ...``: ask
the kernel for SIGNAL when the parent dies (prctl(2), PR_SET_PDEATHSIG), then run
MODULE as ``__main__`` in this same interpreter. It is done here and not between
fork and exec, as code run there in a process with threads can deadlock.

The kernel means the parent *thread*: the parent must start this from its main
thread, not from a pool whose threads come and go.
"""

from __future__ import annotations

import ctypes
import os
import resource
import runpy
import sys
from types import TracebackType
from typing import Final

from aesp_proxy.errors import told

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_pid: int, signal_number: int) -> None:
    """Have the kernel send ``signal_number`` to this process when its parent dies.

    Exits at once when the parent is dead already: then no signal would come.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        sys.exit(4)


def leave_no_core() -> None:
    """Have the kernel write no core of this process: its memory holds what agents send.

    A limit of one byte, not none: the kernel asks nothing of a program that takes cores
    through a pipe, but for this value (core(5); fs/coredump.c).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def tell_places(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    """Say where an error ended this process, without its text (``sys.excepthook``)."""
    sys.stderr.write(f"aesp-proxy: a fault of ours ended it: {told(error)}\n")


def main() -> None:
    """Tie this process to its parent and become the module that was named."""
    leave_no_core()
    sys.excepthook = tell_places
    parent_pid, signal_number, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    die_with_parent(parent_pid, signal_number)
    sys.argv = sys.argv[3:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

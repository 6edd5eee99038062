"""Have the system calls that name paths held, for the file guard to decide and do them.

A second filter beside that of ``seccomp``: of two answers the kernel takes the stricter,
so what that one refuses is not held (seccomp(2)). Its listener is handed out; when nobody
holds that any more, every call of the table ends in ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

from aesp_proxy.intercept.notify.calls import ABSENT, BTRFS_SNAPSHOTS, CALLS
from aesp_proxy.launch.isolation import kernel, seccomp
from aesp_proxy.launch.isolation.seccomp import Architecture, Steps

_SECCOMP: Final = (317, 277)
_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
# Once a call was handed over only a deadly signal ends it, so none is done twice: Linux 5.19.
_WAIT_KILLABLE: Final = 32


def program(architecture: Architecture) -> Steps:
    """Return the filter; another architecture is the other filter's to refuse."""
    column = architecture.column
    steps = seccomp.for_architecture(architecture)
    snapshots = [seccomp.argument(1)]
    for request in BTRFS_SNAPSHOTS:
        snapshots += seccomp.when(request, seccomp.fail(errno.EPERM))
    steps += seccomp.when(seccomp.IOCTL[column] or 0, snapshots + seccomp.end(seccomp.ALLOW))
    for call in CALLS:
        if (number := call.numbers[column]) is not None:
            steps += seccomp.when(number, seccomp.end(seccomp.HOLD))
    for numbers in ABSENT.values():
        if (number := numbers[column]) is not None:
            steps += seccomp.when(number, seccomp.fail(errno.ENOSYS))
    return steps + seccomp.end(seccomp.ALLOW)


def hold() -> int:
    """Put the filter in force for this process and all it starts; return its listener.

    Needs no_new_privs. From here on a call of the table waits for who holds the listener.
    OSError where the kernel or the architecture has none of it, EBUSY inside of another.
    """
    machine = os.uname().machine
    architecture = seccomp.ARCHITECTURES.get(machine)
    if architecture is None:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    steps = program(architecture)
    code = ctypes.create_string_buffer(seccomp.assemble(steps))
    header = struct.pack("@HP", len(steps), ctypes.addressof(code))
    number = _SECCOMP[architecture.column]
    try:
        return _install(number, _NEW_LISTENER | _WAIT_KILLABLE, header)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _install(number, _NEW_LISTENER, header)


def _install(number: int, flags: int, header: bytes) -> int:
    return kernel.syscall(number, _SET_MODE_FILTER, flags, header)

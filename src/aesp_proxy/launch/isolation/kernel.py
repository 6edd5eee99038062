"""System calls that Python's ``os`` does not have; a refusal is an OSError.

Numbers from ``asm-generic/unistd.h``: those from 424 on are the same everywhere.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

# Flags of the mount call.
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_RDONLY: Final = 1
_SYS_CLOSE_RANGE: Final = 436
_SYS_MOUNT_SETATTR: Final = 442
_CLOSE_RANGE_CLOEXEC: Final = 4
_DESCRIPTOR_MAX: Final = 0xFFFFFFFF
# Options of the prctl call.
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47

LIBC: Final = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """Return ``result``, or raise what the kernel said when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call by its number; integers are passed as 64 bits."""
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return checked(LIBC.syscall(ctypes.c_long(number), *words), f"system call {number}")


def prctl(option: int, *arguments: int) -> None:
    """Set a property of this process, see man 2 prctl; what is not given is 0."""
    words = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    checked(LIBC.prctl(option, *words), f"prctl {option}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount or change a mount (see man 2 mount)."""
    words = [os.fsencode(each) if each else None for each in (source, target, kind, data)]
    result = LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    checked(result, f"mount on {target}")


def detach(target: str) -> None:
    """Take a mount off; what still uses it keeps it."""
    checked(LIBC.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def make_read_only(target: str) -> None:
    """Make a mount and all below it read-only: mount_setattr(2), Linux 5.12."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = os.fsencode(target)
    syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, len(attributes))


def close_on_exec_from(first: int) -> None:
    """Have every descriptor from ``first`` on closed by exec: close_range(2), Linux 5.11."""
    try:
        syscall(_SYS_CLOSE_RANGE, first, _DESCRIPTOR_MAX, _CLOSE_RANGE_CLOEXEC)
    except OSError:
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, in an older kernel
            if int(name) >= first:
                try:
                    os.set_inheritable(int(name), False)
                except OSError:
                    # The directory's own descriptor, closed by now.
                    continue

"""The system calls that name a path to open or to change, and which argument is what.

One table for the filter of the launcher, which has them held, and for the supervisor,
which answers them. Numbers from ``asm/unistd_64.h`` (x86-64) and
``asm-generic/unistd.h`` (aarch64). What is not held is listed with why not: a reader who
misses a call in the first table finds it in the second. Standard library only, as the
filter is made by a process that starts in milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000


class Kind(StrEnum):
    """What is done; the supervisor has one function for each."""

    OPEN = "open"
    OPEN_HOW = "open-how"
    RENAME = "rename"
    LINK = "link"
    SYMLINK = "symlink"
    UNLINK = "unlink"
    MKDIR = "mkdir"
    MKNOD = "mknod"
    TRUNCATE = "truncate"
    CHMOD = "chmod"
    CHOWN = "chown"
    SET_ATTRIBUTE = "set-attribute"
    REMOVE_ATTRIBUTE = "remove-attribute"
    EXECUTE = "execute"


class Call(NamedTuple):
    """One call: its numbers, and the places of its arguments, None for what it lacks.

    ``numbers`` are (x86-64, aarch64), None where the architecture has no such call. ``at`` is
    the directory that a path is relative to, without one it is the working directory;
    ``path`` is None where ``at`` is the object itself. ``at2`` and ``path2`` are the second
    name. ``extra`` are the others in the order in which the kind's function takes them.
    ``fixed`` are flags that the call implies.
    """

    name: str
    kind: Kind
    numbers: tuple[int | None, int | None]
    path: int | None = 0
    at: int | None = None
    path2: int | None = None
    at2: int | None = None
    flags: int | None = None
    fixed: int = 0
    extra: tuple[int, ...] = ()


_CREAT: Final = os.O_CREAT | os.O_WRONLY | os.O_TRUNC

CALLS: Final[tuple[Call, ...]] = (
    Call("open", Kind.OPEN, (2, None), flags=1, extra=(2,)),
    Call("creat", Kind.OPEN, (85, None), fixed=_CREAT, extra=(1,)),
    Call("openat", Kind.OPEN, (257, 56), at=0, path=1, flags=2, extra=(3,)),
    Call("openat2", Kind.OPEN_HOW, (437, 437), at=0, path=1, extra=(2, 3)),
    Call("rename", Kind.RENAME, (82, None), path2=1),
    Call("renameat", Kind.RENAME, (264, 38), at=0, path=1, at2=2, path2=3),
    Call("renameat2", Kind.RENAME, (316, 276), at=0, path=1, at2=2, path2=3, flags=4),
    Call("link", Kind.LINK, (86, None), path2=1),
    Call("linkat", Kind.LINK, (265, 37), at=0, path=1, at2=2, path2=3, flags=4),
    Call("symlink", Kind.SYMLINK, (88, None), path=1, extra=(0,)),
    Call("symlinkat", Kind.SYMLINK, (266, 36), at=1, path=2, extra=(0,)),
    Call("unlink", Kind.UNLINK, (87, None)),
    Call("rmdir", Kind.UNLINK, (84, None), fixed=AT_REMOVEDIR),
    Call("unlinkat", Kind.UNLINK, (263, 35), at=0, path=1, flags=2),
    Call("mkdir", Kind.MKDIR, (83, None), extra=(1,)),
    Call("mkdirat", Kind.MKDIR, (258, 34), at=0, path=1, extra=(2,)),
    Call("mknod", Kind.MKNOD, (133, None), extra=(1, 2)),
    Call("mknodat", Kind.MKNOD, (259, 33), at=0, path=1, extra=(2, 3)),
    Call("truncate", Kind.TRUNCATE, (76, 45), extra=(1,)),
    Call("chmod", Kind.CHMOD, (90, None), extra=(1,)),
    Call("fchmod", Kind.CHMOD, (91, 52), at=0, path=None, extra=(1,)),
    Call("fchmodat", Kind.CHMOD, (268, 53), at=0, path=1, extra=(2,)),
    Call("fchmodat2", Kind.CHMOD, (452, 452), at=0, path=1, flags=3, extra=(2,)),
    Call("chown", Kind.CHOWN, (92, None), extra=(1, 2)),
    Call("lchown", Kind.CHOWN, (94, None), fixed=AT_SYMLINK_NOFOLLOW, extra=(1, 2)),
    Call("fchown", Kind.CHOWN, (93, 55), at=0, path=None, extra=(1, 2)),
    Call("fchownat", Kind.CHOWN, (260, 54), at=0, path=1, flags=4, extra=(2, 3)),
    Call("setxattr", Kind.SET_ATTRIBUTE, (188, 5), extra=(1, 2, 3, 4)),
    Call("lsetxattr", Kind.SET_ATTRIBUTE, (189, 6), fixed=AT_SYMLINK_NOFOLLOW, extra=(1, 2, 3, 4)),
    Call("fsetxattr", Kind.SET_ATTRIBUTE, (190, 7), at=0, path=None, extra=(1, 2, 3, 4)),
    Call("removexattr", Kind.REMOVE_ATTRIBUTE, (197, 14), extra=(1,)),
    Call("lremovexattr", Kind.REMOVE_ATTRIBUTE, (198, 15), fixed=AT_SYMLINK_NOFOLLOW, extra=(1,)),
    Call("fremovexattr", Kind.REMOVE_ATTRIBUTE, (199, 16), at=0, path=None, extra=(1,)),
    Call("execve", Kind.EXECUTE, (59, 221)),
    Call("execveat", Kind.EXECUTE, (322, 281), at=0, path=1, flags=4),
)

ABSENT: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "uselib": (134, None),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
"""Refused as if the kernel did not have them: programs know the older ones, too."""

NOT_HELD: Final[Mapping[str, str]] = {
    "stat": "shows that a file is there, its size and times, not what is in it",
    "statx": "as stat",
    "newfstatat": "as stat",
    "lstat": "as stat",
    "statfs": "says something of a file system only",
    "access": "says whether one might open, and opening is decided",
    "faccessat": "as access",
    "faccessat2": "as access",
    "readlink": "shows where a link leads, and opening is decided where it has led",
    "readlinkat": "as readlink",
    "getxattr": "shows attributes of a file, not what is in it",
    "listxattr": "as getxattr",
    "getdents64": "reads a directory that was opened, which is decided",
    "chdir": "what is opened from there is decided by where that is",
    "fchdir": "as chdir",
    "utimensat": "changes times only; what is kept of a file also looks at one that cannot be set",
    "utime": "as utimensat",
    "utimes": "as utimensat",
    "futimesat": "as utimensat",
    "name_to_handle_at": "a handle cannot be opened: open_by_handle_at is refused",
    "inotify_add_watch": "tells that something happens, not what is in a file",
    "bind": "no unix socket can be made that could be bound to a path",
    "connect": "as bind",
    "ftruncate": "needs a file that was opened to be written, which is decided",
    "fallocate": "as ftruncate",
    "copy_file_range": "as ftruncate, and the other one was opened to be read",
    "memfd_create": "a file without a name",
    "mq_open": "a queue is no file of any tree",
    "shmget": "as mq_open",
}
"""What takes a path or a file and is let pass, and why."""

BTRFS_SNAPSHOTS: Final = (0x50009401, 0x50009417)
"""BTRFS_IOC_SNAP_CREATE and its second version, which give a whole tree other names."""


def column_of(machine: str) -> int:
    """Return the place of an architecture in ``numbers``, 0 for one that has no filter."""
    return {"aarch64": 1}.get(machine, 0)


def by_number(column: int) -> dict[int, Call]:
    """Return the calls of one architecture."""
    found = ((call.numbers[column], call) for call in CALLS)
    return {number: call for number, call in found if number is not None}

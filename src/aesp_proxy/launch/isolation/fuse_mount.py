"""Mount a session of FUSE: made while the host's process ids still count, attached later.

The session belongs to the user namespace that opens /dev/fuse, and tells processes by the
ids of the namespace in which it is made; so it is made by the builder, and hung over its
directory by the init, when everything that is covered below is covered (fsopen(2)).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

from aesp_proxy.launch.isolation import kernel

_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_MOVE_MOUNT: Final = 429
_SET_FLAG: Final = 0
_SET_STRING: Final = 1
_CREATE: Final = 6
_CLOEXEC: Final = 1
_ATTRIBUTES: Final = 0x2 | 0x4  # MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV
_FROM_EMPTY_PATH: Final = 0x4
_AT_FDCWD: Final = -100
_DEVICE: Final = "/dev/fuse"


class FuseMount(NamedTuple):
    """A session (``device``) and its mount, which hangs nowhere yet."""

    tree: str
    device: int
    mount: int


def make(tree: str) -> FuseMount:
    """Make the session of a tree; OSError where the machine does not allow it."""
    if tree == "/":
        raise OSError(errno.EINVAL, "the root itself cannot be a view")
    kind = os.stat(tree).st_mode  # noqa: PTH116 - no Path, to start fast
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        context = kernel.syscall(_FSOPEN, b"fuse", _CLOEXEC)
        try:
            for name, value in (
                ("source", "aesp-proxy"),
                ("fd", str(device)),
                ("rootmode", f"{stat.S_IFMT(kind):o}"),
                ("user_id", str(os.geteuid())),
                ("group_id", str(os.getegid())),
            ):
                _configure(context, _SET_STRING, name.encode(), value.encode())
            for flag in (b"default_permissions", b"allow_other"):
                _configure(context, _SET_FLAG, flag, None)
            _configure(context, _CREATE, None, None)
            mount = kernel.syscall(_FSMOUNT, context, _CLOEXEC, _ATTRIBUTES)
        finally:
            os.close(context)
    except BaseException:
        os.close(device)
        raise
    return FuseMount(tree, device, mount)


def attach(made: FuseMount) -> None:
    """Hang it over its directory; what was there is out of reach from then on."""
    target = os.fsencode(made.tree)
    kernel.syscall(_MOVE_MOUNT, made.mount, b"", _AT_FDCWD, target, _FROM_EMPTY_PATH)
    os.close(made.mount)


def _configure(context: int, command: int, name: bytes | None, value: bytes | None) -> None:
    kernel.syscall(_FSCONFIG, context, command, name, value, 0)

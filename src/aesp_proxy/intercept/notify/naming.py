"""Say what an object that is held is called now: also where that is longer than a path may be.

The kernel tells a name of a page at most. A directory deeper than that is named by going
up from it, and looking it up among the entries of each directory above, as getcwd(3) did.
"""

from __future__ import annotations

import errno
import os
from typing import Final

_UP: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DEPTH_MAX: Final = 4096


def name_of(held: int, start: int = -1, way: bytes = b"") -> str:
    """Return the path of what is held, as the kernel has it.

    ``way`` led to it from the directory ``start``, without a link: so a file is named that
    lies deep. OSError (ENAMETOOLONG) for one that cannot be named.
    """
    try:
        return os.readlink(f"/proc/self/fd/{held}")  # noqa: PTH115 - a descriptor's
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    above, _, name = way.rpartition(b"/")
    if name in (b"", b".", b"..") or start < 0 or way[:1] == b"/":
        return _climbed(held)
    directory = os.open(above or b".", os.O_PATH | os.O_CLOEXEC, dir_fd=start)
    try:
        return f"{name_of(directory)}/{os.fsdecode(name)}"
    finally:
        os.close(directory)


def _climbed(held: int) -> str:
    """Return the path of a directory that lies deep; OSError (ENAMETOOLONG) for a file."""
    names: list[str] = []
    at = os.dup(held)
    try:
        for _ in range(_DEPTH_MAX):
            try:
                above = os.readlink(f"/proc/self/fd/{at}")  # noqa: PTH115
                return "/".join((above, *reversed(names)))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
            status = os.fstat(at)
            try:
                up = os.open("..", _UP, dir_fd=at)
            except NotADirectoryError as error:
                raise OSError(errno.ENAMETOOLONG, "a file too deep to be named") from error
            os.close(at)
            at = up
            names.append(_entry(at, status))
    finally:
        os.close(at)
    raise OSError(errno.ENAMETOOLONG, "too deep")


def _entry(directory: int, status: os.stat_result) -> str:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.inode() == status.st_ino and entry.is_dir(follow_symlinks=False):
                return entry.name
    raise FileNotFoundError(errno.ENOENT, "removed")

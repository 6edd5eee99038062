"""Show a directory through mfusepy (libfuse's paths, by ctypes) and decide nothing.

``mfusepy_through.py SOURCE MOUNT``, until it is unmounted. Names and attributes are kept for
a minute and what was read stays in the kernel's cache, as in our view.
"""
# Called as the library calls, by paths that are texts.
# ruff: noqa: ANN401, ARG002, PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH208, PTH211

from __future__ import annotations

import os
import sys
from typing import Any

import mfusepy

_STATUS = (
    "st_atime", "st_ctime", "st_gid", "st_ino", "st_mode", "st_mtime", "st_nlink", "st_size",
    "st_uid", "st_blocks",
)  # fmt: skip


class Through(mfusepy.Operations):
    """Every call is the same call on the source."""

    use_ns = False

    def __init__(self, source: str) -> None:
        self._source = source

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._source + path)
        return {name: getattr(found, name) for name in _STATUS}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._source + path)]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._source + path, flags & ~os.O_CREAT)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._source + path, os.O_RDWR | os.O_CREAT, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._source + path, length)
        return 0

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> int:
        os.utime(self._source + path, times, follow_symlinks=False)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._source + path, mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._source + path, uid, gid)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._source + path, mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._source + path)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._source + path)
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._source + old, self._source + new)
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._source + path)

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._source + target)
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._source + source, self._source + target)
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(
        Through(sys.argv[1]),
        sys.argv[2],
        foreground=True,
        nothreads=True,
        default_permissions=True,
        entry_timeout=60,
        attr_timeout=60,
        kernel_cache=True,
    )

"""Show a directory through pyfuse3 (libfuse's inodes, Cython, trio) and decide nothing.

``pyfuse3_through.py SOURCE MOUNT``, until it is unmounted. An inode is a path that is kept;
names and attributes are kept for a minute and what was read stays in the kernel's cache, as
in our view.
"""
# Called as the library calls, by paths that are texts.
# ruff: noqa: ANN401, ARG002, PTH115, PTH208

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import pyfuse3
import trio

_KEEP_S = 60
_STATUS = (
    "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime_ns", "st_mtime_ns",
    "st_ctime_ns", "st_blocks",
)  # fmt: skip


class Through(pyfuse3.Operations):
    """Every call is the same call on the source."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._paths: dict[int, str] = {pyfuse3.ROOT_INODE: source}
        self._numbers: dict[str, int] = {source: pyfuse3.ROOT_INODE}
        self._next = int(pyfuse3.ROOT_INODE)

    def _number(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            self._next += 1
            number = self._numbers[path] = self._next
            self._paths[number] = path
        return number

    def _at(self, inode: int, name: bytes) -> str:
        return f"{self._paths[inode]}/{os.fsdecode(name)}"

    def _attributes(self, path: str) -> Any:
        found = _call(os.lstat, path)
        entry = pyfuse3.EntryAttributes()
        for name in _STATUS:
            setattr(entry, name, getattr(found, name))
        entry.st_ino = self._number(path)
        entry.entry_timeout = entry.attr_timeout = _KEEP_S
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: Any = None) -> Any:
        return self._attributes(self._at(parent, name))

    async def getattr(self, inode: int, ctx: Any = None) -> Any:
        return self._attributes(self._paths[inode])

    async def setattr(self, inode: int, attr: Any, fields: Any, fh: Any, ctx: Any) -> Any:
        path = self._paths[inode]
        if fields.update_size:
            _call(os.truncate, path, attr.st_size)
        if fields.update_mode:
            _call(os.chmod, path, attr.st_mode & 0o7777)
        if fields.update_uid or fields.update_gid:
            owner = attr.st_uid if fields.update_uid else -1
            _call(os.lchown, path, owner, attr.st_gid if fields.update_gid else -1)
        if fields.update_mtime:
            times = (attr.st_atime_ns, attr.st_mtime_ns)
            _call(lambda: os.utime(path, ns=times, follow_symlinks=False))
        return self._attributes(path)

    async def opendir(self, inode: int, ctx: Any) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        path = self._paths[fh]
        for place, name in enumerate(sorted(os.listdir(path))[start_id:], start_id + 1):
            entry = self._attributes(f"{path}/{name}")
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, place):
                break

    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        opened = _call(os.open, self._paths[inode], flags & ~os.O_CREAT)
        return pyfuse3.FileInfo(fh=opened, keep_cache=True)

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        path = self._at(parent, name)
        opened = _call(os.open, path, flags & ~os.O_ACCMODE | os.O_CREAT | os.O_RDWR, mode)
        return pyfuse3.FileInfo(fh=opened), self._attributes(path)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        return os.pread(fh, size, offset)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return os.pwrite(fh, data, offset)

    async def release(self, fh: int) -> None:
        os.close(fh)

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        _call(os.mkdir, self._at(parent, name), mode)
        return self._attributes(self._at(parent, name))

    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any) -> Any:
        _call(os.symlink, target, os.fsencode(self._at(parent, name)))
        return self._attributes(self._at(parent, name))

    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return os.readlink(os.fsencode(self._paths[inode]))

    async def link(self, inode: int, parent: int, name: bytes, ctx: Any) -> Any:
        _call(os.link, self._paths[inode], self._at(parent, name))
        return self._attributes(self._at(parent, name))

    async def rmdir(self, parent: int, name: bytes, ctx: Any) -> None:
        _call(os.rmdir, self._at(parent, name))
        self._forget(self._at(parent, name))

    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        _call(os.unlink, self._at(parent, name))
        self._forget(self._at(parent, name))

    def _forget(self, path: str) -> None:
        self._paths.pop(self._numbers.pop(path, 0), None)

    async def rename(
        self, old: int, name: bytes, new: int, to: bytes, flags: int, ctx: Any
    ) -> None:
        source, target = self._at(old, name), self._at(new, to)
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        _call(os.rename, source, target)
        self._forget(target)
        below = f"{source}/"
        for path in [each for each in self._numbers if each == source or each.startswith(below)]:
            number = self._numbers.pop(path)
            moved = target + path[len(source) :]
            self._numbers[moved], self._paths[number] = number, moved


def _call(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from None


if __name__ == "__main__":
    options = {*pyfuse3.default_options, "default_permissions"}
    pyfuse3.init(Through(sys.argv[1]), sys.argv[2], options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)

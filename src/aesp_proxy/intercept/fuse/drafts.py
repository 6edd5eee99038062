"""A draft: where what is written to a file goes until it has been looked at.

A file without a name in the same directory (O_TMPFILE), or in memory where the file system
has none. A new file's draft becomes the file by getting its name. A draft of a file that
is there already is written back into that very file, only where it was changed: so its
inode, its other names, its locks and whoever has it open are as they would be without us.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from aesp_proxy.intercept.fuse.nodes import Signature, signature

_FICLONE: Final = 0x40049409
_COPY_BYTES: Final = 1 << 22
_RANGES_MAX: Final = 64
_END: Final = 1 << 62
_NOT_HERE: Final = (
    errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.ENOSYS,
    errno.EBADF, errno.EPERM, errno.EACCES,
)  # fmt: skip


class Draft:
    """One draft. ``ranges`` are where it differs from the file, in bytes, from and up to.

    ``is_untouched``: made or cut off by an open, and not written to since. ``is_linkable``
    is whether it can be given a name. ``times_ns`` were set by hand.
    """

    __slots__ = (
        "fd",
        "is_dirty",
        "is_linkable",
        "is_untouched",
        "kept",
        "mode",
        "ranges",
        "times_ns",
    )

    def __init__(self, directory: int, mode: int) -> None:
        self.mode = mode
        self.is_linkable = True
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            self.fd = os.open(".", flags, mode & 0o7777, dir_fd=directory)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            self.fd = os.memfd_create("aesp-proxy-draft", os.MFD_CLOEXEC)
            self.is_linkable = False
        self.is_dirty = False
        self.is_untouched = False
        self.ranges: list[tuple[int, int]] = []
        self.times_ns: tuple[int, int] | None = None
        self.kept: Signature | None = None

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self.fd).st_size

    def fill(self, source: int) -> None:
        """Make it what the file is."""
        found = os.fstat(source)
        self.kept = None
        self.ranges = []
        os.ftruncate(self.fd, 0)
        try:
            fcntl.ioctl(self.fd, _FICLONE, source)
        except OSError:
            # Not a file system with shared blocks.
            _copy_data(source, self.fd, 0, found.st_size)
            os.ftruncate(self.fd, found.st_size)
        self.kept = signature(found)

    def note(self, start: int, end: int) -> None:
        """Note that it was changed from ``start`` up to ``end``."""
        self.is_dirty = True
        self.is_untouched = False
        ranges = self.ranges
        if ranges:
            first, last = ranges[-1]
            if start <= last and end >= first:
                ranges[-1] = (min(first, start), max(last, end))
                return
            if len(ranges) >= _RANGES_MAX:
                low = min(first for first, _ in ranges)
                high = max(last for _, last in ranges)
                ranges[:] = [(min(low, start), max(high, end))]
                return
        ranges.append((start, end))

    def resize(self, size: int) -> None:
        """Cut it off, or lengthen it by zeros."""
        before = self.size
        os.ftruncate(self.fd, size)
        self.note(min(before, size), _END)

    def content(self, bytes_max: int) -> bytes | None:
        """Return all of it, None where that is more than ``bytes_max``."""
        return content_of(self.fd, bytes_max)

    def write_back(self, target: int) -> None:
        """Make the file what the draft is; OSError with the file as it was for want of room."""
        found = os.fstat(self.fd)
        size, before = found.st_size, os.fstat(target).st_size
        if size > before and found.st_blocks * 512 >= size:
            _make_room(target, before, size)
        for start, end in self.ranges:
            _copy_all(self.fd, target, start, min(end, size), known=before)
        os.ftruncate(target, size)
        if self.times_ns is not None:
            os.utime(target, ns=self.times_ns)
        self.ranges = []
        self.is_dirty = False
        self.times_ns = None
        self.kept = signature(os.fstat(target))

    def close(self) -> None:
        """Throw it away."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def content_of(fd: int, bytes_max: int) -> bytes | None:
    """Return all of an open file, None where that is more than ``bytes_max``."""
    size = os.fstat(fd).st_size
    if size > bytes_max:
        return None
    parts, offset = [], 0
    while data := os.pread(fd, max(size + 1 - offset, 4096), offset):
        parts.append(data)
        offset += len(data)
        if offset > bytes_max:
            return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _make_room(target: int, before: int, size: int) -> None:
    """Refuse, before anything is overwritten, what could not be written to its end."""
    try:
        os.posix_fallocate(target, before, size - before)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            os.ftruncate(target, before)
            raise


def _copy_all(source: int, target: int, start: int, end: int, *, known: int) -> None:
    """Copy a range; what is a hole in it becomes zeros where the target has ``known`` bytes."""
    at = start
    while at < end:
        data = _seek(source, at, os.SEEK_DATA, end)
        if data > at:
            _zero(target, at, min(data, known))
        if data >= end:
            return
        hole = min(_seek(source, data, os.SEEK_HOLE, end), end)
        _copy_bytes(source, target, data, hole)
        at = hole


def _copy_data(source: int, target: int, start: int, end: int) -> None:
    """Copy a range into a target that has nothing there: holes stay holes."""
    _copy_all(source, target, start, end, known=0)


def _seek(fd: int, offset: int, whence: int, end: int) -> int:
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        # No holes are told here: all of it is data.
        return offset if whence == os.SEEK_DATA else end


def _zero(target: int, start: int, end: int) -> None:
    while start < end:
        start += os.pwrite(target, bytes(min(_COPY_BYTES, end - start)), start)


def _copy_bytes(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        length = min(_COPY_BYTES, end - start)
        try:
            done = os.copy_file_range(source, target, length, start, start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            data = os.pread(source, length, start)
            done = os.pwrite(target, data, start) if data else 0
        if done == 0:
            return
        start += done

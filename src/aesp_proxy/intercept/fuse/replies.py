"""What the kernel is answered: include/uapi/linux/fuse.h. Pure.

An answer is a header and a payload; an error has no payload. Times to keep an answer are
whole seconds and nanoseconds.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("=IiQ")
_ATTRIBUTES: Final = "QQQQQQIIIIIIIIII"
_ENTRY: Final = struct.Struct("=QQQQII" + _ATTRIBUTES)
_ATTR: Final = struct.Struct("=QII" + _ATTRIBUTES)
_OPEN: Final = struct.Struct("=QIi")
_PAIR: Final = struct.Struct("=II")
_PLACE: Final = struct.Struct("=Q")
_STATFS: Final = struct.Struct("=QQQQQIIII24x")
_INIT: Final = struct.Struct("=IIIIHHIIHHIIH22x")
_DIRENT: Final = struct.Struct("=QQII")
_INVALID: Final = struct.Struct("=QqQ")
_WORD: Final = (1 << 64) - 1
_SECOND: Final = 1_000_000_000
HEADER_BYTES: Final = _HEADER.size
# What FUSE_NOTIFY_ calls them.
_NOTIFY_INVALID: Final = 2
_NOTIFY_EPOCH: Final = 8
# What FOPEN_ calls them.
OPEN_KEEP_CACHE: Final = 1 << 1
OPEN_NO_FLUSH: Final = 1 << 5
OPEN_PASSTHROUGH: Final = 1 << 7


class Status(NamedTuple):
    """What the kernel keeps of a file; times in nanoseconds."""

    inode: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    links: int
    uid: int
    gid: int
    device: int
    block_bytes: int


class Entry(NamedTuple):
    """One name of a directory: ``kind`` as in ``st_mode``."""

    inode: int
    name: str
    kind: int


class Welcome(NamedTuple):
    """The answer to INIT."""

    minor: int
    readahead: int
    flags: int
    write_bytes_max: int
    background: int
    request_s_max: int


def status_of(found: os.stat_result) -> Status:
    """Return what the kernel keeps of what stat(2) said."""
    return Status(
        found.st_ino,
        found.st_size,
        found.st_blocks,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
        found.st_blksize,
    )


def _words(status: Status) -> tuple[int, ...]:
    inode, size, blocks, atime_ns, mtime_ns, ctime_ns, mode, links, uid, gid, device, unit = status
    atime, atime_rest = divmod(atime_ns, _SECOND)
    mtime, mtime_rest = divmod(mtime_ns, _SECOND)
    ctime, ctime_rest = divmod(ctime_ns, _SECOND)
    return (
        inode,
        size,
        blocks,
        atime & _WORD,
        mtime & _WORD,
        ctime & _WORD,
        atime_rest,
        mtime_rest,
        ctime_rest,
        mode,
        links,
        uid,
        gid,
        device & 0xFFFFFFFF,
        unit,
        0,
    )


def answer(unique: int, payload: bytes = b"") -> bytes:
    """Return a good answer, whole."""
    return _HEADER.pack(_HEADER.size + len(payload), 0, unique) + payload


def head(unique: int, payload_bytes: int) -> bytes:
    """Return the header of a good answer whose payload is written beside it."""
    return _HEADER.pack(_HEADER.size + payload_bytes, 0, unique)


def failure(unique: int, number: int) -> bytes:
    """Return the answer that is an error, of errno(3)."""
    return _HEADER.pack(_HEADER.size, -number, unique)


def welcome(said: Welcome) -> bytes:
    """Return the payload that answers INIT (64 bytes, since 7.23)."""
    return _INIT.pack(
        7,
        said.minor,
        said.readahead,
        said.flags & 0xFFFFFFFF,
        said.background,
        said.background * 3 // 4,
        said.write_bytes_max,
        1,
        said.write_bytes_max // 4096,
        0,
        said.flags >> 32,
        1,
        said.request_s_max,
    )


def entry(node: int, status: Status, *, keep_ns: int) -> bytes:
    """Return the payload that names a node and its attributes, both to be kept as long."""
    seconds, rest = divmod(keep_ns, _SECOND)
    return _ENTRY.pack(node, 0, seconds, seconds, rest, rest, *_words(status))


def no_entry(*, keep_ns: int) -> bytes:
    """Return the payload by which the kernel keeps in mind that there is no such name."""
    seconds, rest = divmod(keep_ns, _SECOND)
    return _ENTRY.pack(0, 0, seconds, 0, rest, 0, *(0,) * 16)


def attributes(status: Status, *, keep_ns: int) -> bytes:
    """Return the payload of GETATTR and SETATTR."""
    seconds, rest = divmod(keep_ns, _SECOND)
    return _ATTR.pack(seconds, rest, 0, *_words(status))


def opened(handle: int, flags: int, backing: int = 0) -> bytes:
    """Return the payload of OPEN, and what follows the entry in CREATE."""
    return _OPEN.pack(handle, flags, backing)


OPENED_BYTES: Final = _OPEN.size


def handle_of(payload: bytes) -> int:
    """Return the handle in a payload of ``opened``."""
    return int(_OPEN.unpack(payload)[0])


def written(size: int) -> bytes:
    """Return the payload of WRITE."""
    return _PAIR.pack(size, 0)


def value_size(size: int) -> bytes:
    """Return how much room an extended attribute or their list takes."""
    return _PAIR.pack(size, 0)


def place(offset: int) -> bytes:
    """Return the payload of LSEEK."""
    return _PLACE.pack(offset)


def file_system(found: os.statvfs_result) -> bytes:
    """Return the payload of STATFS."""
    return _STATFS.pack(
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_bsize,
        found.f_namemax,
        found.f_frsize,
        0,
    )


def listing(entries: Iterable[tuple[int, Entry]], *, bytes_max: int) -> bytes:
    """Return as many entries as have room; with each comes the place of the next."""
    parts: list[bytes] = []
    used = 0
    for following, each in entries:
        raw = os.fsencode(each.name)
        padded = len(raw) + 7 & ~7
        used += _DIRENT.size + padded
        if used > bytes_max:
            break
        kind = stat.S_IFMT(each.kind) >> 12
        parts += (_DIRENT.pack(each.inode, following, len(raw), kind), raw.ljust(padded, b"\0"))
    return b"".join(parts)


def forget_attributes(node: int) -> bytes:
    """Return the notice that what the kernel keeps of a node's attributes is wrong.

    No page of it is touched, so it never waits for a request that waits for us.
    """
    length = _HEADER.size + _INVALID.size
    return _HEADER.pack(length, _NOTIFY_INVALID, 0) + _INVALID.pack(node, -1, 0)


def forget_names() -> bytes:
    """Return the notice that every name is to be looked up again (7.44, Linux 6.16)."""
    return _HEADER.pack(_HEADER.size, _NOTIFY_EPOCH, 0)

"""The kernel's requests of a file system, read: include/uapi/linux/fuse.h, version 7.31 and on.

Pure. A request is a header and a body; what a body holds is known by the operation. The
kernel is not hostile, but a name in it is the agent's: each length is checked, and what
does not fit is an InputError. All numbers are in the machine's own order, structures
without holes.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from aesp_proxy.errors import InputError

MAJOR: Final = 7
MINOR_MIN: Final = 31
MINOR_MAX: Final = 45
ROOT_ID: Final = 1
NAME_BYTES_MAX: Final = 255
Body = memoryview | bytes


class Op(IntEnum):
    """An operation; those that are not here are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    READDIR = 28
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45
    LSEEK = 46
    SYNCFS = 50
    TMPFILE = 51


class Init(IntEnum):
    """What either side can do, asked for and answered in INIT."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37
    REQUEST_TIMEOUT = 1 << 42


class Valid(IntEnum):
    """Which fields of SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


FSYNC_DATA_ONLY: Final = 1
GETATTR_FH: Final = 1
FMODE_EXEC: Final = 0x20
"""In the flags of OPEN: the file is to be executed (include/linux/fs.h)."""

HEADER: Final = struct.Struct("=IIQQIIIHH")
_ONE: Final = struct.Struct("=Q")
_FORGET_ONE: Final = struct.Struct("=QQ")
_PAIR: Final = struct.Struct("=II")
_GETATTR: Final = struct.Struct("=IIQ")
_SETATTR: Final = struct.Struct("=IIQQQQQQIIIIIIII")
_CREATE: Final = struct.Struct("=IIII")
_RENAME2: Final = struct.Struct("=QII")
_RELEASE: Final = struct.Struct("=QIIQ")
_READ: Final = struct.Struct("=QQIIQII")
_FSYNC: Final = struct.Struct("=QII")
_FALLOCATE: Final = struct.Struct("=QQQII")
_LSEEK: Final = struct.Struct("=QQII")
_INIT: Final = struct.Struct("=IIII")
_WORD: Final = struct.Struct("=I")


class Header(NamedTuple):
    """What every request begins with; ``length`` counts the header too."""

    length: int
    operation: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    extension: int
    padding: int


class Attributes(NamedTuple):
    """SETATTR: what to set, and which fields of it count (``Valid``); times in nanoseconds."""

    valid: int
    handle: int
    size: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int


class Transfer(NamedTuple):
    """READ, and the head of WRITE."""

    handle: int
    offset: int
    size: int
    flags: int


class Hello(NamedTuple):
    """INIT: the kernel's version and what it can do (``Init``)."""

    major: int
    minor: int
    readahead: int
    flags: int


def header(request: Body) -> Header:
    """Read the header; InputError unless the request is as long as it says."""
    if len(request) < HEADER.size:
        raise InputError("a request without a header")
    fields = HEADER.unpack_from(request)
    if fields[0] != len(request):
        raise InputError("a request of another length than it says")
    return tuple.__new__(Header, fields)  # as ``_make``, without its check: of each request


def _fields(layout: struct.Struct, body: Body) -> tuple[int, ...]:
    if len(body) < layout.size:
        raise InputError("a body that is too short")
    return layout.unpack_from(body)


def names(body: Body, count: int) -> list[str]:
    """Read ``count`` texts, each ended by a NUL, and nothing after them."""
    parts = bytes(body).split(b"\0")
    if len(parts) != count + 1 or parts[count]:
        raise InputError("not as many names as there should be")
    return [os.fsdecode(part) for part in parts[:count]]


def name(body: Body) -> str:
    """Read one name of a directory entry; InputError for what is none."""
    raw = bytes(body)
    if raw.find(b"\0") != len(raw) - 1:
        raise InputError("not one name")
    return entry_name(os.fsdecode(raw[:-1]))


def entry_name(text: str) -> str:
    """Return a text that may be the name of a directory entry; InputError for any other."""
    if not text or text in {".", ".."} or "/" in text or "\0" in text:
        raise InputError("no name of a directory entry")
    return text


def hello(body: Body) -> Hello:
    """Read INIT; InputError for a protocol that is not ours."""
    major, minor, readahead, flags = _fields(_INIT, body)
    if major != MAJOR or minor < MINOR_MIN:
        raise InputError(f"the kernel speaks FUSE {major}.{minor}, older than 7.{MINOR_MIN}")
    if flags & Init.INIT_EXT and len(body) >= _INIT.size + 4:
        flags |= _WORD.unpack_from(body, _INIT.size)[0] << 32
    return Hello(major, minor, readahead, flags)


def forget(body: Body) -> int:
    """Read how many lookups are forgotten."""
    return _fields(_ONE, body)[0]


def forgets(body: Body) -> list[tuple[int, int]]:
    """Read BATCH_FORGET: nodes and how many lookups of each."""
    count, _ = _fields(_PAIR, body)
    rest = body[_PAIR.size :]
    if len(rest) != count * _FORGET_ONE.size:
        raise InputError("not as many nodes to forget as there should be")
    return [(node, lookups) for node, lookups in _FORGET_ONE.iter_unpack(rest)]


def getattr_handle(body: Body) -> int | None:
    """Read GETATTR: the handle that it is asked of, if any."""
    flags, _, handle = _fields(_GETATTR, body)
    return handle if flags & GETATTR_FH else None


def attributes(body: Body) -> Attributes:
    """Read SETATTR."""
    valid, _, handle, size, _, atime, mtime, _, atime_rest, mtime_rest, _, mode, _, uid, gid, _ = (
        _fields(_SETATTR, body)
    )
    if atime_rest >= 1_000_000_000 or mtime_rest >= 1_000_000_000:
        raise InputError("a time with more than a second of nanoseconds")
    return Attributes(
        valid=valid,
        handle=handle,
        size=_signed(size),
        atime_ns=_seconds(atime) * 1_000_000_000 + atime_rest,
        mtime_ns=_seconds(mtime) * 1_000_000_000 + mtime_rest,
        mode=mode,
        uid=uid,
        gid=gid,
    )


def _signed(number: int) -> int:
    """Return a length or place of a file, which the kernel keeps in 63 bits."""
    if number >> 63:
        raise InputError("a length or place beyond any file")
    return number


def _seconds(number: int) -> int:
    """Return a time that may lie before 1970."""
    return number - (1 << 64) if number >> 63 else number


def open_flags(body: Body) -> int:
    """Read OPEN: flags of open(2)."""
    return _fields(_PAIR, body)[0]


def create(body: Body) -> tuple[int, int, str]:
    """Read CREATE: flags of open(2), mode, name."""
    flags, mode, _, _ = _fields(_CREATE, body)
    return flags, mode, name(body[_CREATE.size :])


def tmpfile(body: Body) -> tuple[int, int]:
    """Read TMPFILE: flags of open(2) and mode."""
    flags, mode, _, _ = _fields(_CREATE, body)
    return flags, mode


def mknod(body: Body) -> tuple[int, str]:
    """Read MKNOD: mode and name."""
    mode, _, _, _ = _fields(_CREATE, body)
    return mode, name(body[_CREATE.size :])


def mkdir(body: Body) -> tuple[int, str]:
    """Read MKDIR: mode and name."""
    mode, _ = _fields(_PAIR, body)
    return mode, name(body[_PAIR.size :])


def symlink(body: Body) -> tuple[str, str]:
    """Read SYMLINK: name and target."""
    made, target = names(body, 2)
    if not target:
        raise InputError("a symbolic link to nothing")
    return entry_name(made), target


def link(body: Body) -> tuple[int, str]:
    """Read LINK: the node that gets a name, and the name."""
    return _fields(_ONE, body)[0], name(body[_ONE.size :])


def rename(body: Body) -> tuple[int, int, str, str]:
    """Read RENAME: the new directory, flags (none), old name, new name."""
    directory = _fields(_ONE, body)[0]
    old, new = names(body[_ONE.size :], 2)
    return directory, 0, entry_name(old), entry_name(new)


def rename2(body: Body) -> tuple[int, int, str, str]:
    """Read RENAME2: the new directory, flags of renameat2(2), old name, new name."""
    directory, flags, _ = _fields(_RENAME2, body)
    old, new = names(body[_RENAME2.size :], 2)
    return directory, flags, entry_name(old), entry_name(new)


def handle(body: Body) -> int:
    """Read the handle of RELEASE, FLUSH or READDIR, which come first."""
    return _fields(_RELEASE, body)[0]


def transfer(body: Body) -> Transfer:
    """Read READ, READDIR, or the head of WRITE."""
    found, offset, size, flags, _, _, _ = _fields(_READ, body)
    return Transfer(found, _signed(offset), size, flags)


def write(body: Body) -> tuple[Transfer, Body]:
    """Read WRITE: where to, and the data."""
    where = transfer(body)
    data = body[_READ.size :]
    if len(data) != where.size:
        raise InputError("not as much data as there should be")
    return where, data


def fsync(body: Body) -> tuple[int, bool]:
    """Read FSYNC: the handle, and whether the data alone must be durable."""
    found, flags, _ = _fields(_FSYNC, body)
    return found, bool(flags & FSYNC_DATA_ONLY)


def fallocate(body: Body) -> tuple[int, int, int, int]:
    """Read a request to make room: handle, place, length, mode (man 2 fallocate)."""
    found, offset, length, mode, _ = _fields(_FALLOCATE, body)
    if _signed(offset) + _signed(length) >> 63:
        raise InputError("a length or place beyond any file")
    return found, offset, length, mode


def lseek(body: Body) -> tuple[int, int, int]:
    """Read LSEEK: handle, place, and from where (SEEK_DATA, SEEK_HOLE)."""
    found, offset, whence, _ = _fields(_LSEEK, body)
    return found, _signed(offset), whence


def getxattr(body: Body) -> tuple[int, str]:
    """Read GETXATTR: room for the value (0 asks for its size) and name."""
    size, _ = _fields(_PAIR, body)
    return size, names(body[_PAIR.size :], 1)[0]


def listxattr(body: Body) -> int:
    """Read LISTXATTR: room for the list (0 asks for its size)."""
    return _fields(_PAIR, body)[0]


def setxattr(body: Body) -> tuple[str, bytes, int]:
    """Read an extended attribute to set: name, value, flags (man 2 setxattr)."""
    size, flags = _fields(_PAIR, body)
    text, _, value = bytes(body[_PAIR.size :]).partition(b"\0")
    if len(value) != size:
        raise InputError("not as much of a value as there should be")
    return os.fsdecode(text), value, flags

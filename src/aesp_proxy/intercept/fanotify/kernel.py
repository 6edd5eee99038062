"""fanotify(7) by its two system calls: groups, marks, events in, answers out.

Numbers are those of include/uapi/linux/fanotify.h (the same on every architecture); what
the kernel hands out is parsed with bounds, and one byte too few is an InputError. Only a
descriptor of an event may be used on a marked file system: a process that answers events
and opens a marked path waits for itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import InputError

CLASS_NOTIFY: Final = 0x0
CLASS_CONTENT: Final = 0x4
CLASS_PRE_CONTENT: Final = 0x8
_CLOEXEC: Final = 0x1
_NONBLOCK: Final = 0x2
# A permission event for which a full queue has no room is allowed by the kernel.
_UNLIMITED_QUEUE: Final = 0x10
_UNLIMITED_MARKS: Final = 0x20
REPORT_TID: Final = 0x100
_REPORT_FID: Final = 0x200
_REPORT_DIR_FID: Final = 0x400
_REPORT_NAME: Final = 0x800
_REPORT_TARGET_FID: Final = 0x1000

MARK_ADD: Final = 0x1
MARK_REMOVE: Final = 0x2
MARK_IGNORED: Final = 0x20
MARK_IGNORED_SURVIVE: Final = 0x40
MARK_FLUSH: Final = 0x80
MARK_FILE_SYSTEM: Final = 0x100
MARK_EVICTABLE: Final = 0x200
MARK_IGNORE: Final = 0x400

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
CREATE: Final = 0x100
DELETE: Final = 0x200
OVERFLOW: Final = 0x4000
OPEN_PERM: Final = 0x1_0000
OPEN_EXEC_PERM: Final = 0x4_0000
ON_CHILD: Final = 0x0800_0000
RENAME: Final = 0x1000_0000
ON_DIRECTORY: Final = 0x4000_0000

ALLOW: Final = 0x1
DENY: Final = 0x2

NO_DESCRIPTOR: Final = -1
_VERSION: Final = 3
_METADATA: Final = struct.Struct("=IBBHQii")
_INFO: Final = struct.Struct("=BBH")
_RESPONSE: Final = struct.Struct("=iI")
_HANDLE: Final = struct.Struct("=Ii")
_FSID_BYTES: Final = 8
_INFO_FID, _INFO_DFID_NAME, _INFO_DFID = 1, 2, 3
_INFO_OLD_NAME, _INFO_NEW_NAME = 10, 12
# As many descriptors are made at once as there are events in a reading.
READ_BYTES: Final = 256 * _METADATA.size
NAMES_BYTES: Final = 1 << 16

# A file opened for an event must not wait (a pipe would, for a writer), nor be touched.
_EVENT_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME | os.O_LARGEFILE

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.fanotify_mark.argtypes = (
    ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """A question of the kernel: ``descriptor`` is the file, ``thread`` who waits."""

    mask: int
    descriptor: int
    thread: int


@dataclass(frozen=True, slots=True)
class Handle:
    """What name_to_handle_at(2) calls a file handle, and the id of its file system."""

    kind: int
    data: bytes
    file_system: bytes = b""


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a directory; an empty name is the directory itself."""

    directory: Handle
    name: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """What has happened to names: ``at`` (of a rename: before), ``to`` of a rename."""

    mask: int
    pid: int
    at: Place | None = None
    to: Place | None = None
    target: Handle | None = None


def permission_group(kind: int) -> int:
    """Make a group that is asked before files are opened; OSError without CAP_SYS_ADMIN."""
    return _init(kind | _UNLIMITED_QUEUE | _UNLIMITED_MARKS | REPORT_TID, _EVENT_FLAGS)


def names_group() -> int:
    """Make a group that is told what happened to names, and can forbid nothing."""
    report = _REPORT_FID | _REPORT_DIR_FID | _REPORT_NAME | _REPORT_TARGET_FID
    return _init(CLASS_NOTIFY | _UNLIMITED_MARKS | report, os.O_RDONLY | os.O_CLOEXEC)


def _init(flags: int, event_flags: int) -> int:
    return _checked(_LIBC.fanotify_init(flags | _CLOEXEC | _NONBLOCK, event_flags), "fanotify_init")


def mark(
    group: int, flags: int, mask: int, *, descriptor: int = -100, path: str | None = None
) -> None:
    """Add, remove or flush marks (fanotify_mark(2)) of a path, or of an open file; OSError."""
    name = None if path is None else os.fsencode(path)
    _checked(_LIBC.fanotify_mark(group, flags, mask, descriptor, name), "fanotify_mark")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def answer(group: int, descriptor: int, *, allow: bool) -> None:
    """Answer the event whose file has this number; OSError (ENOENT) when there is none."""
    os.write(group, _RESPONSE.pack(descriptor, ALLOW if allow else DENY))


# parsing ---------------------------------------------------------------------------------


def read_events(data: bytes) -> list[Event]:
    """Read what a permission group hands out; InputError for what no kernel writes."""
    return [Event(mask, descriptor, pid) for mask, descriptor, pid, _ in _records(data)]


def read_changes(data: bytes) -> list[Change]:
    """Read what a group of names hands out; InputError for what no kernel writes."""
    return [_change(mask, pid, rest) for mask, _, pid, rest in _records(data)]


def _records(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found, offset, end = [], 0, len(data)
    while offset < end:
        if end - offset < _METADATA.size:
            raise InputError("an event of fanotify is cut off")
        length, version, _, head, mask, descriptor, pid = _METADATA.unpack_from(data, offset)
        if version != _VERSION or not _METADATA.size <= head <= length <= end - offset:
            raise InputError("an event of fanotify has another form")
        found.append((mask, descriptor, pid, data[offset + head : offset + length]))
        offset += length
    return found


def _change(mask: int, pid: int, data: bytes) -> Change:
    places: dict[int, Place] = {}
    target = None
    while data:
        if len(data) < _INFO.size:
            raise InputError("what an event of fanotify adds is cut off")
        kind, _, length = _INFO.unpack_from(data)
        if not _INFO.size <= length <= len(data):
            raise InputError("what an event of fanotify adds has another length")
        body, data = data[_INFO.size : length], data[length:]
        if kind == _INFO_FID:
            target = _handle(body)[0]
        elif kind in (_INFO_DFID_NAME, _INFO_DFID, _INFO_OLD_NAME, _INFO_NEW_NAME):
            handle, rest = _handle(body)
            name = b"" if kind == _INFO_DFID else rest.partition(b"\0")[0]
            places[kind] = Place(handle, b"" if name == b"." else name)
    at = places.get(_INFO_DFID_NAME) or places.get(_INFO_OLD_NAME) or places.get(_INFO_DFID)
    return Change(mask=mask, pid=pid, at=at, to=places.get(_INFO_NEW_NAME), target=target)


def _handle(body: bytes) -> tuple[Handle, bytes]:
    start = _FSID_BYTES + _HANDLE.size
    if len(body) < start:
        raise InputError("a file handle of fanotify is cut off")
    length, kind = _HANDLE.unpack_from(body, _FSID_BYTES)
    if length > len(body) - start:
        raise InputError("a file handle of fanotify is longer than what holds it")
    data, rest = body[start : start + length], body[start + length :]
    return Handle(kind, data, body[:_FSID_BYTES]), rest

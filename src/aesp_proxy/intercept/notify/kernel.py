"""The kernel's half of holding system calls: seccomp_unotify(2), and what else ``os`` lacks.

The structures are those of ``linux/seccomp.h``. What comes from the kernel is read by
pure functions that know its sizes; a kernel whose structures have grown is told by
SECCOMP_GET_NOTIF_SIZES and given the room that it wants.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from aesp_proxy.errors import InputError, UnavailableError
from aesp_proxy.intercept.notify.calls import column_of

PATH_MAX: Final = 4096
_PAGE: Final = 4096  # larger pages are cut into several: nothing is lost by it

# ioctls of the listener: linux/seccomp.h
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_IS_VALID: Final = 0x40082102
_ADD_DESCRIPTOR: Final = 0x40182103
_SET_FLAGS: Final = 0x40082104
_SYNC_WAKE_UP: Final = 1
_ADDFD_SEND: Final = 2
_CONTINUE: Final = 1
_GET_SIZES: Final = 3

_SECCOMP: Final = (317, 277)
_READ_MEMORY: Final = (310, 270)
_OPENAT2: Final = 437
_RENAMEAT2: Final = (316, 276)
_CAPSET: Final = (126, 91)
_PRCTL: Final = (157, 167)
_PR_SET_DUMPABLE: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522

# How openat2 resolves.
RESOLVE_NO_XDEV: Final = 1
RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RESOLVE_IN_ROOT: Final = 16
RESOLVE_CACHED: Final = 32

_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")
_ADDED: Final = struct.Struct("=QIIII")
# What is asked of a lender, and how an answer begins.
_QUESTION: Final = struct.Struct("=iQI")
_ERROR: Final = struct.Struct("=i")
_WORD_MASK: Final = (1 << 64) - 1
_STATFS_BYTES: Final = 256  # twice what struct statfs has
_HOW: Final = struct.Struct("=QQQ")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_COLUMN: Final = column_of(os.uname().machine)


def _system_call(*arguments: type) -> Callable[..., int]:
    """Return syscall(2) for arguments of these types: what is not told is cut to an int."""
    found = _LIBC["syscall"]
    found.restype = ctypes.c_long
    found.argtypes = (ctypes.c_long, *arguments)
    return found


_WORD, _TEXT = ctypes.c_long, ctypes.c_char_p
_seccomp: Final = _system_call(_WORD, _WORD, _TEXT)
_openat2: Final = _system_call(_WORD, _TEXT, _TEXT, _WORD)
_renameat2: Final = _system_call(_WORD, _TEXT, _WORD, _TEXT, _WORD)
_capset: Final = _system_call(_TEXT, _TEXT)
_prctl: Final = _system_call(_WORD, _WORD, _WORD, _WORD, _WORD)


class Notification(NamedTuple):
    """One held call: the kernel's id of it, the thread as we see it, and its arguments."""

    id: int
    thread: int
    number: int
    architecture: int
    arguments: tuple[int, ...]


class How(NamedTuple):
    """What openat2 is told (struct open_how)."""

    flags: int
    mode: int
    resolve: int


def read_notification(data: bytes | bytearray) -> Notification:
    """Read struct seccomp_notif; InputError for fewer bytes than it has."""
    if len(data) < _NOTIFICATION.size:
        raise InputError(f"a notification of {len(data)} bytes")
    id_, thread, _, number, architecture, _, *arguments = _NOTIFICATION.unpack_from(data)
    return Notification(id_, thread, number, architecture, tuple(arguments))


def read_how(data: bytes) -> How:
    """Read struct open_how as the kernel does.

    OSError as openat2(2) has it: EINVAL for fewer bytes than the first version has, E2BIG
    for more that say something.
    """
    if len(data) < _HOW.size:
        raise OSError(errno.EINVAL, "a short open_how")
    if any(data[_HOW.size :]):
        raise OSError(errno.E2BIG, "an open_how of the future")
    return How(*_HOW.unpack_from(data))


def as_int(word: int) -> int:
    """Return the int that a call takes from the low half of a register."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word & (1 << 31) else word


def as_long(word: int) -> int:
    """Return a register as a signed number."""
    return word - (1 << 64) if word & (1 << 63) else word


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


class Listener:
    """The end at which held calls arrive; takes over the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        sizes = ctypes.create_string_buffer(6)
        call = _seccomp(_SECCOMP[_COLUMN], _GET_SIZES, 0, sizes)
        if _checked(call, "seccomp") or min(struct.unpack("=HHH", sizes.raw)) == 0:
            raise UnavailableError("the kernel says no sizes of notifications")
        self._size = max(_NOTIFICATION.size, struct.unpack("=HHH", sizes.raw)[0])
        self._empty = bytes(self._size)
        try:
            # Who answers runs at once on the caller's processor: a fifth faster.
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise

    def receive(self) -> Notification | None:
        """Return the next held call; None when it was gone before we had it."""
        buffer = bytearray(self._empty)
        try:
            fcntl.ioctl(self.descriptor, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        return read_notification(buffer)

    def is_valid(self, id_: int) -> bool:
        """Tell whether the call still waits, and with it that its thread is the one named."""
        try:
            fcntl.ioctl(self.descriptor, _IS_VALID, struct.pack("=Q", id_))
        except OSError:
            return False
        return True

    def answer(self, id_: int, *, value: int = 0, error: int = 0) -> None:
        """End the call with a value, or with an error number; nothing when it is gone."""
        packed = _ANSWER.pack(id_, value, -error, 0)
        try:
            fcntl.ioctl(self.descriptor, _SEND, packed)
        except OSError as failure:
            if failure.errno != errno.ENOENT:
                raise

    def let_go_on(self, id_: int) -> None:
        """Have the kernel do the call itself: only where all that matters is in registers."""
        packed = _ANSWER.pack(id_, 0, 0, _CONTINUE)
        try:
            fcntl.ioctl(self.descriptor, _SEND, packed)
        except OSError as failure:
            if failure.errno != errno.ENOENT:
                raise

    def inject(self, id_: int, descriptor: int, *, close_on_exec: bool, alone: bool) -> None:
        """End the call with a descriptor of ours, which the caller gets as its own; closes it.

        ``alone`` closes ours before the caller goes on, for what matters when it closes (a
        pipe, a lock, a program that is being written): the caller is then woken twice.
        OSError when the caller cannot have it (EMFILE); nothing when the call is gone.
        """
        flags = os.O_CLOEXEC if close_on_exec else 0
        how = 0 if alone else _ADDFD_SEND
        packed = bytearray(_ADDED.pack(id_, how, descriptor, 0, flags))  # bytes bring no number
        try:
            number = fcntl.ioctl(self.descriptor, _ADD_DESCRIPTOR, packed)
        except OSError as failure:
            if failure.errno == errno.ENOENT:
                return
            raise
        finally:
            os.close(descriptor)
        if alone:
            self.answer(id_, value=number)

    def close(self) -> None:
        """Close it: every call that is held, or will be, ends in ENOSYS."""
        os.close(self.descriptor)


class _Piece(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Memory:
    """Reads what other processes have in memory: process_vm_readv(2).

    ``lender`` is a socket on which an ancestor of theirs reads it (``launch.isolation
    .lending``) where the kernel lets nobody else, -1 for none.
    """

    def __init__(self, lender: int = -1) -> None:
        self._lender = lender
        self._buffer = ctypes.create_string_buffer(PATH_MAX + 1)
        self._address = ctypes.addressof(self._buffer)
        self._ours, self._theirs = _Piece(self._address, 0), _Piece(0, 0)
        self._pieces = ctypes.byref(self._ours), ctypes.byref(self._theirs)
        self._read = _LIBC.process_vm_readv
        self._read.restype = ctypes.c_ssize_t
        self._read.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_ulong,
            ctypes.c_void_p,
            ctypes.c_ulong,
            ctypes.c_ulong,
        )

    def read(self, thread: int, address: int, length: int) -> bytes:
        """Return that many bytes, PATH_MAX at most; OSError, EFAULT when they are not there."""
        if not 0 < length <= PATH_MAX:
            raise OSError(errno.EINVAL, "no length to read")
        self._ours.length = self._theirs.length = length
        self._theirs.start = address
        ours, theirs = self._pieces
        got = self._read(thread, ours, 1, theirs, 1, 0)
        if got < 0:
            error = ctypes.get_errno()
            if error == errno.EPERM and self._lender >= 0:
                return self._borrowed(thread, address, length)
            raise OSError(error, f"process_vm_readv: {os.strerror(error)}")
        if got != length:
            raise OSError(errno.EFAULT, "memory that is not there")
        return ctypes.string_at(self._address, length)

    def _borrowed(self, thread: int, address: int, length: int) -> bytes:
        os.write(self._lender, _QUESTION.pack(thread, address & _WORD_MASK, length))
        answer = os.read(self._lender, _ERROR.size + length)
        error = _ERROR.unpack_from(answer)[0] if len(answer) >= _ERROR.size else errno.EPERM
        if error:
            raise OSError(error, f"lent memory: {os.strerror(error)}")
        return answer[_ERROR.size :]

    def string(self, thread: int, address: int) -> bytes:
        """Return the string there, without its NUL; ENAMETOOLONG when it has no end."""
        found = b""
        while len(found) < PATH_MAX:
            room = min(_PAGE - (address & (_PAGE - 1)), PATH_MAX - len(found))
            piece = self.read(thread, address, room)
            end = piece.find(b"\0")
            if end >= 0:
                return found + piece[:end]
            found += piece
            address += room
        raise OSError(errno.ENAMETOOLONG, "a path without an end")


def openat2(at: int, path: bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open with a way to resolve (see man 2 openat2)."""
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    result = _openat2(_OPENAT2, at, path, how, len(how))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(at: int, name: bytes, at2: int, name2: bytes, flags: int) -> None:
    """Rename with flags (see man 2 rename)."""
    _checked(_renameat2(_RENAMEAT2[_COLUMN], at, name, at2, name2, flags), "renameat2")


def kind_of_file_system(held: int) -> int:
    """Return the magic number of the file system that an object is on: fstatfs(2)."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    _checked(_LIBC.fstatfs(held, buffer), "fstatfs")
    return int(struct.unpack_from("=q", buffer.raw)[0])


def open_by_libc(path: bytes, flags: int) -> int:
    """Open, and end when a signal comes, which Python's own does not."""
    return _checked(_LIBC.open(path, flags | os.O_CLOEXEC), "open")


def give_up_privileges() -> None:
    """Have no capability, so that what is done for an agent needs none, and be no one's to trace.

    Numbers of files are allowed up to the hard limit besides.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_capset(_CAPSET[_COLUMN], header, bytes(24)), "capset")
    _checked(_prctl(_PRCTL[_COLUMN], _PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")

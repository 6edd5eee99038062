"""Open for a process what it may have: the object that was decided on, and no other.

What is there is opened from the descriptor that holds it; what is not there is made in
the directory that is held, under a name that must still be free. The caller gets the
descriptor as its own. Modes are those that its own mask of bits leaves.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final

from aesp_proxy.intercept.notify.asking import Asking
from aesp_proxy.intercept.notify.calls import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, Kind
from aesp_proxy.intercept.notify.held import Held
from aesp_proxy.intercept.notify.kernel import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    How,
    read_how,
)
from aesp_proxy.intercept.notify.processes import mask_of, terminal_of
from aesp_proxy.intercept.notify.resolve import Found, Place, Resolver
from aesp_proxy.model.event import FileOperation

_ACCESS_MODE: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_TEMPORARY: Final = os.O_TMPFILE & ~os.O_DIRECTORY
_OURS: Final = os.O_CLOEXEC | os.O_NOCTTY
_NOT_TWICE: Final = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_HOW_BYTES_MAX: Final = 4096
_RACES_MAX: Final = 16
_THE_TERMINAL: Final = os.makedev(5, 0)
# Memory (null, zero, random), terminals, consoles and pseudo-terminals: open at once.
_PROMPT_DEVICES: Final = frozenset({1, 5, 136, 137, 138, 139, 140, 141, 142, 143})


@dataclass(slots=True)
class Opened:
    """What the caller gets; the descriptor is ours and closed after.

    ``writes`` is whether it is one to write by, and ``path`` then the file's, where what is
    written is to be looked at.
    """

    descriptor: int
    close_on_exec: bool
    writes: bool
    path: str = ""


@dataclass(frozen=True, slots=True)
class GoesOn:
    """The kernel may do it: nothing that is in memory can make it do something else."""


@dataclass(slots=True)
class Waits:
    """An opening that may take as long as it likes: a pipe without another end, a device."""

    found: Found
    flags: int
    close_on_exec: bool


class Opening:
    """Answers the calls that open."""

    def __init__(self, resolver: Resolver, asking: Asking) -> None:
        self._resolver = resolver
        self._asking = asking

    def open(self, held: Held) -> Opened | Waits | GoesOn:
        """Answer open, creat and openat."""
        mode = held.extra_int(0) & 0o7777
        return self._open(held, How(held.flags, mode, 0))

    def open_how(self, held: Held) -> Opened | Waits | GoesOn:
        """Answer openat2."""
        size = held.extra_long(1)
        if size > _HOW_BYTES_MAX:
            raise OSError(errno.E2BIG, "an open_how of many pages")
        how = read_how(held.extra_bytes(0, size) if size > 0 else b"")
        return self._open(held, how._replace(flags=how.flags & 0xFFFFFFFF))

    def execute(self, held: Held) -> GoesOn:
        """Answer execve and execveat: decided by name, and done by the kernel.

        It reads the name again: an agent that changes it meanwhile may run a forbidden
        program. It has not read it: a script's interpreter has to open that.
        """
        path, flags = held.path, held.flags
        if not path and flags & AT_EMPTY_PATH:
            found = self._resolver.object(held, held.at)
        else:
            follow = not flags & AT_SYMLINK_NOFOLLOW
            found = self._resolver.find(held, held.at, path, follow=follow)
        try:
            self._asking.executing(found, held.actor)
        finally:
            found.close()
        return GoesOn()

    def _open(self, held: Held, how: How) -> Opened | Waits | GoesOn:
        flags = how.flags
        if flags & os.O_PATH:
            return self._hold(held, how)
        if flags & os.O_CREAT and not flags & _TEMPORARY:
            return self._create(held, how)
        follow = not flags & os.O_NOFOLLOW
        found = self._resolver.find(held, held.at, held.path, follow=follow, resolve=how.resolve)
        return self._open_found(held, found, how)

    def _hold(self, held: Held, how: How) -> GoesOn:
        """Let the kernel give a descriptor without access, which it lets nobody else give.

        Whatever is then opened by it is decided on. That it gives no access stands in the
        registers; with openat2 it does not, and who calls that knows what came before.
        """
        if held.call.kind is Kind.OPEN_HOW:
            raise OSError(errno.ENOSYS, "a descriptor without access, by openat2")
        follow = not how.flags & os.O_NOFOLLOW
        found = self._resolver.find(held, held.at, held.path, follow=follow)
        try:
            self._asking.opening(found, held.actor, reads=False, writes=False)
        finally:
            found.close()
        return GoesOn()

    def _open_found(self, held: Held, found: Found, how: How) -> Opened | Waits:
        """Decide on an object and open it; lets it go, but for one that ``Waits``."""
        try:
            opened = self._opened(held, found, how)
        except BaseException:
            found.close()
            raise
        if isinstance(opened, Opened):
            found.close()
        return opened

    def _opened(self, held: Held, found: Found, how: How) -> Opened | Waits:
        flags, kind = how.flags, stat.S_IFMT(found.status.st_mode)
        if kind == stat.S_IFLNK:
            raise OSError(errno.ELOOP, "a link")
        close_on_exec = bool(flags & os.O_CLOEXEC)
        if flags & _TEMPORARY:
            self._asking.inside(found, held.actor)
            with mask_of(held.thread):
                made = os.open(found.handle, flags | _OURS, how.mode)
            return Opened(made, close_on_exec, True)
        access = flags & _ACCESS_MODE
        writes = access != os.O_RDONLY or bool(flags & os.O_TRUNC)
        self._asking.opening(found, held.actor, reads=access != os.O_WRONLY, writes=writes)
        flags = flags & ~_NOT_TWICE | _OURS
        if _may_wait(found, flags):
            return Waits(found, flags, close_on_exec)
        name = found.handle
        if kind == stat.S_IFCHR and found.status.st_rdev == _THE_TERMINAL:
            name = _terminal_of(held.thread)
        is_kept = writes and kind == stat.S_IFREG and found.has_name
        path = found.path if is_kept else ""
        return Opened(os.open(name, flags), close_on_exec, writes, path)

    # making ---------------------------------------------------------------------------

    def _create(self, held: Held, how: How) -> Opened | Waits:
        place = self._resolver.place(held, held.at, held.path, resolve=how.resolve)
        try:
            if place.name[-1:] == b"/" or place.name in (b".", b".."):
                raise IsADirectoryError(errno.EISDIR, "a directory's name")
            for _ in range(_RACES_MAX):
                try:
                    return self._made_or_found(held, place, how)
                except FileExistsError:
                    # Made by somebody else, outside, since we looked.
                    if how.flags & os.O_EXCL:
                        raise
            raise BlockingIOError(errno.EAGAIN, "it comes and goes")
        finally:
            place.close()

    def _made_or_found(self, held: Held, place: Place, how: How) -> Opened | Waits:
        try:
            status = os.stat(place.name, dir_fd=place.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return self._make(held, place, how)
        if how.flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "it is there")
        if stat.S_ISLNK(status.st_mode):
            if how.flags & os.O_NOFOLLOW or how.resolve & RESOLVE_NO_SYMLINKS:
                raise OSError(errno.ELOOP, "a link")
            if how.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
                raise OSError(errno.EXDEV, "a link that may leave")
        beyond = self._resolver.beyond(held, place)
        if isinstance(beyond, Place):
            try:
                return self._make(held, beyond, how)
            finally:
                beyond.close()
        if beyond.is_directory:
            beyond.close()
            raise IsADirectoryError(errno.EISDIR, "a directory")
        return self._open_found(held, beyond, how)

    def _make(self, held: Held, place: Place, how: How) -> Opened:
        self._asking.entry(FileOperation.CREATE, place, held.actor)
        self._asking.in_place(place.named, place.path, held.actor)
        flags = how.flags | os.O_EXCL | os.O_NOFOLLOW | _OURS
        with mask_of(held.thread):
            made = os.open(place.name, flags, how.mode, dir_fd=place.descriptor)
        return Opened(made, bool(how.flags & os.O_CLOEXEC), True, place.path)


def _may_wait(found: Found, flags: int) -> bool:
    if flags & os.O_NONBLOCK:
        return False
    kind = stat.S_IFMT(found.status.st_mode)
    if kind == stat.S_IFIFO:
        # One that has no name is open at both ends, and one for both opens at once.
        return found.has_name and flags & _ACCESS_MODE != os.O_RDWR
    return kind == stat.S_IFCHR and os.major(found.status.st_rdev) not in _PROMPT_DEVICES


def _terminal_of(thread: int) -> str:
    """Return the terminal that ``/dev/tty`` is to a process; OSError (ENXIO) without one."""
    device = terminal_of(thread)
    if os.major(device) not in range(136, 144):
        raise OSError(errno.ENXIO, "no terminal, or one that is not a pseudo-terminal")
    number = (os.major(device) - 136) * 256 + os.minor(device)
    return f"/proc/{thread}/root/dev/pts/{number}"

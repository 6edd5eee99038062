"""The three groups of a watch, and the marks in them.

``denying`` holds a mark on each forbidden inode: whatever name, mount or namespace a file
is opened by, the kernel asks, for as long as the file is there (a mark goes with its
inode, so that a number that is given out again is nobody's guilt). ``asking`` has a mark on
each watched file system, and what was found clean is left out by a mark on its inode that
the kernel drops when the file is written to, or when memory runs short. ``names`` is told
what happened to names, and can stop nothing. Two groups ask, as one inode has one mark in
a group; the one that denies is of the class that is asked first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.fanotify import kernel

_ASKED: Final = kernel.OPEN_PERM | kernel.OPEN_EXEC_PERM
_TOLD: Final = kernel.CREATE | kernel.DELETE | kernel.RENAME | kernel.ATTRIB | kernel.ON_DIRECTORY
REMEDY: Final = (
    "CAP_SYS_ADMIN in the first user namespace, and a kernel with fanotify permission events"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Descriptors of the groups, closed on exec except where they are handed on."""

    denying: int
    asking: int
    names: int

    def close(self) -> None:
        """Let go of them: the last to do so ends the watch, and what waits is allowed."""
        for each in (self.denying, self.asking, self.names):
            os.close(each)

    def watch(self, path: str) -> str:
        """Have every open on a file system asked for; say what of it is not to be had.

        UnavailableError where it cannot be watched at all.
        """
        try:
            kernel.mark(
                self.asking,
                kernel.MARK_ADD | kernel.MARK_FILE_SYSTEM,
                _ASKED | kernel.CLOSE_WRITE | kernel.ON_DIRECTORY,
                path=path,
            )
        except OSError as error:
            raise UnavailableError(
                f"its file system cannot be watched: {error.strerror}", where=path, remedy=REMEDY
            ) from error
        try:
            kernel.mark(self.names, kernel.MARK_ADD | kernel.MARK_FILE_SYSTEM, _TOLD, path=path)
        except OSError as error:
            return f"{path}: names that are made, renamed or removed are not seen: {error.strerror}"
        return ""

    def spare(self, directory: str) -> None:
        """Ask for nothing that is opened in a directory of our own."""
        flags = kernel.MARK_ADD | kernel.MARK_IGNORE | kernel.MARK_IGNORED_SURVIVE
        # Before Linux 6.0 it cannot be had; who waits for itself is found by the guard.
        with contextlib.suppress(OSError):
            mask = _ASKED | kernel.ON_CHILD | kernel.ON_DIRECTORY
            kernel.mark(self.asking, flags, mask, path=directory)

    def forbid(self, descriptor: int) -> None:
        """Have this inode asked for under all its names; OSError where it cannot be marked."""
        path = f"/proc/self/fd/{descriptor}"
        mask = _ASKED | kernel.ON_DIRECTORY
        kernel.mark(self.denying, kernel.MARK_ADD, mask, path=path)
        with contextlib.suppress(OSError):
            told = kernel.MODIFY | kernel.ATTRIB
            kernel.mark(self.names, kernel.MARK_ADD, told, path=path)

    def note_clean(self, descriptor: int, mask: int, *, is_directory: bool) -> None:
        """Ask no more for this inode until it is written to; nothing where that fails."""
        flags = kernel.MARK_ADD | kernel.MARK_IGNORED | kernel.MARK_EVICTABLE
        if is_directory:
            flags |= kernel.MARK_IGNORED_SURVIVE
        with contextlib.suppress(OSError):
            path = f"/proc/self/fd/{descriptor}"
            kernel.mark(self.asking, flags, mask, path=path)

    def forget_clean(self) -> None:
        """Ask for everything again."""
        kernel.mark(self.asking, kernel.MARK_FLUSH, 0, path="/")


def make_groups() -> Groups:
    """Make them; UnavailableError without the privilege, or in a kernel without them."""
    made: list[int] = []
    try:
        made.append(kernel.permission_group(kernel.CLASS_PRE_CONTENT))
        made.append(kernel.permission_group(kernel.CLASS_CONTENT))
        made.append(kernel.names_group())
    except OSError as error:
        for each in made:
            os.close(each)
        raise UnavailableError(why_not(error), where="fanotify", remedy=REMEDY) from error
    return Groups(denying=made[0], asking=made[1], names=made[2])


def why_not(error: OSError) -> str:
    """Say what the kernel answered."""
    known = {
        errno.EPERM: "opening files cannot be made to wait for an answer without privilege",
        errno.ENOSYS: "the kernel has no fanotify",
        errno.EINVAL: "the kernel's fanotify has no permission events",
    }
    return known.get(error.errno or 0, f"fanotify does not begin: {error.strerror}")

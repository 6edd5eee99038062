"""Look at what was written into files once they are closed.

Writing goes straight to the file and cannot be held. The kernel says when a file that was
open to be written is closed (inotify(7)); then its content is looked at as if it were
opened: a secret in it is recorded at once, not only when somebody reads it. What was
renamed meanwhile has been looked at by that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from inotify_simple import INotify, flags

from aesp_proxy.intercept.notify.resolve import Found

_ONCE: Final = flags.CLOSE_WRITE | flags.ONESHOT
_AT_ONCE_MAX: Final = 4096
# Everybody waits meanwhile: what is larger is looked at by who opens it.
_BYTES_MAX: Final = 8 << 20


class Closing:
    """Files that are open to be written; ``closed`` is told of each that no longer is."""

    def __init__(self, closed: Callable[[Found], None]) -> None:
        self._closed = closed
        self._inotify = INotify(nonblocking=True)
        self._paths: dict[int, str] = {}

    def fileno(self) -> int:
        """Return what is readable when ``look`` has something to do."""
        return int(self._inotify.fileno())

    def expect(self, descriptor: int, path: str) -> None:
        """Await that a file which is open by this descriptor, too, is closed.

        Too many at once are not awaited, nor what the kernel has no room for: it is looked at
        when it is opened.
        """
        if len(self._paths) < _AT_ONCE_MAX:
            with suppress(OSError):
                self._paths[self._inotify.add_watch(f"/proc/self/fd/{descriptor}", _ONCE)] = path

    def look(self) -> None:
        """Have everything that was closed looked at."""
        for event in self._inotify.read(timeout=0):
            path = self._paths.pop(event.wd, "")
            if path:
                with suppress(OSError):
                    self._look(path)

    def _look(self, path: str) -> None:
        held = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = Found(descriptor=held, status=os.fstat(held), path=path, named=path)
        try:
            if stat.S_ISREG(found.status.st_mode) and found.status.st_size <= _BYTES_MAX:
                self._closed(found)
        finally:
            found.close()

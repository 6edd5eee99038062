"""What has happened to names and contents: recorded, as it could not be stopped.

A forbidden file that appears joins the forbidden inodes, whoever made it. When too much
happens at once the kernel drops what it has no room for and says so: then everything is
surveyed anew, and the record has the gap.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import Final

from aesp_proxy.intercept.fanotify import kernel
from aesp_proxy.intercept.fanotify.forbidden import Forbidden
from aesp_proxy.intercept.fanotify.handles import Mount, path_behind
from aesp_proxy.intercept.fanotify.kernel import Change, Event, Place
from aesp_proxy.intercept.fanotify.who import Watched
from aesp_proxy.intercept.file_port import FileWitness
from aesp_proxy.model.event import FileOperation

_QUIET: Final = kernel.ATTRIB | kernel.MODIFY


class Witness:
    """Takes what is told afterwards. ``later`` runs what opens directories, in a thread."""

    def __init__(
        self,
        gate: FileWitness,
        watched: Watched,
        mounts: Iterable[Mount],
        forbidden: Forbidden,
        *,
        later: Callable[[Callable[[], object]], None],
        overflowed: Callable[[], None],
    ) -> None:
        self._gate, self._watched, self._forbidden = gate, watched, forbidden
        self._mounts = {each.file_system: each for each in mounts}
        self._later, self._overflowed = later, overflowed
        self.overflows = 0

    def take(self, change: Change) -> None:
        """Record one change, where somebody watched has made it."""
        if change.mask & kernel.OVERFLOW:
            self.overflows += 1
            self._overflowed()
            return
        path = self._path(change.at)
        to = self._path(change.to)
        is_directory = bool(change.mask & kernel.ON_DIRECTORY)
        if change.mask & kernel.RENAME and to:
            self._renamed(change.pid, path or to, to, is_directory=is_directory)
        elif change.mask & kernel.CREATE and path:
            self._forbidden.appeared(path)
            self._note(change.pid, FileOperation.CREATE, path, is_directory=is_directory)
        elif change.mask & kernel.DELETE and path:
            self._note(change.pid, FileOperation.DELETE, path, is_directory=is_directory)
        elif change.mask & _QUIET:
            self._touched(change, path)

    def written(self, event: Event, *, content_bytes_max: int) -> None:
        """Record a file that was written to and is closed now, with what is in it."""
        path = path_behind(event.descriptor)
        status = os.fstat(event.descriptor)
        actor = self._watched.actor_of_past(event.thread, status.st_uid)
        if actor is None or not stat.S_ISREG(status.st_mode):
            return
        content = _content(event.descriptor, status.st_size, content_bytes_max)
        self._gate.note_done(
            FileOperation.WRITE, path, path, actor, size=status.st_size, content=content
        )

    def _renamed(self, pid: int, path: str, to: str, *, is_directory: bool) -> None:
        actor = self._watched.actor_of_past(pid, None)
        freed = actor is None
        if is_directory:
            self._later(lambda: self._forbidden.moved(to, freed=freed))
        else:
            self._forbidden.moved(to, freed=freed)
        if actor is not None:
            self._gate.note_done(
                FileOperation.RENAME, path, to, actor, size=_size(to), is_directory=is_directory
            )

    def _touched(self, change: Change, path: str) -> None:
        """Record a new mode or length of what is not to be written; else there is no end."""
        place = path or self._path_of(change)
        if place and not self._gate.permits(FileOperation.WRITE, place, place):
            self._note(change.pid, FileOperation.WRITE, place)

    def _note(
        self, pid: int, operation: FileOperation, path: str, *, is_directory: bool = False
    ) -> None:
        owner = _owner(path)
        actor = self._watched.actor_of_past(pid, owner)
        if actor is not None:
            size = _size(path)
            self._gate.note_done(operation, path, path, actor, size=size, is_directory=is_directory)

    def _path(self, place: Place | None) -> str:
        if place is None:
            return ""
        mount = self._mounts.get(place.directory.file_system)
        try:
            return mount.path_at(place) if mount is not None else ""
        except OSError:
            # Its directory is gone as well, which was told too.
            return ""

    def _path_of(self, change: Change) -> str:
        target = change.target
        mount = self._mounts.get(target.file_system) if target is not None else None
        try:
            return mount.path_of(target) if mount is not None and target is not None else ""
        except OSError:
            return ""


def _owner(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _content(descriptor: int, size: int, content_bytes_max: int) -> bytes | None:
    """Read what was written, None for more than is read, or what cannot be."""
    if size > content_bytes_max:
        return None
    try:
        return os.pread(descriptor, content_bytes_max, 0)
    except OSError:
        return None  # that it was written is told all the same

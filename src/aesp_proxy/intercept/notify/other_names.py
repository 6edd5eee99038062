"""The other names of files: whether a file that has several is forbidden under one of them.

A hard link is a name like any other (threat row 24). The trees are looked through when
the first file with several names is opened, and again when there is one that was not seen
then, though not at once again. What the agent links itself is decided when it does.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.file_port import FileGate, Given
from aesp_proxy.intercept.notify.asking import Inode

_AGAIN_S: Final = 10.0


class OtherNames:
    """The forbidden names of files with several names, in the trees that were given."""

    def __init__(
        self, gate: FileGate, given: Given, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gate = gate
        self._given = given
        self._clock = clock
        self._generation = gate.generation
        self._looked_at = -_AGAIN_S
        self._forbidden: dict[Inode, str] = {}
        self._known: set[Inode] = set()

    def forbidden(self, inode: Inode) -> str:
        """Return a forbidden name of a file with several names, empty for none.

        UnavailableError when the trees have more names than are looked at.
        """
        if self._gate.generation != self._generation:
            self._generation = self._gate.generation
            self._looked_at = -_AGAIN_S
            self._known.clear()
        if inode not in self._known and self._clock() - self._looked_at >= _AGAIN_S:
            self._look()
            self._known.add(inode)
        return self._forbidden.get(inode, "")

    def _look(self) -> None:
        self._forbidden, self._known = {}, set()
        for path, inode in self._linked():
            self._known.add(inode)
            if inode not in self._forbidden and self._gate.hides(path):
                self._forbidden[inode] = path
        self._looked_at = self._clock()

    def _linked(self) -> Iterator[tuple[str, Inode]]:
        """Yield the files with several names below the trees; nothing is followed."""
        left = self._given.entries_max
        apart = {each.rstrip("/") for each in self._given.apart}
        unseen = [each.rstrip("/") for each in self._given.trees]
        while unseen:
            for entry in _entries(unseen.pop()):
                left -= 1
                if left < 0:
                    raise UnavailableError(
                        f"more than {self._given.entries_max} names in the trees",
                        remedy="raise files.entries_max",
                    )
                if entry.is_dir(follow_symlinks=False):
                    if entry.path not in apart:
                        unseen.append(entry.path)
                elif (found := _several(entry)) is not None:
                    yield entry.path, found


def _several(entry: os.DirEntry[str]) -> Inode | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # gone since: no name of anything
    is_one = status.st_nlink < 2 or not stat.S_ISREG(status.st_mode)
    return None if is_one else Inode(status.st_dev, status.st_ino)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory or "/") as entries:
            yield from entries
    except OSError:
        # Gone, or closed to the user, and so to the agent.
        return

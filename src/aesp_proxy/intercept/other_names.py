"""The other names of files: whether a file that has several is forbidden under one of them.

A hard link is a name like any other (threat row 24), so the trees are looked through for
forbidden names. That is done a directory at a time, while there is nothing else to do, and
to the end when the first file with several names is asked about: a command need not wait
for a home of a million names to be read. What the agent links itself is decided when it
does; a forbidden file cannot be linked, as it cannot be had.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, NamedTuple

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.file_port import FileGate

_TENDED_EACH: Final = 64


class Inode(NamedTuple):
    """A file whatever it is called."""

    device: int
    number: int


class OtherNames:
    """The forbidden names of files with several names, in ``trees`` but not below ``apart``.

    ``tend`` is called now and then while all else waits.
    """

    def __init__(
        self,
        gate: FileGate,
        trees: Sequence[str],
        *,
        entries_max: int,
        apart: Collection[str] = (),
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        self._gate = gate
        self._trees = [each.rstrip("/") for each in trees]
        self._apart = frozenset(each.rstrip("/") for each in apart)
        self._entries_max = entries_max
        self._tend = tend
        self._found: dict[tuple[int, int], str] = {}
        self._begin()

    def _begin(self) -> None:
        self._generation = self._gate.generation
        self._unseen = list(reversed(self._trees))
        self._left = self._entries_max

    @property
    def is_done(self) -> bool:
        """Whether all has been looked through, by the policy of now."""
        return not self._unseen and self._generation == self._gate.generation

    def add(self, inode: tuple[int, int], path: str) -> None:
        """Take in a file that was met under a forbidden name."""
        self._found.setdefault(inode, path)

    def has(self, inode: tuple[int, int]) -> bool:
        """Tell whether a file is known to have a forbidden name by now."""
        return inode in self._found

    def forbidden(self, inode: tuple[int, int]) -> str:
        """Return a forbidden name of a file with several names, empty for none.

        Looks through all that is left. UnavailableError when there are more names than
        are looked at.
        """
        steps = 0
        while not self.is_done:
            self.step()
            steps += 1
            if steps % _TENDED_EACH == 0:
                self._tend()
        found = self._found.get(inode, "")
        if not found and self._left < 0:
            raise UnavailableError(
                f"more than {self._entries_max} names in the trees",
                remedy="raise files.entries_max, or guard less (files.tree, files.hide)",
            )
        return found

    def step(self) -> None:
        """Look through one more directory; nothing when there is none."""
        if self._generation != self._gate.generation:
            self._begin()
        if not self._unseen:
            return
        directory = self._unseen.pop()
        gate = self._gate
        for entry in _entries(directory or "/"):
            self._left -= 1
            if self._left < 0:
                self._unseen.clear()
                return
            path = f"{directory}/{entry.name}"
            is_directory = entry.is_dir(follow_symlinks=False)
            if path in self._apart:
                continue
            if gate.hides(path):
                self._note(entry, is_directory=is_directory)
            elif is_directory and not gate.hides_nothing_below(path):
                self._unseen.append(path)

    def _note(self, entry: os.DirEntry[str], *, is_directory: bool) -> None:
        """Take in the files under a forbidden name: others may give them a second one later."""
        if is_directory:
            for below in _entries(entry.path):
                self._note(below, is_directory=below.is_dir(follow_symlinks=False))
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return  # gone since: it has no content under any name
        if stat.S_ISREG(status.st_mode):
            self.add((status.st_dev, status.st_ino), entry.path)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError:
        # Gone, or closed to the user, and so to the agent.
        return

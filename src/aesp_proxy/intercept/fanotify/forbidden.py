"""Find the inodes that nobody watched may open: those that have a forbidden name.

A walk opens directories, so it is done where somebody else answers for them: before the
watch begins, or in a thread beside the loop that answers. Symbolic links are not followed:
what they lead to is decided under its own name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from aesp_proxy.decide.protected import protects
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.fanotify.marks import Groups

type Inode = tuple[int, int]


class Forbidden:
    """Marks inodes, and knows under which name each is forbidden; safe for a second thread.

    ``trusted`` are those that others run or trust, by a name: no agent writes to them under
    another.

    More than ``entries_max`` names are not walked.
    """

    def __init__(self, hides: Callable[[str], bool], groups: Groups, *, entries_max: int) -> None:
        self._hides, self._groups, self._entries_max = hides, groups, entries_max
        self.names: dict[Inode, str] = {}
        self.trusted: dict[Inode, str] = {}
        self.unmarked = 0

    def survey(self, trees: tuple[str, ...]) -> int:
        """Mark what is forbidden below these directories; return how many names there are.

        ConfigError for more than are walked.
        """
        entries = 0
        for tree in trees:
            for path, forbidden in _below(tree, self._hides):
                entries += 1
                if entries > self._entries_max:
                    raise ConfigError(
                        f"more than {self._entries_max} names below it",
                        where=tree,
                        remedy="name smaller directories in files.watch.trees, or raise "
                        "files.entries_max",
                    )
                if forbidden:
                    self.mark(path)
                else:
                    self._note_trusted(path)
        return entries

    def appeared(self, path: str) -> None:
        """Mark what has got a name, where the name forbids it."""
        if self._hides(path):
            self.mark(path)
        else:
            self._note_trusted(path)

    def moved(self, path: str, *, freed: bool) -> None:
        """Look at what was renamed, and at all below it.

        ``freed``: somebody did it who may, so that the new names count and no old one.
        """
        for each, forbidden in _below(path, self._hides, itself=True):
            if forbidden:
                self.mark(each)
                continue
            self._note_trusted(each)
            if freed:
                self._free(each)

    def trusted_name(self, inode: Inode) -> str:
        """Return a name of this inode that others run or trust, empty where it has none."""
        name = self.trusted.get(inode, "")
        if name and _inode(name) != inode:
            # Another file has its name, or its number, by now.
            self.trusted.pop(inode, None)
            return ""
        return name

    def _note_trusted(self, path: str) -> None:
        if protects(path, b"", b"") and (inode := _inode(path)) is not None:
            self.trusted[inode] = path

    def _free(self, path: str) -> None:
        inode = _inode(path)
        if inode is not None and inode in self.names:
            self.names[inode] = path

    def mark(self, path: str) -> None:
        """Have one object asked for under all its names; nothing where it is gone."""
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                # The name first: who is asked in between knows it then.
                self.names[status.st_dev, status.st_ino] = path
                self._groups.forbid(descriptor)
            except OSError:
                self.unmarked += 1
                raise
            finally:
                os.close(descriptor)


def _inode(path: str) -> Inode | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _below(
    tree: str, hides: Callable[[str], bool], *, itself: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yield every path below a directory, and whether it is hidden."""
    if itself:
        yield tree, hides(tree)
    folders = [tree.rstrip("/")] if os.path.isdir(tree) and not os.path.islink(tree) else []
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder or "/") as entries:
                found = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
        except OSError:
            # Gone, or of a file system that does not let us: asked for by name all the same.
            continue
        for name, is_directory in found:
            path = f"{folder}/{name}"
            yield path, hides(path)
            if is_directory:
                folders.append(path)

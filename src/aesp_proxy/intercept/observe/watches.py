"""Hear what happens in a tree: inotify(7) on each of its directories, without privilege.

The kernel tells of names in a directory from when it is watched, and of no directory below.
So a new one is watched first and then looked through: what was made in it before is found
by looking, what is made after is told, and what is both is said once. When too much happens
at once the kernel drops the rest and says so: then everything is looked through, and what
changed since is told by its time. What came and went in between is not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from inotify_simple import INotify, flags

from aesp_proxy.errors import AespError, ConfigError, UnavailableError

_MASK: Final = (
    flags.CREATE
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.OPEN
    | flags.ONLYDIR
    | flags.DONT_FOLLOW
    | flags.EXCL_UNLINK
)
# Times of files are those of the last tick of the kernel's clock.
_TICK_NS: Final = 20_000_000


class What(Enum):
    """What was seen."""

    OPENED = "opened"
    CREATED = "created"
    WRITTEN = "written"
    CHANGED = "changed"
    RENAMED = "renamed"
    DELETED = "deleted"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that happened; ``to`` is the new name of what was renamed."""

    what: What
    path: str
    to: str = ""
    is_directory: bool = False


class Watches:
    """Watches trees, but not ``apart``; at most ``entries_max`` names are looked through."""

    def __init__(self, trees: tuple[str, ...], apart: tuple[str, ...], *, entries_max: int) -> None:
        """Begin; ConfigError for too many names, UnavailableError for too many directories."""
        self._inotify = INotify(nonblocking=True)
        self._apart, self._entries_max = frozenset(apart), entries_max
        self._trees = trees
        self._paths: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._found: set[tuple[str, int]] = set()
        self._told_ns = time.time_ns()
        try:
            for tree in trees:
                for _ in self._look_through(tree):
                    pass
        except AespError:
            self.close()
            raise
        self._found.clear()

    def fileno(self) -> int:
        """The descriptor that is readable when something happened."""
        return int(self._inotify.fileno())

    def close(self) -> None:
        """Watch no more."""
        self._inotify.close()

    def read(self) -> list[Seen]:
        """Return what happened since; nothing is waited for."""
        now = time.time_ns()
        events = self._inotify.read(timeout=0)
        moved: dict[int, tuple[str, bool]] = {}
        seen: list[Seen] = []
        for event in events:
            if event.mask & flags.Q_OVERFLOW:
                seen += self._after_a_gap()
            elif event.mask & flags.IGNORED:
                self._forget(event.wd)
            elif event.name and event.wd in self._paths:
                path = f"{self._paths[event.wd].rstrip('/')}/{event.name}"
                seen += self._told(event.mask, event.cookie, path, moved)
        # Whose new name is not here has left the trees.
        for path, is_directory in moved.values():
            self._leave(path)
            seen.append(Seen(What.DELETED, path, is_directory=is_directory))
        if not events:
            self._found.clear()
        self._told_ns = now
        return seen

    def _told(
        self, mask: int, cookie: int, path: str, moved: dict[int, tuple[str, bool]]
    ) -> Iterator[Seen]:
        is_directory = bool(mask & flags.ISDIR)
        if mask & flags.MOVED_FROM:
            moved[cookie] = path, is_directory
        elif mask & flags.MOVED_TO:
            was, _ = moved.pop(cookie, ("", False))
            yield from self._arrived(was, path, is_directory=is_directory)
        elif mask & flags.CREATE:
            if self._is_news(path):
                yield Seen(What.CREATED, path, is_directory=is_directory)
            if is_directory:
                yield from self._look_through(path)
        elif mask & flags.DELETE:
            yield Seen(What.DELETED, path, is_directory=is_directory)
        elif mask & flags.CLOSE_WRITE:
            yield Seen(What.WRITTEN, path)
        elif mask & flags.ATTRIB:
            yield Seen(What.CHANGED, path, is_directory=is_directory)
        elif mask & flags.OPEN and not is_directory:
            # Directories are opened by our own looking, too.
            yield Seen(What.OPENED, path)

    def _arrived(self, was: str, path: str, *, is_directory: bool) -> Iterator[Seen]:
        if not was:
            yield Seen(What.CREATED, path, is_directory=is_directory)
        else:
            yield Seen(What.RENAMED, was, to=path, is_directory=is_directory)
            self._rename(was, path)
        if is_directory:
            yield from self._look_through(path)

    def _look_through(self, tree: str, *, since_ns: int | None = None) -> Iterator[Seen]:
        """Watch a directory and those below it, and yield what is in new ones.

        With ``since_ns`` also what has changed since in those that were watched.
        """
        folders = [tree]
        entries = 0
        while folders:
            folder = folders.pop()
            is_new = folder not in self._numbers
            if folder in self._apart or not self._watch(folder):
                continue
            for entry in _entries(folder):
                entries += 1
                if entries > self._entries_max:
                    raise ConfigError(
                        f"more than {self._entries_max} names in the tree",
                        where=tree,
                        remedy="guard a smaller tree, or raise files.entries_max",
                    )
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory:
                    folders.append(entry.path)
                if is_new and self._is_news(entry.path, found=True):
                    yield Seen(What.CREATED, entry.path, is_directory=is_directory)
                elif not is_new and since_ns is not None and _changed(entry, since_ns):
                    yield Seen(What.WRITTEN, entry.path, is_directory=is_directory)

    def _after_a_gap(self) -> Iterator[Seen]:
        yield Seen(What.GAP, self._trees[0])
        for tree in self._trees:
            yield from self._look_through(tree, since_ns=self._told_ns - _TICK_NS)

    def _is_news(self, path: str, *, found: bool = False) -> bool:
        """Whether this file has not been told of: by an event, or found by looking."""
        try:
            key = path, os.lstat(path).st_ino
        except OSError:
            return True
        if key in self._found:
            return False
        if found:
            self._found.add(key)
        return True

    # the directories that are watched ------------------------------------------------

    def _watch(self, folder: str) -> bool:
        """Watch one directory; False where it is gone or not ours to read."""
        try:
            number = self._inotify.add_watch(folder, _MASK)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        except OSError as error:
            raise UnavailableError(
                f"no more directories can be watched: {error.strerror}",
                where=folder,
                remedy="raise fs.inotify.max_user_watches, or guard a smaller tree",
            ) from error
        self._paths[number], self._numbers[folder] = folder, number
        return True

    def _forget(self, number: int) -> None:
        folder = self._paths.pop(number, "")
        if self._numbers.get(folder) == number:
            del self._numbers[folder]

    def _below(self, path: str) -> list[tuple[str, int]]:
        return [
            (folder, number)
            for folder, number in self._numbers.items()
            if folder == path or folder.startswith(f"{path}/")
        ]

    def _rename(self, was: str, path: str) -> None:
        """Give the watched directories below their new names."""
        for folder, number in self._below(was):
            del self._numbers[folder]
            name = path + folder[len(was) :]
            self._paths[number], self._numbers[name] = name, number

    def _leave(self, path: str) -> None:
        """Watch no more what has left the trees."""
        for _, number in self._below(path):
            try:
                self._inotify.rm_watch(number)
            except OSError:
                continue  # gone, and the watch with it
            self._forget(number)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        # Gone since, or closed to us: what is in it is not seen.
        return []


def _changed(entry: os.DirEntry[str], since_ns: int) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_ctime_ns >= since_ns
    except OSError:
        return False

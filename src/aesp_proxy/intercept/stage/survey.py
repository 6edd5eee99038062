"""Find what a tree must not show: forbidden names, and other names of the same files.

A hard link is a name like any other, so a file that is forbidden under one name is
forbidden under all that the surveyed trees have for it, told by device and inode
(threat row 24). Nothing is followed: a link out of the tree is a name in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aesp_proxy.errors import ConfigError, UnavailableError

type Inode = tuple[int, int]
type Forbids = Callable[[str], bool]
"""Whether a path, absolute and normalised, may not be opened."""


@dataclass(slots=True, kw_only=True)
class Survey:
    """What was found below ``tree``: names are relative to it, without a slash in front.

    ``hidden`` names are not looked below. ``inodes`` are the files with several names that
    have a forbidden one, each with it; ``linked`` are all files with several names.
    """

    tree: Path
    hidden: set[str] = field(default_factory=set)
    inodes: dict[Inode, str] = field(default_factory=dict)
    linked: list[tuple[str, Inode]] = field(default_factory=list)
    entries: int = 0


def survey(
    tree: Path, forbids: Forbids, *, entries_max: int, apart: Collection[str] = ()
) -> Survey:
    """Walk a tree, but not into the directories ``apart``, and ask for each name.

    ConfigError for a tree of more than ``entries_max`` names, UnavailableError for one
    that cannot be read.
    """
    found = Survey(tree=tree)
    root = str(tree).rstrip("/")
    open_directories = [""]
    while open_directories:
        relative = open_directories.pop()
        for entry in _entries(f"{root}/{relative}" if relative else root or "/"):
            found.entries += 1
            if found.entries > entries_max:
                raise ConfigError(
                    f"more than {entries_max} names in the tree",
                    where=str(tree),
                    remedy="stage a smaller tree, or raise files.entries_max",
                )
            name = f"{relative}/{entry.name}" if relative else entry.name
            if f"{root}/{name}" in apart:
                continue
            is_directory = entry.is_dir(follow_symlinks=False)
            if forbids(f"{root}/{name}"):
                found.hidden.add(name)
                found.inodes.update(_inodes(entry, is_directory=is_directory))
            elif is_directory:
                open_directories.append(name)
            else:
                _note_links(found, name, entry)
    return found


def hide_other_names(surveys: Iterable[Survey]) -> None:
    """Add to ``hidden`` the other names that forbidden files have in any of the trees."""
    surveys = tuple(surveys)
    forbidden: set[Inode] = set().union(*(each.inodes for each in surveys))
    for each in surveys:
        each.hidden.update(name for name, inode in each.linked if inode in forbidden)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        # Gone since its parent was read: then there is nothing to hide in it.
        return
    except PermissionError:
        # The agent is the same user and has fewer privileges: it cannot read it either.
        return
    except OSError as error:
        raise UnavailableError(f"cannot be read: {error.strerror}", where=directory) from error


def _note_links(found: Survey, name: str, entry: os.DirEntry[str]) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        # Gone since: no name to hide.
        return
    if status.st_nlink > 1:
        found.linked.append((name, (status.st_dev, status.st_ino)))


def _inodes(entry: os.DirEntry[str], *, is_directory: bool) -> Iterator[tuple[Inode, str]]:
    """Yield the files with several names under a forbidden name, with their paths."""
    if is_directory:
        for below in _entries(entry.path):
            yield from _inodes(below, is_directory=below.is_dir(follow_symlinks=False))
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        # Gone since: it has no content under any name.
        return
    if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
        yield (status.st_dev, status.st_ino), entry.path

"""What a run has changed: the upper layer of a stage, read against the tree below it.

How the kernel writes a change into the upper layer (overlayfs.rst): a file that is new or
was opened for writing lies there whole; what was removed is a whiteout; a directory that
was removed and made again is opaque. A copy that is the same as below is no change.
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from aesp_proxy.intercept.stage.stage import StagedTree

_OPAQUE: Final = ("user.overlay.opaque", "trusted.overlay.opaque")


class Kind(StrEnum):
    """What happens to one name when a stage is published."""

    CREATE = "create"
    WRITE = "write"
    DELETE = "delete"
    MODE = "mode"
    MAKE_DIRECTORY = "mkdir"
    SPECIAL = "special"
    """A device, pipe or socket: never published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change to ``name``, relative to the tree; directories come before what is in them.

    For a deletion ``is_directory`` says that all below the name goes too.
    """

    kind: Kind
    name: str
    is_directory: bool = False
    is_link: bool = False


def changes_of(tree: StagedTree) -> Iterator[Change]:
    """Yield what was changed, parents first, names in order."""
    yield from _below(tree, "", exists_below=True)


def _below(tree: StagedTree, directory: str, *, exists_below: bool) -> Iterator[Change]:
    upper = tree.upper / directory if directory else tree.upper
    opaque = exists_below and directory != "" and _is_opaque(upper)
    names = sorted(os.listdir(upper))  # noqa: PTH208 - names only, in bytes that may be odd
    if opaque:
        yield from _gone(tree, directory, set(names))
    for entry in names:
        name = f"{directory}/{entry}" if directory else entry
        yield from _change(tree, name, exists_below=exists_below)


def _gone(tree: StagedTree, directory: str, still: set[str]) -> Iterator[Change]:
    """Yield what was in a directory that was removed and made again."""
    for entry in sorted(os.listdir(tree.path / directory)):  # noqa: PTH208 - as above
        name = f"{directory}/{entry}"
        if entry not in still and name not in tree.hidden:
            yield _deletion(tree.path / name, name)


def _change(tree: StagedTree, name: str, *, exists_below: bool) -> Iterator[Change]:
    above = (tree.upper / name).lstat()
    below = _status(tree.path / name) if exists_below else None
    if stat.S_ISCHR(above.st_mode) and above.st_rdev == 0:
        if name not in tree.hidden and below is not None:
            yield _deletion(tree.path / name, name)
        return
    if stat.S_ISDIR(above.st_mode):
        yield from _directory(tree, name, above, below)
        return
    if below is not None and stat.S_ISDIR(below.st_mode):
        yield Change(kind=Kind.DELETE, name=name, is_directory=True)
        below = None
    if not (stat.S_ISREG(above.st_mode) or stat.S_ISLNK(above.st_mode)):
        yield Change(kind=Kind.SPECIAL, name=name)
        return
    is_link = stat.S_ISLNK(above.st_mode)
    if below is None:
        yield Change(kind=Kind.CREATE, name=name, is_link=is_link)
    elif not _same(tree.upper / name, tree.path / name, above, below):
        yield Change(kind=Kind.WRITE, name=name, is_link=is_link)
    elif not is_link and stat.S_IMODE(above.st_mode) != stat.S_IMODE(below.st_mode):
        yield Change(kind=Kind.MODE, name=name)


def _directory(
    tree: StagedTree, name: str, above: os.stat_result, below: os.stat_result | None
) -> Iterator[Change]:
    is_below = below is not None and stat.S_ISDIR(below.st_mode)
    if below is not None and not is_below:
        yield _deletion(tree.path / name, name)
    if not is_below:
        yield Change(kind=Kind.MAKE_DIRECTORY, name=name, is_directory=True)
    elif below is not None and stat.S_IMODE(above.st_mode) != stat.S_IMODE(below.st_mode):
        yield Change(kind=Kind.MODE, name=name, is_directory=True)
    yield from _below(tree, name, exists_below=is_below)


def _deletion(path: Path, name: str) -> Change:
    status = _status(path)
    is_directory = status is not None and stat.S_ISDIR(status.st_mode)
    return Change(kind=Kind.DELETE, name=name, is_directory=is_directory)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _same(one: Path, other: Path, above: os.stat_result, below: os.stat_result) -> bool:
    """Whether content and type are the same: a copy is made by any opening for writing."""
    if stat.S_IFMT(above.st_mode) != stat.S_IFMT(below.st_mode):
        return False
    if stat.S_ISLNK(above.st_mode):
        return one.readlink() == other.readlink()
    return above.st_size == below.st_size and filecmp.cmp(one, other, shallow=False)


def _is_opaque(directory: Path) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            # No such attribute, or not for us to read: then the other one counts.
            continue
    return False

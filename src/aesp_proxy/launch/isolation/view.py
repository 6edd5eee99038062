"""What of the file system looks otherwise to the agent, as a list that the launcher writes.

The list is a file of rows, each of words that end in NUL, the row in an empty word:

- ``cover SOURCE TARGET``: TARGET shows SOURCE, and nobody inside can change either.
- ``stage TREE UPPER WORK``: what is written to TREE goes to UPPER (an overlay mount), and
  names for which UPPER holds a whiteout are not there.
- ``fuse TREE``: TREE is a live view that the file guard serves (``fuse_mount``).

Stages are set up first, so that what is covered may lie in one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from aesp_proxy.launch.isolation import kernel

Row = tuple[str, ...]
_O_PATH = os.O_PATH | os.O_CLOEXEC


def write(path: str, rows: Iterable[Sequence[str]]) -> None:
    """Write a list; OSError when it cannot be."""
    text = "".join("\0".join((*row, "", "")) for row in rows)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor; no Path, to start fast
        file.write(os.fsencode(text))


def read(path: str) -> list[Row]:
    """Read what ``write`` wrote; nothing where no list is wanted."""
    if not path:
        return []
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        text = os.fsdecode(file.read())
    return [tuple(row.split("\0")) for row in text.split("\0\0")[:-1]]


def stage(path: str) -> None:
    """Lay the overlays of a list over their trees."""
    _each(path, "stage", _overlay)


def cover(path: str) -> None:
    """Cover what the list says."""
    _each(path, "cover", _bind)


def fuse_trees(path: str) -> list[str]:
    """Return the directories of which the list wants a live view."""
    return [tree for (tree,) in _of(path, "fuse")]


def _each(path: str, kind: str, mount: Callable[..., None]) -> None:
    # What is covered here is covered for whoever comes by the directory we are in, too.
    here = os.getcwd()  # noqa: PTH109 - no Path, to start fast
    for row in _of(path, kind):
        mount(*row)
    os.chdir(here)


def _of(path: str, kind: str) -> Iterator[Row]:
    return (row[1:] for row in read(path) if row[0] == kind)


def _bind(source: str, target: str) -> None:
    kernel.mount(source, target, flags=kernel.MS_BIND)
    kernel.make_read_only(target)


def _overlay(tree: str, upper: str, work: str) -> None:
    """Mount an overlay: Documentation/filesystems/overlayfs.rst.

    The layers are named by descriptors: no name in them is then taken for an option.
    """
    descriptors = [os.open(each, _O_PATH) for each in (tree, upper, work)]
    try:
        lower, above, beside = (f"/proc/self/fd/{each}" for each in descriptors)
        data = f"lowerdir={lower},upperdir={above},workdir={beside},userxattr"
        kernel.mount("aesp-proxy", tree, "overlay", kernel.MS_NODEV, data)
    finally:
        for each in descriptors:
            os.close(each)

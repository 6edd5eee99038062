"""Forbidden names that git tracks: listed, and not opened.

Were they not there, git would take them for deleted, and a commit of everything would
delete them for all. So they and the directories on the way are seen; what is in them is
not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.git_index import tracked_names

_INDEX_BYTES_MAX: Final = 256 << 20
_POINTER_BYTES_MAX: Final = 4096


def tracked_paths(root: str, hidden: Iterable[str]) -> frozenset[str]:
    """Return the paths of ``hidden`` names below ``root`` that git tracks, or something below.

    What is tracked below a hidden directory is among them. A repository that cannot be
    read tracks nothing.
    """
    indexes: dict[str, frozenset[str]] = {}
    shown: set[str] = set()
    for name in hidden:
        path = f"{root}/{name}"
        home = _repository(root, path)
        if home is None:
            continue
        if home not in indexes:
            indexes[home] = frozenset(_tracked(home))
        relative = path[len(home) + 1 :]
        if relative in indexes[home]:
            shown.add(path)
        below = f"{relative}/"
        for tracked in indexes[home]:
            if tracked.startswith(below):
                shown.update(_with_parents(f"{home}/{tracked}", path))
    return frozenset(shown)


def _with_parents(path: str, top: str) -> Iterator[str]:
    """Yield a path and the directories above it, up to ``top``."""
    while path.startswith(top):
        yield path
        path = path.rpartition("/")[0]


def _repository(root: str, path: str) -> str | None:
    """Return the working tree that a path lies in, not above ``root``."""
    above = path.rpartition("/")[0]
    while len(above) >= len(root):
        if os.path.lexists(f"{above}/.git"):
            return above
        above = above.rpartition("/")[0]
    return None


def _tracked(home: str) -> Iterator[str]:
    try:
        with open(f"{_git_directory(home)}/index", "rb") as file:  # noqa: PTH123
            data = file.read(_INDEX_BYTES_MAX + 1)
        if len(data) <= _INDEX_BYTES_MAX:
            yield from map(os.fsdecode, tracked_names(data))
    except (OSError, InputError):
        # No index yet, or none that we can read: then its names stay hidden.
        return


def _git_directory(home: str) -> str:
    """Return the directory of a repository; of a worktree or submodule, where its file says."""
    place = f"{home}/.git"
    if os.path.isdir(place):  # noqa: PTH112
        return place
    with open(place, "rb") as file:  # noqa: PTH123
        text = file.read(_POINTER_BYTES_MAX).strip()
    target = os.fsdecode(text.removeprefix(b"gitdir:").strip())
    return os.path.normpath(os.path.join(home, target))  # noqa: PTH118

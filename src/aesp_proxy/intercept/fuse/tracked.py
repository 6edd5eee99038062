"""Forbidden names that git tracks: listed, and not opened.

Were they not there, git would take them for deleted, and a commit of everything would
delete them for all. So they and the directories on the way are seen; what is in them is
not.
"""

from __future__ import annotations

import os
from typing import Final

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.git_index import tracked_names

_INDEX_BYTES_MAX: Final = 256 << 20
_POINTER_BYTES_MAX: Final = 4096


class Tracked:
    """What git tracks below ``root``: each repository's index is read once.

    What is forbidden cannot be added to an index by who does not see it.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._indexes: dict[str, frozenset[str]] = {}

    def shows(self, path: str) -> bool:
        """Tell whether git tracks a forbidden name, or something below it.

        False where a repository cannot be read.
        """
        home = self._repository(path)
        if home is None:
            return False
        known = self._indexes.get(home)
        if known is None:
            known = self._indexes[home] = _tracked(home)
        return path[len(home) + 1 :] in known

    def _repository(self, path: str) -> str | None:
        """Return the working tree that a path lies in, not above the root."""
        above = path.rpartition("/")[0]
        while len(above) >= len(self._root):
            if os.path.lexists(f"{above}/.git"):
                return above
            above = above.rpartition("/")[0]
        return None


def _tracked(home: str) -> frozenset[str]:
    """Return the names of an index and of the directories on the way to them."""
    try:
        with open(f"{_git_directory(home)}/index", "rb") as file:  # noqa: PTH123
            data = file.read(_INDEX_BYTES_MAX + 1)
        names = tracked_names(data) if len(data) <= _INDEX_BYTES_MAX else frozenset()
    except (OSError, InputError):
        # No index yet, or none that we can read: then its names stay hidden.
        return frozenset()
    found: set[str] = set()
    for name in map(os.fsdecode, names):
        while name and name not in found:
            found.add(name)
            name = name.rpartition("/")[0]  # noqa: PLW2901 - upwards
    return frozenset(found)


def _git_directory(home: str) -> str:
    """Return the directory of a repository; of a worktree or submodule, where its file says."""
    place = f"{home}/.git"
    if os.path.isdir(place):  # noqa: PTH112
        return place
    with open(place, "rb") as file:  # noqa: PTH123
        text = file.read(_POINTER_BYTES_MAX).strip()
    target = os.fsdecode(text.removeprefix(b"gitdir:").strip())
    return os.path.normpath(os.path.join(home, target))  # noqa: PTH118

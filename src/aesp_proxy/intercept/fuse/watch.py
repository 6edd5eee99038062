"""Hear what others change on disk below a view: the kernel keeps what it was told for a minute.

inotify(7) on every directory in which a name was looked up. What we change ourselves is
told, too: whether a change is news is decided by looking, not by who made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from inotify_simple import INotify, flags

from aesp_proxy.intercept.fuse.nodes import Node

_NAMES: Final = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO
_MASK: Final = _NAMES | flags.MODIFY | flags.ATTRIB | flags.ONLYDIR | flags.EXCL_UNLINK


class Watch:
    """The watched directories of one tree."""

    def __init__(self) -> None:
        self._inotify = INotify(nonblocking=True)
        self._nodes: dict[int, Node] = {}

    def fileno(self) -> int:
        """Return what is readable when there is news."""
        return int(self._inotify.fileno())

    def add(self, node: Node, descriptor: int) -> None:
        """Watch a directory; OSError when there are too many."""
        node.watch = self._inotify.add_watch(f"/proc/self/fd/{descriptor}", _MASK)
        self._nodes[node.watch] = node

    def drop(self, node: Node) -> None:
        """Watch a directory no more."""
        if node.watch >= 0 and self._nodes.pop(node.watch, None) is not None:
            with contextlib.suppress(OSError):
                # The directory may be gone, and its watch with it.
                self._inotify.rm_watch(node.watch)
            node.watch = -1

    def news(self) -> Iterator[tuple[Node | None, str, bool]]:
        """Yield directory, name, and whether the name itself is new or gone.

        No directory: more has happened than the kernel could tell.
        """
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                yield None, "", True
                continue
            node = self._nodes.get(event.wd)
            if node is not None and event.name:
                yield node, event.name, bool(event.mask & _NAMES)

    def close(self) -> None:
        """Close it."""
        self._inotify.close()

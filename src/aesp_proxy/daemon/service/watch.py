"""Learn that the files of a policy changed: inotify(7), by its descriptor, without a thread.

Folders are watched and not files: editors and ConfigMaps put a new file, or a symbolic
link, in the place of the old one. A folder that is not there is waited for in the
nearest one above it. (``inotify_simple`` is a thin and kept wrapper whose object is the
descriptor; pyinotify was last released in 2015 and needs a module that Python 3.12 no
longer has; watchfiles would bring a thread.)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import trio
from inotify_simple import INotify, flags

_MASK: Final = (
    flags.CLOSE_WRITE
    | flags.CREATE
    | flags.DELETE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ATTRIB
)
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_QUIET_S: Final = 0.1
_BUSY_S_MAX: Final = 2.0


class FilesWatch:
    """Watches the folders of files, and of what they are links to."""

    def __init__(self) -> None:
        self._inotify = INotify(nonblocking=True)
        self._watched: dict[int, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    def follow(self, files: Iterable[Path]) -> bool:
        """Watch the folders of these files, and no others; say whether any is new.

        What happened in a new one before this is not told: look again. OSError at the
        limit of watches.
        """
        wanted = {folder for file in files for folder in _folders(file)}
        # A watch stays with the folder it was made for: made again, it is of the one there now.
        fresh = {self._inotify.add_watch(folder, _MASK): folder for folder in wanted}
        for descriptor in self._watched.keys() - fresh.keys():
            try:
                self._inotify.rm_watch(descriptor)
            except OSError:
                continue  # its folder is gone, and the watch with it
        is_new = not fresh.keys() <= self._watched.keys()
        self._watched = fresh
        return is_new

    async def changed(self) -> None:
        """Wait until something happened in the folders, and it is quiet again."""
        await self._events()
        with trio.move_on_after(_BUSY_S_MAX):
            while True:
                with trio.move_on_after(_QUIET_S) as quiet:
                    await self._events()
                if quiet.cancelled_caught:
                    return

    async def _events(self) -> None:
        await trio.lowlevel.wait_readable(self._inotify.fileno())
        self._inotify.read(timeout=0)


Signature = frozenset[tuple[object, ...]]


def signature(files: Iterable[Path]) -> Signature:
    """Tell apart what a policy may be read from: its files, and those beside it that could be.

    Cheap, so that a busy folder costs no reading of policies.
    """
    known = set(files)
    places = set(known)
    for folder in {folder for file in known for folder in _folders(file)}:
        places.update(each for each in folder.iterdir() if each.suffix in _SUFFIXES)
    return frozenset(filter(None, map(_stamp, places)))


def _stamp(path: Path) -> tuple[object, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _folders(file: Path) -> Iterable[Path]:
    for place in (file, file.resolve()):
        yield next(folder for folder in place.absolute().parents if folder.is_dir())

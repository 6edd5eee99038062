"""Read the sources of registered values again when their files change.

Files are looked at by ``stat``; vaults and commands are asked at the start only. A source
that cannot be read just now (it is being written, or gone) is tried again the next time;
what it said before stays registered.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config_secrets import Secrets
from aesp_proxy.daemon.secret_sources import SSH, WELL_KNOWN, Broken, Value, from_source
from aesp_proxy.errors import AespError

_FILES_MAX: Final = 1_000
Stamp = frozenset[tuple[str, int, int, int]]
"""Name, inode, size in bytes and time of change in nanoseconds of each file."""


class SourceWatch:
    """The sources with files: those of the settings and ``more``."""

    __slots__ = ("_home", "_settings", "_stamps", "broken", "unread")

    def __init__(self, settings: Secrets, home: Path | None, more: Iterable[str] = ()) -> None:
        self._settings = settings
        self._home = home
        watched = [one for one in (*settings.source_list, *more) if _has_files(one)]
        self._stamps = {one: self._stamp(one) for one in watched}
        self.unread: dict[str, str] = {}
        """Sources that could not be read the last time, each with the reason."""
        self.broken: Broken = {}
        """Well-known files that could not be read whole the last time, each with the reason."""

    def changed(self) -> list[Value]:
        """Return the values of all sources of which a file has changed since the last call."""
        found: list[Value] = []
        for source, before in self._stamps.items():
            stamp = self._stamp(source)
            if stamp == before:
                continue
            try:
                found += from_source(source, self._settings, self._home, self.broken)
            except AespError as error:
                self.unread[source] = str(error)
                continue
            self.unread.pop(source, None)
            # As it was before it was read: what is written meanwhile is read the next time.
            self._stamps[source] = stamp
        return found

    def _stamp(self, source: str) -> Stamp:
        return frozenset(_stamps(self._files(source)))

    def _files(self, source: str) -> list[Path]:
        kind, _, rest = source.partition(":")
        if kind == "credentials":
            home = self._home
            return (
                [] if home is None else [*(home / one for one in WELL_KNOWN), *_inside(home / SSH)]
            )
        return [Path(rest)] if kind == "file" else _inside(Path(rest))


def _has_files(source: str) -> bool:
    return source == "credentials" or source.startswith(("file:", "dir:"))


def _inside(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())[:_FILES_MAX]
    except OSError:
        return []


def _stamps(files: Iterable[Path]) -> Iterable[tuple[str, int, int, int]]:
    for path in files:
        try:
            told = path.stat()
        except OSError:
            continue
        yield str(path), told.st_ino, told.st_size, told.st_mtime_ns

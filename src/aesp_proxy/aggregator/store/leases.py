"""Leases of one machine: a lock on a file each (flock(2)), in one directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aesp_proxy.aggregator.identity import FileLock
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.header import is_origin

if TYPE_CHECKING:
    from pathlib import Path

    from aesp_proxy.aggregator.leases import Lease


def checked_name(name: str) -> str:
    """Return the name of a lease, words with a colon between; ConfigError for another."""
    if not all(map(is_origin, name.split(":"))):
        raise ConfigError(f"{name!r} cannot name a lease", remedy="use a-z 0-9 . _ - and :")
    return name


class FileLeases:
    """``NAME.lease`` in ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def take(self, name: str) -> Lease | None:
        """Take a lease; None when another process, or another of this one, has it."""
        lock = FileLock(self._root / f"{checked_name(name)}.lease")
        return _FileLease(lock) if lock.take() else None

    def close(self) -> None:
        """Do nothing: each lease is let go by itself."""


class _FileLease:
    """It cannot be lost while we live, unless somebody removes its file."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def held(self) -> bool:
        """Whether it was not let go, and its file is still the one that others would lock."""
        return self._lock.is_held and self._lock.is_in_place

    def release(self) -> None:
        """Let another take it."""
        self._lock.release()

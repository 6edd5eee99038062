"""The few file operations that durability rests on, behind a port so that each can fail in tests.

Rules: paths and descriptors as the system calls take them; OSError is let
through, because each caller knows what its failure means. Private: files are
0600, directories 0700.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

FILE_MODE: Final = 0o600
DIR_MODE: Final = 0o700


class Files(Protocol):
    """What journal, sealer and spool do to a disk."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist yet, for appending; give its descriptor."""

    def create_fixed(self, path: Path) -> int:
        """Create a file that must not exist yet, to be written in place; give its descriptor."""

    def write(self, descriptor: int, data: bytes) -> int:
        """Write once; may take less than all (write(2))."""

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write once at ``offset``; may take less than all (pwrite(2))."""

    def fdatasync(self, descriptor: int) -> None:
        """Return when what was written would survive a power cut."""

    def size(self, descriptor: int) -> int:
        """Size of the file in bytes."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to ``size`` bytes."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename over, atomically (rename(2))."""

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is not there is removed already."""

    def sync_dir(self, path: Path) -> None:
        """Return when names in the directory would survive a power cut."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""


class OsFiles:
    """The real thing."""

    write = staticmethod(os.write)
    overwrite = staticmethod(os.pwrite)
    fdatasync = staticmethod(os.fdatasync)
    truncate = staticmethod(os.ftruncate)
    close = staticmethod(os.close)

    def create(self, path: Path) -> int:
        """Create a file that must not exist yet, for appending."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(path, flags, FILE_MODE)

    def create_fixed(self, path: Path) -> int:
        """Create a file that must not exist yet, to be written in place."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)

    def size(self, descriptor: int) -> int:
        """Size of the file in bytes."""
        return os.fstat(descriptor).st_size

    def replace(self, source: Path, target: Path) -> None:
        """Rename over, atomically."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def sync_dir(self, path: Path) -> None:
        """Sync the names of a directory."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


OS_FILES: Final = OsFiles()


def write_all(files: Files, descriptor: int, data: bytes) -> None:
    """Write all of ``data``; a short write goes on where it stopped. OSError."""
    view = memoryview(data)
    while view:
        view = view[files.write(descriptor, bytes(view)) :]


def write_durable(files: Files, path: Path, data: bytes) -> None:
    """Put a file in place as a whole: draft, sync, rename, sync the directory. OSError.

    On return it would survive a power cut; on an error the old file, or none, stands.
    """
    draft = path.with_name(path.name + ".tmp")
    files.unlink(draft)
    descriptor = files.create(draft)
    try:
        write_all(files, descriptor, data)
        files.fdatasync(descriptor)
    finally:
        files.close(descriptor)
    files.replace(draft, path)
    files.sync_dir(path.parent)


class Lock:
    """An exclusive flock(2) on a file, held until released or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def try_take(cls, path: Path) -> Lock | None:
        """Take the lock, or None when another holds it. OSError when the file cannot be opened."""
        descriptor = _open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path) -> Iterator[None]:
        """Hold the lock for a block; waits for it. For short, bounded sections only."""
        descriptor = _open_lock(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go; again is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)


def is_locked(path: Path) -> bool:
    """Whether someone holds the exclusive lock on ``path``; False when there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

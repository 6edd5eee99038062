"""Batches as files in a directory: the embedded ``ObjectStore``.

Rules: a name appears only with its whole content behind it (write aside,
``fdatasync``, rename, ``fsync`` of the directory, in this order); what
:meth:`DirectoryObjects.put_all` has returned for would survive a power cut; a
file left over from a crash is never taken for an object. After a failed sync
nothing of that call is trusted: the caller must not promise it.
Source: fsync(2), rename(2), and research on failed syncs ("fsyncgate").
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from aesp_proxy.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

PART_SUFFIX: Final = ".part"
PROBE: Final = "probe"
SYNC_THREADS: Final = 8


class DirectoryObjects:
    """Objects under ``root``, keyed by relative path (``batches/ORIGIN/NNNNNNNNNN.batch``)."""

    def __init__(self, root: Path, *, by_hash: bool = False) -> None:
        self._root, self.by_hash = root, by_hash
        # Where others write too, they may write the same batch at the same moment.
        self._part_suffix = f".{uuid4().hex}{PART_SUFFIX}" if by_hash else PART_SUFFIX
        self._pool = ThreadPoolExecutor(max_workers=SYNC_THREADS, thread_name_prefix="object-sync")
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot be made: {error.strerror}", where=str(root), remedy="choose --data"
            ) from error

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store every (key, content) durably, all or a RecordError; keys may be replaced.

        One object is written in the calling thread. Several are synced side by
        side, so that the file system can join their journal commits into one.
        """
        try:
            if len(objects) == 1:
                self._put(*objects[0])
            else:
                futures = [self._pool.submit(self._put, *item) for item in objects]
                wait(futures)  # all have ended before an error is raised: no writer is left behind
                for future in futures:
                    future.result()
            for directory in {self._path(key).parent for key, _ in objects}:
                _sync_directory(directory)
        except OSError as error:
            raise RecordError(
                f"cannot store a batch: {error.strerror}",
                where=str(self._root),
                remedy="check disk space and the disk",
            ) from error

    def get(self, key: str) -> bytes:
        """Return the content of ``key``; RecordError when it cannot be read."""
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=key) from error

    def find(self, key: str) -> bytes | None:
        """Return the content of ``key``, None when there is none; RecordError otherwise."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=key) from error

    def remove_all(self, keys: Sequence[str]) -> int:
        """Delete what is there of ``keys``, whole or half written; return how many were."""
        # By text: a start asks for a hundred names of each origin, and hardly any is there.
        paths = [str(self._path(key)) for key in keys]
        removed = sum(_is_removed(path) + _is_removed(path + self._part_suffix) for path in paths)
        for directory in {os.path.dirname(path) for path in paths}:  # noqa: PTH120
            with suppress(OSError):  # not empty, in most cases
                os.rmdir(directory)  # noqa: PTH106
        return removed

    def check(self) -> None:
        """Write, read and remove an object; ConfigError when that does not go well."""
        try:
            self.put_all([(PROBE, PROBE.encode())])
            if self.get(PROBE) != PROBE.encode():
                raise ConfigError("gives back something else", where=str(self._root))
            self.remove_all([PROBE])
        except RecordError as error:
            raise ConfigError(error.message, where=error.where, remedy=error.remedy) from error

    def close(self) -> None:
        """End the syncing threads."""
        self._pool.shutdown()

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if {"", ".", ".."} & set(parts):
            raise RecordError("is not a key of this store", where=repr(key))
        return self._root.joinpath(*parts)

    def _put(self, key: str, content: bytes) -> None:
        path = self._path(key)
        part = path.with_name(path.name + self._part_suffix)
        try:
            descriptor = _open_new(part)
        except FileNotFoundError:
            self._make_directory(path.parent)
            descriptor = _open_new(part)
        try:
            _write_all(descriptor, content)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(path)

    def _make_directory(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A new directory is durable only when its parents are synced too.
        for parent in directory.parents:
            _sync_directory(parent)
            if parent == self._root:
                break


def _is_removed(path: str) -> bool:
    """Delete a file; False when there was none, RecordError when it stays."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RecordError(f"cannot be removed: {error.strerror}", where=path) from error
    return True


def _open_new(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Publish a stage: all of it or nothing, whatever dies on the way.

1. Everything that can fail for want of space or rights is done beside the trees: each
   file is copied, whole, into a directory of ours at the root of its tree, and all are synced.
2. The stage is marked as publishing. From here on it is only ever carried through.
3. Names are taken away, directories made, copies renamed into place. Each step may be
   done twice, so a publication that was cut off is carried through by doing it again.

What the host has changed since the run began is never overwritten: that is found before
step 2, by the time of the last change, which no program can set back. No path is
followed through a symbolic link.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.intercept.stage.changes import Change, Kind, changes_of
from aesp_proxy.intercept.stage.stage import Phase, Stage, StagedTree

_PREFIX: Final = ".aesp-proxy-stage-"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES: Final = 1 << 20
_NAMES: Final = "names"
# More than this are synced with all of their file system: each by itself waits for the disk.
_ONE_BY_ONE_MAX: Final = 64
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A name that the host has changed since the run began."""

    tree: Path
    name: str


def conflicts_of(stage: Stage) -> list[Conflict]:
    """Return what publication would overwrite or remove and the host has changed since."""
    found = []
    for tree in stage.trees:
        for change in changes_of(tree):
            if change.kind is Kind.SPECIAL:
                continue
            if any(_changed_since(path, stage.began_ns) for path in _touched(tree, change)):
                found.append(Conflict(tree=tree.path, name=change.name))
    return found


def publish(stage: Stage) -> Stage:
    """Carry a stage into its trees; it is removed when all is done.

    UnavailableError when something could not be prepared, and then nothing has changed;
    or when it was cut short after that: then publishing again goes on.
    """
    if stage.phase is Phase.OPEN:
        raise ConfigError(
            "its command may still run", where=stage.id, remedy="end the command first"
        )
    if stage.phase is not Phase.PUBLISHING:
        _prepare(stage)
        stage = stage.moved_to(Phase.PUBLISHING)
    for tree in stage.trees:
        with _located(str(tree.path)):
            _carry(stage, tree)
    stage.drop()
    return stage


def _prepare(stage: Stage) -> None:
    try:
        for tree in stage.trees:
            with _located(str(tree.path)):
                _copy_all(tree, _beside(stage, tree))
    except BaseException:
        for tree in stage.trees:
            shutil.rmtree(_beside(stage, tree), ignore_errors=True)
        raise


def _copy_all(tree: StagedTree, beside: Path) -> None:
    """Copy what has content beside the tree, and the names in the order of the copies."""
    shutil.rmtree(beside, ignore_errors=True)
    changes = list(changes_of(tree))
    _check_one_device(tree, changes)
    files = [each for each in changes if each.kind in (Kind.CREATE, Kind.WRITE)]
    if not files:
        return
    beside.mkdir(mode=0o700)
    one_by_one = len(files) <= _ONE_BY_ONE_MAX
    for index, change in enumerate(files):
        source, target = tree.upper / change.name, beside / str(index)
        _copy(source, target, is_link=change.is_link, synced=one_by_one)
    names = "".join(f"{change.name}\0" for change in files)
    with (beside / _NAMES).open("xb") as written:
        written.write(os.fsencode(names))
        written.flush()
        os.fsync(written.fileno())
    _sync(beside, with_files=not one_by_one)


def _check_one_device(tree: StagedTree, changes: Sequence[Change]) -> None:
    """Refuse what a rename could not reach: a mount inside the tree."""
    device = tree.path.lstat().st_dev
    for change in changes:
        for part in Path(change.name).parents:
            above = tree.path / part
            if above.is_dir() and above.lstat().st_dev != device:
                raise UnavailableError(
                    "another file system is mounted in the tree, and was written to",
                    where=str(above),
                    remedy="stage that tree by itself",
                )


def _copy(source: Path, target: Path, *, is_link: bool, synced: bool) -> None:
    status = source.lstat()
    if is_link:
        target.symlink_to(source.readlink())
    else:
        with source.open("rb") as read, target.open("xb") as written:
            shutil.copyfileobj(read, written, _COPY_BYTES)
            if synced:
                written.flush()
                os.fsync(written.fileno())
        target.chmod(stat.S_IMODE(status.st_mode))
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _carry(stage: Stage, tree: StagedTree) -> None:
    """Do what is left to do in one tree.

    The changes are read anew each time: what is done reads as no change.
    """
    beside = _beside(stage, tree)
    root = os.open(tree.path, _DIRECTORY)
    try:
        for change in list(changes_of(tree)):
            _make_room(tree, change, root)
        for index, name in enumerate(_names(beside)):
            copy = beside / str(index)
            if copy.is_symlink() or copy.exists():
                with _parent(root, name) as (directory, last):
                    os.rename(copy, last, dst_dir_fd=directory)
        _sync_names(root, _names(beside))
    finally:
        os.close(root)
    shutil.rmtree(beside, ignore_errors=True)


def _sync_names(root: int, names: Sequence[str]) -> None:
    """Have all renames reach the disk before their stage is removed."""
    one_of = {name.rpartition("/")[0]: name for name in names}
    if len(one_of) > _ONE_BY_ONE_MAX:
        _sync_file_system(root)
        return
    for name in one_of.values():
        with _parent(root, name) as (directory, _):
            os.fsync(directory)
    os.fsync(root)


def _names(beside: Path) -> list[str]:
    try:
        return os.fsdecode((beside / _NAMES).read_bytes()).split("\0")[:-1]
    except FileNotFoundError:
        return []


def _make_room(tree: StagedTree, change: Change, root: int) -> None:
    """Do everything but put files in their places."""
    if change.kind is Kind.DELETE:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            _parent(root, change.name) as (directory, last),
        ):
            _remove(directory, last)
    elif change.kind in (Kind.MAKE_DIRECTORY, Kind.MODE):
        with _parent(root, change.name) as (directory, last):
            if change.kind is Kind.MAKE_DIRECTORY:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(last, dir_fd=directory)
            _set_mode(directory, last, (tree.upper / change.name).lstat())


def _remove(directory: int, last: str) -> None:
    if stat.S_ISDIR(os.lstat(last, dir_fd=directory).st_mode):
        shutil.rmtree(last, dir_fd=directory)
    else:
        os.unlink(last, dir_fd=directory)


def _set_mode(directory: int, last: str, like: os.stat_result) -> None:
    held = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        # By the descriptor, not by the name: nobody puts a link in between.
        path = Path(f"/proc/self/fd/{held}")
        path.chmod(stat.S_IMODE(like.st_mode))
        if os.geteuid() == 0:
            os.chown(path, like.st_uid, like.st_gid)
    finally:
        os.close(held)


@contextlib.contextmanager
def _parent(root: int, name: str) -> Iterator[tuple[int, str]]:
    """Open the directory of a name, without following a link; give it and the last part."""
    *parts, last = name.split("/")
    directory = os.dup(root)
    try:
        for part in parts:
            below = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
        yield directory, last
    finally:
        os.close(directory)


def _touched(tree: StagedTree, change: Change) -> Iterator[Path]:
    """Yield what is there and would be overwritten or removed."""
    path = tree.path / change.name
    yield path
    if change.kind is Kind.DELETE and change.is_directory:
        for folder, directories, files in os.walk(path):
            yield from (Path(folder, each) for each in (*directories, *files))


def _changed_since(path: Path, began_ns: int) -> bool:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return status.st_ctime_ns > began_ns


def _beside(stage: Stage, tree: StagedTree) -> Path:
    return tree.path / f"{_PREFIX}{stage.id}"


def _sync_file_system(descriptor: int) -> None:
    """Write all that a file system has in memory (syncfs(2)); OSError where that failed."""
    if _LIBC.syncfs(descriptor) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _sync(directory: Path, *, with_files: bool) -> None:
    descriptor = os.open(directory, _DIRECTORY)
    try:
        if with_files:
            _sync_file_system(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"cannot be published: {error.strerror or error}", where=error.filename or where
        ) from error

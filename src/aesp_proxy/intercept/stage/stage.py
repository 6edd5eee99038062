"""A stage: where the writes of one run go, and what its view of the trees leaves out.

On disk, below ``stage/ID`` of the state directory: ``stage.json`` says what it is;
for each tree ``N/upper`` and ``N/work``, the upper layer of an overlay mount and its
work directory. A name that must not be seen is a whiteout in the upper layer (character
device 0:0, Documentation/filesystems/overlayfs.rst), put there before anything is
mounted: the kernel then shows nothing, with no process of ours in the path.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from aesp_proxy.errors import ConfigError, RecordError, UnavailableError
from aesp_proxy.intercept.stage.survey import Survey

_VERSION: Final = 1
_FILE: Final = "stage.json"
_LOCK: Final = "lock"
_ROOM: Final = "room"
_ROOM_BYTES: Final = 1 << 16
_ID_BYTES: Final = 6


class Phase(StrEnum):
    """How far a stage is."""

    OPEN = "open"
    """The command runs, or was killed with us."""
    ENDED = "ended"
    """The command has ended; nothing is published."""
    PUBLISHING = "publishing"
    """All is prepared: publication goes on from here whatever happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTree:
    """One tree: its real ``path``, its layers, and the names that were hidden in it."""

    path: Path
    folder: Path
    hidden: frozenset[str]

    @property
    def upper(self) -> Path:
        """The upper layer: what was changed."""
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        """What the kernel works in."""
        return self.folder / "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage. ``began_ns`` is wall-clock nanoseconds, before the trees were surveyed.

    ``policy`` is the file of the run's policy, "" for the built-in one: what was refused at
    the run's end is not published later by another that nobody named.
    """

    id: str
    folder: Path
    trees: tuple[StagedTree, ...]
    session_id: str
    command: str
    began_ns: int
    policy: str = ""
    phase: Phase = Phase.OPEN

    def moved_to(self, phase: Phase) -> Stage:
        """Note durably that it is in another phase."""
        moved = replace(self, phase=phase)
        _write(moved)
        return moved

    def hold(self) -> int:
        """Say for as long as this process lives that the run goes on; return a descriptor."""
        held = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        return held

    def is_held(self) -> bool:
        """Whether a living process holds it."""
        tried = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(tried, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(tried)
        return False

    def drop(self) -> None:
        """Remove it and all that is in it; UnavailableError when something is left."""
        problems: list[str] = []

        def mend(function: Any, path: str, error: BaseException) -> None:  # noqa: ANN401 - shutil's
            # The kernel leaves a work directory that nobody may enter.
            try:
                Path(path).parent.chmod(0o700)
                Path(path).chmod(0o700)
                function(path)
            except OSError:
                problems.append(str(error))

        for tree in self.trees:
            inner = tree.work / "work"
            if inner.is_dir():
                inner.chmod(0o700)
        shutil.rmtree(self.folder, onexc=mend)
        if self.folder.exists():
            what = problems[0] if problems else "something is left"
            raise UnavailableError(f"cannot be removed: {what}", where=str(self.folder))


def make_stage(
    folder: Path,
    surveys: Iterable[Survey],
    *,
    session_id: str,
    command: str,
    began_ns: int,
    policy: str = "",
) -> Stage:
    """Make a stage for the surveyed trees below ``folder``.

    ConfigError when the stage would lie in one of the trees, UnavailableError when the
    file system cannot hold it.
    """
    number = secrets.token_hex(_ID_BYTES)
    own = folder / number
    trees = []
    for index, found in enumerate(surveys):
        _check_apart(folder, found.tree)
        tree = StagedTree(path=found.tree, folder=own / str(index), hidden=frozenset(found.hidden))
        try:
            tree.upper.mkdir(parents=True, mode=0o700)
            tree.work.mkdir(mode=0o700)
            _like(tree.path, tree.upper)
            for name in sorted(found.hidden):
                _white_out(tree, name)
        except OSError as error:
            raise UnavailableError(
                f"cannot hold a stage: {error.strerror}",
                where=str(own),
                remedy="put the state directory on ext4, XFS, Btrfs or tmpfs",
            ) from error
        trees.append(tree)
    stage = Stage(
        id=number,
        folder=own,
        trees=tuple(trees),
        session_id=session_id,
        command=command,
        began_ns=began_ns,
        policy=policy,
    )
    _write(stage)
    _keep_room(stage)
    return stage


def read_stages(folder: Path) -> Iterator[Stage]:
    """Yield the stages below ``folder``, oldest first; RecordError for a broken one."""
    if not folder.is_dir():
        return
    found = [_read(entry) for entry in folder.iterdir() if (entry / _FILE).exists()]
    yield from sorted(found, key=lambda stage: stage.began_ns)


def read_stage(folder: Path, number: str) -> Stage:
    """Return one stage, for "" the only one; ConfigError when there is none of this name."""
    if not number:
        kept = [stage.id for stage in read_stages(folder)]
        if len(kept) == 1:
            return _read(folder / kept[0])
        raise ConfigError(
            f"which of {len(kept)} stages: {', '.join(kept)}" if kept else "no stage is kept",
            remedy="`aesp-proxy stage list` shows them; `run --stage` makes one",
        )
    own = folder / number
    if "/" in number or not (own / _FILE).exists():
        raise ConfigError(
            f"there is no stage {number[:80]!a}", remedy="`aesp-proxy stage list` shows them"
        )
    return _read(own)


def _check_apart(folder: Path, tree: Path) -> None:
    if folder.resolve().is_relative_to(tree):
        raise ConfigError(
            "the state directory lies in the tree that is staged",
            where=str(tree),
            remedy="give --state DIR outside of it",
        )


def _white_out(tree: StagedTree, name: str) -> None:
    path = tree.upper / name
    _make_parents(tree, name)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _make_parents(tree: StagedTree, name: str) -> None:
    """Make the directories above a whiteout look as they do below."""
    above = Path(name).parent
    for part in reversed([above, *above.parents][:-1]):
        made = tree.upper / part
        if not made.exists():
            made.mkdir(mode=0o700)
            _like(tree.path / part, made)


def _like(original: Path, made: Path) -> None:
    status = original.stat(follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(made, status.st_uid, status.st_gid)
    made.chmod(stat.S_IMODE(status.st_mode))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def _write(stage: Stage) -> None:
    value = {
        "version": _VERSION,
        "session_id": stage.session_id,
        "command": stage.command,
        "began_ns": stage.began_ns,
        "policy": stage.policy,
        "phase": stage.phase.value,
        "trees": [
            {"path": str(tree.path), "folder": tree.folder.name, "hidden": sorted(tree.hidden)}
            for tree in stage.trees
        ],
    }
    path = stage.folder / _FILE
    data = json.dumps(value).encode("ascii")
    try:
        _replace(path, data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # The command has filled it: what was kept free for this moment is enough.
        (stage.folder / _ROOM).unlink(missing_ok=True)
        _replace(path, data)
    directory = os.open(stage.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _keep_room(stage: Stage) -> None:
    """Take the room that it needs to be ended, shown and published when it is full.

    Bytes that no file system can make fewer of.
    """
    needed = (stage.folder / _FILE).stat().st_size
    _replace(stage.folder / _ROOM, secrets.token_bytes(2 * needed + _ROOM_BYTES))


def _replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _read(own: Path) -> Stage:
    try:
        return _parsed(own, json.loads((own / _FILE).read_text("ascii")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"this is no stage: {type(error).__name__}",
            where=str(own / _FILE),
            remedy="remove the directory, or see what is in its upper layers first",
        ) from error


def _parsed(own: Path, value: Mapping[str, Any]) -> Stage:
    if value["version"] != _VERSION:
        raise ValueError(value["version"])
    return Stage(
        id=own.name,
        folder=own,
        session_id=value["session_id"],
        command=value["command"],
        began_ns=int(value["began_ns"]),
        policy=str(value.get("policy", "")),
        phase=Phase(value["phase"]),
        trees=tuple(
            StagedTree(
                path=Path(tree["path"]),
                folder=own / Path(tree["folder"]).name,
                hidden=frozenset(tree["hidden"]),
            )
            for tree in value["trees"]
        ),
    )

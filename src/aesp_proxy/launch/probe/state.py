"""The state directory and the host CA, looked at and not changed."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.launch.ca import ensure_ca
from aesp_proxy.launch.probe.finding import Finding, Group, Level

_FREE_BYTES_MIN: Final = 256 << 20
_VOLATILE: Final = frozenset({"tmpfs", "ramfs", "overlay"})
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "vboxsf"})


def _setup(name: str, level: Level, found: str, meaning: str, remedy: str = "") -> Finding:
    return Finding(
        group=Group.SETUP, name=name, level=level, found=found, meaning=meaning, remedy=remedy
    )


def state_finding(path: Path, *, mounts: Path = Path("/proc/self/mounts")) -> Finding:
    """Say whether the record can be kept in ``path``, which need not exist."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    if problem := _refused(path, existing):
        return _setup(
            "state directory", Level.MISSING, f"{path}: {problem}", "`run` refuses to start",
            "give --state DIR, or set state_dir",
        )  # fmt: skip
    numbers = os.statvfs(existing)
    free = numbers.f_bavail * numbers.f_frsize
    kind = file_system_of(existing.resolve(), mounts.read_text("utf-8", "replace"))
    there = f"mode {stat.S_IMODE(path.stat().st_mode):04o}" if path.exists() else "made when used"
    found = f"{path}: {there}, {kind}, {free >> 20} MiB free"
    if free < _FREE_BYTES_MIN:
        return _setup(
            "state directory", Level.WEAKER, found,
            "when the record cannot be written nothing passes", "make room",
        )  # fmt: skip
    if kind in _VOLATILE | _REMOTE:
        return _setup(
            "state directory", Level.WEAKER, found,
            "the record may not survive a restart" if kind in _VOLATILE
            else "a record that is called durable is so only as the server says",
            "put it on a local disk",
        )  # fmt: skip
    return _setup("state directory", Level.OK, found, "the record can be kept")


def _refused(path: Path, existing: Path) -> str:
    if not existing.is_dir():
        return f"{existing} is not a directory"
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        return f"{existing} cannot be written"
    if existing == path and path.stat().st_uid != os.geteuid():
        return "it is another user's"
    return ""


def file_system_of(path: Path, mounts: str) -> str:
    r"""Return the type of the file system that holds ``path``; ``mounts`` as in proc(5).

    >>> file_system_of(Path("/home/a"), "x / ext4 rw 0 0\ny /home nfs4 rw 0 0")
    'nfs4'
    """
    found, longest = "unknown", -1
    for row in mounts.splitlines():
        words = row.split()
        if len(words) < 3:
            continue
        place = Path(words[1].replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= longest:
            found, longest = words[2], len(place.parts)
    return found


def ca_finding(directory: Path, *, now: datetime) -> Finding:
    """Say whether the host CA can be used; one that is not there is not made."""
    combined = directory / "mitmproxy-ca.pem"
    if not combined.exists():
        return _setup("host CA", Level.OK, "none yet", "the first `run` makes one")
    try:
        ca = ensure_ca(directory, now=now)
        mode = stat.S_IMODE(ca.combined.stat().st_mode)
    except ConfigError as error:
        return _setup(
            "host CA", Level.MISSING, error.message, "`run` refuses to start", error.remedy or ""
        )
    return _setup("host CA", Level.OK, f"{combined}, mode {mode:04o}", "clients can be answered")

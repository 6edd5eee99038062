"""Whether opens of files by agents that run already can be decided here, or only observed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.fanotify.handles import Mount, places_below
from aesp_proxy.intercept.fanotify.marks import Groups, make_groups
from aesp_proxy.intercept.file_port import GUARANTEES
from aesp_proxy.launch.probe.finding import Finding, Group, Level

_MOUNTS: Final = Path("/proc/self/mountinfo")
_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")
_WATCHES_MIN: Final = 65_536
# Number of the first process namespace (include/linux/proc_ns.h).
_FIRST_PROCESSES: Final = "pid:[4026531836]"


def file_findings(trees: tuple[str, ...], *, named: bool) -> Iterator[Finding]:
    """Try to make groups, which ask for nothing; ``named`` is whether somebody is watched.

    ``trees`` are the directories of the settings.
    """
    groups, why = _groups()
    lacking = Level.MISSING if named else Level.UNUSED
    if groups is None:
        yield _files(
            "watch (fanotify)", lacking, why, "`daemon` refuses to watch users",
            "start it, or aesp-proxy-files.service, as root or with CAP_SYS_ADMIN",
        )  # fmt: skip
    else:
        groups.close()
        yield _files("watch (fanotify)", Level.OK, "can be asked", GUARANTEES["fanotify"])
        yield from _trees(trees)
        yield _processes(named=named)
    yield _observed()


def _groups() -> tuple[Groups | None, str]:
    try:
        return make_groups(), ""
    except UnavailableError as error:
        return None, error.message


def _trees(trees: tuple[str, ...]) -> Iterator[Finding]:
    """Say of which file systems the objects can be told by handles: without, all is refused."""
    for place in places_below(trees, _MOUNTS.read_text("utf-8", "replace")):
        try:
            with Mount(place):
                continue
        except OSError as error:
            yield _files(
                f"file system {place}", Level.MISSING, error.strerror or str(error),
                "who is watched opens nothing on it: where a file is cannot be found out",
                "name trees on another file system in files.watch.trees",
            )  # fmt: skip


def _processes(*, named: bool) -> Finding:
    own = str(Path("/proc/self/ns/pid").readlink())
    if own == _FIRST_PROCESSES:
        return _files("processes", Level.OK, "all of the host", "each is told by user and cgroup")
    return _files(
        "processes", Level.WEAKER if named else Level.UNUSED, "those of this namespace",
        "others that open files here are taken for watched ones", "run it on the host itself",
    )  # fmt: skip


def _observed() -> Finding:
    try:
        watches = int(_WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        watches = 0
    name, found = "observe (inotify)", f"{watches} directories may be watched"
    if watches >= _WATCHES_MIN:
        return _files(name, Level.OK, found, GUARANTEES["observe"])
    return _files(
        name, Level.UNUSED, found, "a larger tree is refused", "raise fs.inotify.max_user_watches"
    )


def _files(name: str, level: Level, found: str, meaning: str, remedy: str = "") -> Finding:
    return Finding(
        group=Group.FILES, name=name, level=level, found=found, meaning=meaning, remedy=remedy
    )

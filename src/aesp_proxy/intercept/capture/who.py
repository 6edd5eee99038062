"""Whom an operator named: users, groups and cgroups, found out on this machine.

A user is also the ids that newuidmap(1) would let them take (subuid(5)): with those a
program is another user to the kernel, in the same network. A group is its members, as a
member may leave it by sg(1), and whatever runs with its id.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.capture.ruleset import UID_MAX, Cgroup, Selection

_SUBUID: Final = Path("/etc/subuid")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Names as the operator wrote them; numbers are ids."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.users or self.groups or self.cgroups)


def found(
    named: Named, *, proxy_uid: int, subuid: Path = _SUBUID, where: str = "capture"
) -> Selection:
    """Return who is meant; ConfigError for who is not known, or must not be meant.

    ``proxy_uid`` is the user of the proxy itself, whose own way must stay open. ``where``
    is the group of settings that names them.
    """
    gids = tuple(_gid(each, where) for each in named.groups)
    uids = {_uid(each, where) for each in named.users}
    for gid, name in zip(gids, named.groups, strict=True):
        members = _members(gid)
        _refuse_own(members, proxy_uid, f"group {name}")
        # Root is a member of groups that it does not belong to in any sense that counts.
        uids |= members - {0}
    _refuse_own(uids, proxy_uid, f"{where}.users")
    if 0 in uids or 0 in gids:
        raise ConfigError("root cannot be captured or watched: it can end that",
                          where=where, remedy="run the agent as an ordinary user")  # fmt: skip
    ranges = {(uid, uid) for uid in uids} | set(_subordinate(uids, subuid))
    cgroups = tuple(_cgroup(each, where) for each in named.cgroups)
    return Selection(uids=_merged(ranges), gids=tuple(sorted(set(gids))), cgroups=cgroups)


def _uid(name: str, where: str) -> int:
    if name.isascii() and name.isdecimal() and int(name) <= UID_MAX:
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError) as error:
        raise ConfigError("no such user", where=f"{where}.users: {name}") from error


def _gid(name: str, where: str) -> int:
    if name.isascii() and name.isdecimal() and int(name) <= UID_MAX:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError) as error:
        raise ConfigError("no such group", where=f"{where}.groups: {name}") from error


def _members(gid: int) -> set[int]:
    """Return the users of a group, by their entry or by the group's."""
    primary = {each.pw_uid for each in pwd.getpwall() if each.pw_gid == gid}
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        return primary
    return primary | set(_known(names))


def _known(names: Iterable[str]) -> Iterator[int]:
    for name in names:
        try:
            yield pwd.getpwnam(name).pw_uid
        except KeyError:
            continue  # a name that nobody has any more


def _refuse_own(uids: set[int], proxy_uid: int, where: str) -> None:
    if proxy_uid and proxy_uid in uids:
        raise ConfigError(
            f"the proxy's own user (id {proxy_uid}) would be captured or watched",
            where=where,
            remedy="give the proxy a user of its own",
        )


def _subordinate(uids: set[int], path: Path) -> Iterator[tuple[int, int]]:
    """Yield the ranges of subuid(5) of these users."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    names = {str(uid) for uid in uids} | set(_names(uids))
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in names and first.isdecimal() and count.isdecimal() and int(count):
            yield int(first), min(int(first) + int(count) - 1, UID_MAX)


def _names(uids: set[int]) -> Iterator[str]:
    for uid in uids:
        try:
            yield pwd.getpwuid(uid).pw_name
        except KeyError:
            continue


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the same ids in as few ranges as there can be, in order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


# cgroups --------------------------------------------------------------------------------


def _cgroup(name: str, settings: str) -> Cgroup:
    where, path = f"{settings}.cgroups: {name}", name.strip("/")
    parts = path.split("/")
    if not path or {"", ".", ".."} & set(parts):
        raise ConfigError("not the path of a cgroup below the root", where=where)
    root = cgroup_root(_MOUNTS.read_text("utf-8", "replace"))
    if root is None:
        raise ConfigError("cgroup version 2 is not mounted here", where=where)
    if _is_inside(path, _OWN_CGROUP.read_text("utf-8", "replace")):
        raise ConfigError(
            "the proxy itself runs in it, and would be captured or watched",
            where=where,
            remedy="name a cgroup that holds agents alone",
        )
    try:
        # The number of a cgroup, for the kernel, is that of its directory.
        return Cgroup(path, (root / path).stat().st_ino)
    except OSError as error:
        raise ConfigError(
            f"no such cgroup: {error.strerror}",
            where=where,
            remedy=f"make it before, below {root}; under systemd a slice that stays",
        ) from error


def cgroup_directories(named: Named) -> list[Path]:
    """Return the directories in which the cgroups that are named stand, or would."""
    root = cgroup_root(_MOUNTS.read_text("utf-8", "replace"))
    return [(root / each.strip("/")).parent for each in named.cgroups] if root else []


def cgroup_root(mounts: str) -> Path | None:
    """Return where cgroup version 2 is mounted; ``mounts`` as proc_pid_mountinfo(5) has them.

    >>> cgroup_root("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw")
    PosixPath('/sys/fs/cgroup')
    """
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split()
        if after.startswith("cgroup2 ") and len(words) > 4:
            return Path(words[4].replace("\\040", " "))
    return None


def _is_inside(path: str, own: str) -> bool:
    """Whether this process is in a cgroup, as proc_pid_cgroup(5) says."""
    lines = [line.removeprefix("0::/") for line in own.splitlines() if line.startswith("0::/")]
    return any(Path(line).is_relative_to(path) for line in lines)

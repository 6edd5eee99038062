"""Who opens a file, and what for: asked of proc(5) while the kernel holds the opener.

As long as it waits for our answer its id is its own. The owner of ``/proc/ID`` is the
effective user, for every process, readable or not (fs/proc/base.c, task_dump_owner), at
a tenth of the price of its status file.
"""

from __future__ import annotations

import os
import platform
from enum import Enum
from typing import Any, Final

from aesp_proxy.intercept.capture.ruleset import Cgroup, Selection
from aesp_proxy.intercept.file_port import Actor

_REMEMBERED_MAX: Final = 4_096


class Gone(Exception):  # noqa: N818 - no error: whoever asked has been killed meanwhile
    """The process is there no more."""


class Intent(Enum):
    """What an opener is going to do; ``UNKNOWN`` may be anything."""

    READ = "read"
    WRITE = "write"
    BOTH = "both"
    EXECUTE = "execute"
    UNKNOWN = "unknown"


class Watched:
    """Tells the watched from all others, as they were found out last (``take``)."""

    def __init__(self, chosen: Selection) -> None:
        self._seen: dict[int, Actor] = {}
        self.take(chosen)

    def take(self, chosen: Selection) -> None:
        """Have these be the watched from now on."""
        self._ranges, self._groups = chosen.uids, frozenset(chosen.gids)
        self._cgroups = tuple(f"/{each.path.strip('/')}/" for each in chosen.cgroups)

    def is_user(self, uid: int) -> bool:
        """Whether a user is watched by itself."""
        return any(first <= uid <= last for first, last in self._ranges)

    def actor(self, thread: int) -> Actor | None:
        """Return who is watched, None for anybody else; Gone when it has ended.

        What we cannot see (0: in another process namespace) may be watched, and is.
        """
        if not thread:
            return Actor()
        try:
            status = os.stat(f"/proc/{thread}")
            uid = status.st_uid
            if not (
                self.is_user(uid)
                or status.st_gid in self._groups
                or (self._cgroups and self._is_inside(thread))
            ):
                return None
        except OSError as error:
            raise Gone from error
        actor = Actor(pid=thread, uid=uid)
        if len(self._seen) >= _REMEMBERED_MAX:
            self._seen.clear()
        self._seen[thread] = actor
        return actor

    def actor_of_past(self, pid: int, owner: int | None) -> Actor | None:
        """Return who did what is told of afterwards; None for who is not watched.

        One that has ended since is known by what it opened before, else by who owns what
        it made (None: unknown, and then it may have been anybody).
        """
        try:
            return self.actor(pid)
        except Gone:
            if pid in self._seen:
                return self._seen[pid]
            return Actor(pid=pid, uid=owner) if owner is None or self.is_user(owner) else None

    def _is_inside(self, thread: int) -> bool:
        with open(f"/proc/{thread}/cgroup", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        own = (f"{line[3:]}/" for line in lines if line.startswith("0::/"))
        return any(path.startswith(self._cgroups) for path in own)


def selection_word(chosen: Selection) -> dict[str, object]:
    """Return a selection as JSON has it."""
    return {"uids": chosen.uids, "gids": chosen.gids, "cgroups": chosen.cgroups}


def read_selection(word: dict[str, Any]) -> Selection:
    """Read what ``selection_word`` made."""
    return Selection(
        uids=tuple((first, last) for first, last in word["uids"]),
        gids=tuple(word["gids"]),
        cgroups=tuple(Cgroup(*each) for each in word["cgroups"]),
    )


# what for --------------------------------------------------------------------------------

# Number of the call: which argument holds the flags, -1 for creat(2).
_OPENS: Final = {
    "x86_64": {2: 1, 257: 2, 85: -1},
    "aarch64": {56: 2},
}.get(platform.machine(), {})
_EXECUTES: Final = {"x86_64": {59, 322}, "aarch64": {221, 281}}.get(platform.machine(), set())


def intent_of(thread: int) -> Intent:
    """Return what a waiting thread opens a file for, by its system call.

    UNKNOWN where it may not be asked (CAP_SYS_PTRACE), and for calls whose flags lie in
    memory that others may change (openat2, io_uring) or that are another architecture's.
    """
    try:
        with open(f"/proc/{thread}/syscall", "rb", buffering=0) as file:
            return read_intent(file.read(256))
    except OSError:
        return Intent.UNKNOWN


def read_intent(line: bytes) -> Intent:
    """Read a line of proc_pid_syscall(5).

    >>> read_intent(b"running")
    <Intent.UNKNOWN: 'unknown'>
    """
    words = line.split()
    if len(words) < 7 or not words[0].isdigit():
        return Intent.UNKNOWN
    number = int(words[0])
    if number in _EXECUTES:
        return Intent.EXECUTE
    at = _OPENS.get(number)
    if at is None:
        return Intent.UNKNOWN
    try:
        flags = os.O_WRONLY if at < 0 else int(words[1 + at], 16)
    except ValueError:
        return Intent.UNKNOWN
    by_mode = {os.O_RDONLY: Intent.READ, os.O_WRONLY: Intent.WRITE, os.O_RDWR: Intent.BOTH}
    intent = by_mode.get(flags & os.O_ACCMODE, Intent.UNKNOWN)
    return Intent.BOTH if intent is Intent.READ and flags & os.O_TRUNC else intent

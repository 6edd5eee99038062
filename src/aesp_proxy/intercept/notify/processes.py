"""Files of processes: whose ``/proc`` entries an agent may have opened for it.

The supervisor would open them with its own rights, and be another process than the one
that asks: ``self`` would be the supervisor. So names under a process are looked up by hand
(``walk``), and this says which process is the agent's own. Of all others, and of the init
that the agent runs below, only what anybody may read (proc(5)) is opened.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aesp_proxy.intercept.notify.kernel import kind_of_file_system

_PROC_SUPER_MAGIC: Final = 0x9FA0  # linux/magic.h
ROOT_INODE: Final = 1  # of every procfs: linux/proc_ns.h
_PUBLIC: Final = frozenset(
    {"", "task", "stat", "statm", "status", "cmdline", "comm", "cgroup", "oom_score", "loginuid",
     "sessionid", "limits", "net", "attr"}
)  # fmt: skip
_STATUS_BYTES_MAX: Final = 65_536
_ANCESTORS_MAX: Final = 4096
_TERMINAL_AT: Final = 4  # tty_nr of proc_pid_stat(5), counted after the name


def fields_of(thread: int) -> dict[str, str]:
    """Return what ``/proc/THREAD/status`` says; OSError when it is gone."""
    status = os.open(f"/proc/{thread}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(status, _STATUS_BYTES_MAX).decode("ascii", "replace")
    finally:
        os.close(status)
    # The name in it may hold anything but a new line.
    pairs = (line.partition(":\t") for line in text.split("\n"))
    return {name: value for name, _, value in pairs}


def terminal_of(thread: int) -> int:
    """Return the device number of a process's controlling terminal, 0 without one."""
    with open(f"/proc/{thread}/stat", "rb") as file:  # noqa: PTH123
        fields = file.read().rpartition(b")")[2].split()
    packed = int(fields[_TERMINAL_AT])
    # The kernel's own packing of it (new_encode_dev): not that of os.major.
    return os.makedev((packed >> 8) & 0xFFF, (packed & 0xFF) | ((packed >> 12) & 0xFFF00))


def umask_of(thread: int) -> int:
    """Return the file mode creation mask of a process."""
    return int(fields_of(thread)["Umask"], 8)


@contextmanager
def mask_of(thread: int) -> Iterator[None]:
    """Make files as a process would: with its mask for modes, and ours again after."""
    before = os.umask(umask_of(thread))
    try:
        yield
    finally:
        os.umask(before)


class Processes:
    """The processes of one agent, as the first thread of it that asked shows them.

    A procfs numbers processes as the namespace does that it was mounted in: the agent's own,
    where there is one, as the agent does; ours, which it sees where it could mount none, as
    we do. Of any other nothing is known, and only what is public is opened.
    """

    def __init__(self, thread: int) -> None:
        self._init = int(fields_of(thread)["PPid"])
        ours, theirs = (os.stat(f"/proc/{each}/ns/pid").st_ino for each in ("self", thread))  # noqa: PTH116
        self._ours = os.stat("/proc").st_dev  # noqa: PTH116
        seen = os.stat(f"/proc/{thread}/root/proc").st_dev  # noqa: PTH116
        self._own = seen if seen != self._ours and ours != theirs else -1
        self._known: dict[int, bool] = {}

    def has(self, held: int, device: int) -> bool:
        """Tell whether what is held, on this device, is of a procfs."""
        known = self._known.get(device)
        if known is None:
            known = self._known[device] = kind_of_file_system(held) == _PROC_SUPER_MAGIC
        return known

    def words_for(self, name: bytes, thread: int, device: int) -> bytes:
        """Return where ``self`` or ``thread-self`` of a procfs leads for a thread."""
        fields = fields_of(thread)
        column = -1 if device == self._own else 0
        group, own = (fields[each].split()[column].encode() for each in ("NStgid", "NSpid"))
        return group if name == b"self" else group + b"/task/" + own

    def refuse_foreign(self, path: str, device: int) -> None:
        """Raise PermissionError unless a path in a procfs is the agent's, or is public.

        ``path`` is the resolved one, the procfs anywhere in it.
        """
        number, rest = _process_of(path)
        if number and rest.split("/")[-1] not in _PUBLIC and not self._is_own(number, device):
            raise PermissionError(errno.EACCES, "a file of another's process")

    def is_link_of_process(self, path: str) -> bool:
        """Tell whether a link in a procfs jumps to an object: it lies under a process."""
        return _process_of(path)[0] != 0

    def _is_own(self, number: int, device: int) -> bool:
        if device == self._own:
            return number != 1
        if device != self._ours:
            return False
        seen = number
        for _ in range(_ANCESTORS_MAX):
            try:
                seen = int(fields_of(seen)["PPid"])
            except (OSError, KeyError, ValueError):
                return False
            if seen == self._init:
                return True
            if seen <= 1:
                return False
        return False


def _process_of(path: str) -> tuple[int, str]:
    """Return the process that a path in a procfs is of, 0 for none, and what is below it.

    One that is mounted elsewhere than it should be may begin anywhere in the path.
    """
    words = path.split("/")
    usual = words[:2] == ["", "proc"]
    for place in (2,) if usual else range(len(words)):
        if words[place : place + 1] and words[place].isdecimal():
            return int(words[place]), "/".join(words[place + 1 :])
    return 0, ""

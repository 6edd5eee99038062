"""Leave the host's namespaces, one after the other, and keep the user's own ids.

namespaces(7), user_namespaces(7). The process that leaves stays the very one that sets
everything up, without an exec in between: so it has all capabilities in its new user
namespace whatever its ids are, and the agent can keep the ids that it has outside.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import Final

from aesp_proxy.launch.isolation.layers import Layer

_FLAGS: Final = {
    Layer.USER: os.CLONE_NEWUSER,
    Layer.NETWORK: os.CLONE_NEWNET,
    Layer.MOUNTS: os.CLONE_NEWNS,
    Layer.PROCESSES: os.CLONE_NEWPID,
    Layer.IPC: os.CLONE_NEWIPC,
    Layer.HOSTNAME: os.CLONE_NEWUTS,
}


def leave(wanted: Collection[Layer]) -> dict[Layer, int]:
    """Unshare what is wanted, each by itself; return 0 or the errno of each.

    After the user namespace nothing is mapped yet; the other calls do not need it.
    """
    outcomes = {}
    for layer, flag in _FLAGS.items():
        if layer in wanted:
            outcomes[layer] = attempt(flag)
    return outcomes


def attempt(flag: int) -> int:
    """Unshare; return 0 or the errno."""
    try:
        os.unshare(flag)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def map_ids(pid: int) -> int:
    """Give the ids of ``pid``'s new user namespace the meaning that they have here.

    From outside: root maps all that this namespace knows, an ordinary user (and a root
    without CAP_SETUID) the own id only, for which setgroups(2) must be given up. Returns
    0 or the errno.
    """
    if os.geteuid() == 0 and _written(pid, uid_map=_identity("uid_map")) == 0:
        return _written(pid, gid_map=_identity("gid_map"))
    return _written(
        pid,
        setgroups="deny",
        uid_map=f"{os.geteuid()} {os.geteuid()} 1",
        gid_map=f"{os.getegid()} {os.getegid()} 1",
    )


def _written(pid: int, **texts: str) -> int:
    """Write files of ``pid`` under /proc; return 0 or the errno of the first that failed."""
    try:
        for name, text in texts.items():
            _write(pid, name, text)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _identity(kind: str) -> str:
    """Return the map that says of every id known here that it is itself."""
    with open(f"/proc/self/{kind}", encoding="ascii") as file:  # noqa: PTH123
        rows = [row.split() for row in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in rows)


def _write(pid: int, name: str, text: str) -> None:
    # One write: the kernel takes a map whole.
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)

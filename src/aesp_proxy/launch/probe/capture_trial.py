"""Make the packet rules of a capture in a network of our own, to see whether the kernel has them.

Run as a process of its own, ``python -I -m aesp_proxy.launch.probe.capture_trial CGROUP``,
which leaves for a new network namespace (and user namespace, unless it is root) that ends
with it. Prints two numbers: the errno with which rules for users failed, and the one for
cgroups, 0 for none. ``CGROUP`` is the number of any cgroup of version 2, 0 without.
"""

from __future__ import annotations

import errno
import os
import sys

from aesp_proxy.intercept.capture import tables
from aesp_proxy.intercept.capture.ruleset import Cgroup, Selection, Ways, capturing

_USER = 65_533


def main() -> None:
    """Try, and say how it went."""
    cgroup = int(sys.argv[1])
    try:
        os.unshare(os.CLONE_NEWNET | (os.CLONE_NEWUSER if os.geteuid() else 0))
    except OSError as error:
        print(error.errno, error.errno)  # noqa: T201 - the answer
        return
    of_users = _made(Selection(uids=((_USER, _USER),), gids=(_USER,)))
    of_cgroups = _made(Selection(cgroups=(Cgroup("a", cgroup),))) if cgroup else errno.ENOENT
    print(of_users, of_cgroups)  # noqa: T201 - the answer


def _made(selection: Selection) -> int:
    table = capturing(selection, Ways())
    try:
        tables.replace(table)
        return errno.EIO if tables.differences(table) else 0
    except OSError as error:
        return error.errno or errno.EIO


if __name__ == "__main__":
    main()

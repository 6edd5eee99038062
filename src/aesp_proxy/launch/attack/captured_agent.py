"""Attack from the place of a captured user: the program that ``doctor --attack --user`` starts.

A script of its own, ``python -I -S captured_agent.py HOLDER UID GID``, as root, with the
plan on standard input. It enters the network that the process HOLDER is in, becomes the
user for good, and tries what the plan asks for. All is imported before: the user need not
be able to read Python's own files.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # names are encoded by it, and it would be imported as the user
import json
import os
import signal
import sys

if __name__ == "__main__":
    # Isolated as it starts, it finds Python's own modules and, after them, ours.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))  # noqa: PTH120

from aesp_proxy.launch.attack import agent
from aesp_proxy.launch.attack.plan import Plan

encodings.idna  # noqa: B018
_PR_SET_PDEATHSIG = 1


def become(uid: int, gid: int) -> None:
    """Be a user, in its own group alone, and nothing else any more; end with the parent."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> int:
    """Enter, become the user, and try."""
    holder, uid, gid = map(int, sys.argv[1:4])
    plan = Plan(**json.load(sys.stdin))
    network = os.open(f"/proc/{holder}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    os.setns(network, os.CLONE_NEWNET)
    os.close(network)
    become(uid, gid)
    agent.tell(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())

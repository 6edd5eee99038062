"""Run a program in a network that another process holds, as a user, with a resolver's name.

``in_network.py HOLDER UID RESOLVER PROGRAM ARGUMENT ...``, as root. Files are the machine's
but for /etc/resolv.conf, in a mount namespace of the program's own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path

import other_user

from aesp_proxy.launch.isolation import kernel, mounts


def main() -> None:
    """Enter, become the user, and execute the program, which ends when its parent does."""
    holder, uid, resolver, *command = sys.argv[1:]
    network = os.open(f"/proc/{holder}/ns/net", os.O_RDONLY)
    os.setns(network, os.CLONE_NEWNET)
    os.unshare(os.CLONE_NEWNS)
    mounts.make_private()
    if uid != "0" or command[0].endswith("/setpriv"):
        here = Path(__file__).parents[2]
        other_user.lay_open({Path(sys.base_prefix), Path(sys.prefix), here})
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(f"nameserver {resolver}\n")
        file.flush()
        Path(file.name).chmod(0o644)
        kernel.mount(file.name, "/etc/resolv.conf", flags=kernel.MS_BIND)
    if uid != "0":
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))
    ctypes.CDLL(None).prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()

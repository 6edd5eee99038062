"""Run a program as an ordinary user who may open /dev/fuse, whatever its mode is here.

``fuse_user.py MODE PROGRAM ARGUMENT ...``, as root: a device of this mode is laid over
/dev/fuse in a mount namespace of the program's own.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

import other_user

from aesp_proxy.launch.isolation import kernel, mounts

DEVICE = os.makedev(10, 229)


def main() -> None:
    """Lay the device over, become the user, execute."""
    os.unshare(os.CLONE_NEWNS)
    mounts.make_private()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "fuse"
        os.mknod(made, stat.S_IFCHR, DEVICE)
        made.chmod(int(sys.argv.pop(1), 8))
        kernel.mount(str(made), "/dev/fuse", flags=kernel.MS_BIND)
    other_user.main()


if __name__ == "__main__":
    main()

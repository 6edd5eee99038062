"""Run a program of this environment as an ordinary user, wherever it is installed.

An interpreter under a closed home directory is laid open in a mount namespace of the
program's own, so nothing of the machine is changed.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from aesp_proxy.launch.isolation import kernel, mounts

USER = 4242


def main() -> None:
    """``other_user.py PROGRAM ARGUMENT ...``, as root: become the user and execute it."""
    os.unshare(os.CLONE_NEWNS)
    mounts.make_private()
    here = Path(__file__).parents[2]
    lay_open({Path(sys.base_prefix), Path(sys.prefix), here})
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    os.execv(sys.argv[1], sys.argv[1:])


def lay_open(paths: set[Path]) -> None:
    """Make each of the directories reachable for anybody."""
    for closed in {each for path in paths if (each := first_closed(path)) is not None}:
        inside = [path for path in paths if path.is_relative_to(closed)]
        kept = {path: tempfile.mkdtemp() for path in inside}
        for path, place in kept.items():
            kernel.mount(str(path), place, flags=kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("none", str(closed), "tmpfs", 0, "mode=755")
        for path, place in kept.items():
            path.mkdir(parents=True, exist_ok=True)
            kernel.mount(place, str(path), flags=kernel.MS_BIND | kernel.MS_REC)
            kernel.detach(place)
            Path(place).rmdir()


def first_closed(path: Path) -> Path | None:
    """Return the outermost directory on the way that others may not pass."""
    way = [*reversed(path.resolve().parents), path.resolve()]
    return next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)


if __name__ == "__main__":
    main()

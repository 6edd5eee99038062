"""Hold a mount namespace with a file system of its own, until standard input ends.

Only what is mounted here is ever marked: a mistake cannot stop the machine, and all of it
is gone with this process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from other_user import lay_open

from aesp_proxy.launch.isolation import kernel, mounts


def main() -> None:
    """``fanotify_world.py DIRECTORY``: mount a tmpfs there, say so, and wait."""
    place = sys.argv[1]
    os.unshare(os.CLONE_NEWNS)
    mounts.make_private()
    lay_open({Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]})
    kernel.mount("none", place, "tmpfs", 0, "mode=777")
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

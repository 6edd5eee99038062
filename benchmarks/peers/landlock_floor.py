"""Run a command behind Landlock alone, the floor of what guards files: landlock(7).

``landlock_floor.py TREE COMMAND...``: all rights on files below TREE and /dev, reading and
running everywhere else. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _BENEATH, _NO_NEW_PRIVS = 1, 1, 38
# LANDLOCK_ACCESS_FS_*: how many rights each version of the interface knows; executing,
# reading files and listing directories are the first, third and fourth.
_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_READING = 0b1101


def main() -> None:
    """Enter a domain and become the command."""
    tree, *command = sys.argv[1:]
    version = _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    every = (1 << _RIGHTS_OF_VERSION.get(version, 16)) - 1
    rules = _call(_CREATE_RULESET, struct.pack("=Q", every), 8, 0)
    for place, rights in (("/", _READING), ("/dev", every), (tree, every)):
        parent = os.open(place, os.O_PATH | os.O_CLOEXEC)
        _call(_ADD_RULE, rules, _BENEATH, struct.pack("=Qi", rights, parent), 0)
        os.close(parent)
    _LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call(_RESTRICT_SELF, rules, 0)
    os.execvp(command[0], command)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result = int(_LIBC.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


if __name__ == "__main__":
    main()

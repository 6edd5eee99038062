"""Run a program as in a container that refuses it something: a filter of system calls.

``without_namespaces.py NAMES PROGRAM ARGUMENT ...``: NAMES, joined by commas, are of
``unshare``, ``filter`` (no further filter may be installed), ``landlock`` and ``docker``: no
capability, and what Docker's own profile refuses who has none (mounts, namespaces by any
call, handles, io_uring, fanotify ...).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from aesp_proxy.launch.isolation import capabilities, kernel, seccomp

_PRCTL = (157, 167)
_SECCOMP = (317, 277)
_LANDLOCK_CREATE_RULESET = 444
_FANOTIFY_INIT = (300, 262)
_CHROOT = "chroot"  # Docker lets it be


def steps(names: set[str]) -> seccomp.Steps:
    architecture = seccomp.ARCHITECTURES[os.uname().machine]
    refuse = [seccomp.Step(0x06, 0, 0, seccomp.ERRNO | errno.EPERM)]
    allow = [seccomp.Step(0x06, 0, 0, seccomp.ALLOW)]
    program = [seccomp.Step(0x20, 0, 0, 0)]
    if "unshare" in names:
        program += seccomp.when(seccomp.REFUSED["unshare"][architecture.column] or 0, refuse)
    if "docker" in names:
        column = architecture.column
        program += seccomp.when(seccomp._CLONE[column] or 0, seccomp._clone_rule())
        program += seccomp.when(_FANOTIFY_INIT[column], refuse)
        for table, end in ((seccomp.REFUSED, refuse), (seccomp.ABSENT, seccomp.fail(errno.ENOSYS))):
            for name, numbers in table.items():
                if name != _CHROOT and (number := numbers[column]) is not None:
                    program += seccomp.when(number, end)
    if "landlock" in names:
        program += seccomp.when(_LANDLOCK_CREATE_RULESET, refuse)
    if "filter" in names:
        own = [seccomp.argument(0), *seccomp.when(kernel.PR_SET_SECCOMP, refuse), *allow]
        program += seccomp.when(_PRCTL[architecture.column], own)
        program += seccomp.when(_SECCOMP[architecture.column], refuse)
    if "rules" in names:
        netfilter = [seccomp.argument(2), *seccomp.when(12, refuse), *allow]
        own = [seccomp.argument(0), *seccomp.when(16, netfilter), *allow]
        program += seccomp.when(seccomp._SOCKET[architecture.column] or 0, own)
    return program + allow


def main() -> None:
    names = set(sys.argv[1].split(","))
    program = steps(names)
    if "docker" in names:
        capabilities.give_up_all()
    code = ctypes.create_string_buffer(seccomp.assemble(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.addressof(header))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

"""Give up every privilege, or all but one, for good: capabilities(7), no_new_privs, securebits."""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

from aesp_proxy.launch.isolation import kernel

_CAPABILITY_VERSION_3: Final = 0x20080522
_AMBIENT_RAISE: Final = 2
_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES_MAX: Final = 64
CAP_DAC_READ_SEARCH: Final = 2
CAP_NET_ADMIN: Final = 12
CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21
CAP_LEASE: Final = 28
# NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each locked; KEEP_CAPS locked off.
_SECUREBITS: Final = 0xEF


def give_up_all() -> None:
    """Empty all five sets and forbid that exec ever fills one; OSError if it cannot be."""
    _restrict_what_root_is()
    _set(0)
    # What ends the matter: exec gives nothing that was not permitted before it.
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def give_up_all_but(number: int) -> None:
    """Keep one capability of those that there are; PermissionError without it."""
    _restrict_what_root_is()
    _set(1 << number)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def hand_on_only(*numbers: int) -> None:
    """Keep these capabilities, here and in what is executed from here; PermissionError without.

    User id 0 means nothing more than they do, as the bounding set has no other.
    """
    for number in range(_CAPABILITIES_MAX):
        if number not in numbers:
            try:
                kernel.prctl(kernel.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EPERM):
                    raise
                break
    mask = sum(1 << number for number in numbers)
    _set(mask, inheritable=mask)
    for number in numbers:
        kernel.prctl(kernel.PR_CAP_AMBIENT, _AMBIENT_RAISE, number)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _set(mask: int, *, inheritable: int = 0) -> None:
    """Make these the permitted and the effective ones, and some of them inheritable."""
    kernel.prctl(kernel.PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=3I12x", mask, mask, inheritable)
    result = kernel.LIBC.capset(ctypes.c_char_p(header), ctypes.c_char_p(sets))
    kernel.checked(result, "capset")


def _restrict_what_root_is() -> None:
    """Empty the bounding set and take meaning from user id 0; only who may can, and must."""
    try:
        for number in range(_CAPABILITIES_MAX):
            kernel.prctl(kernel.PR_CAPBSET_DROP, number)
    except OSError as error:
        # EINVAL: past the last one. EPERM: without CAP_SETPCAP there is no more to lose.
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        if error.errno == errno.EPERM:
            return
    kernel.prctl(kernel.PR_SET_SECUREBITS, _SECUREBITS)

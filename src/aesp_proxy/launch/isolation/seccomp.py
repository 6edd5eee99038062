"""The system call filter of the agent: a BPF program, and putting it in force.

seccomp(2), bpf of ``linux/filter.h``. What is refused fails with an error that programs
expect (EPERM; ENOSYS where they fall back to an older call; EAFNOSUPPORT for a kind of
socket), so that honest ones go on. A program of another architecture is killed: its
calls have other numbers.

- Sockets: TCP and UDP over IP, and the routing netlink that ``getifaddrs`` reads. No unix
  sockets, as the filter cannot see where one leads: those of the host are files. Pairs
  stay, but not of datagrams: such a socket could still be sent to any path.
- ``ptrace`` and its like stay where the agent has its own process namespace: debuggers
  and leak checkers need them, and there is nothing foreign to see.
- The terminal's input cannot be written (TIOCSTI): it would be typed outside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from aesp_proxy.launch.isolation import kernel

# linux/filter.h
_LOAD: Final = 0x20
_AND: Final = 0x54
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
# linux/seccomp.h
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
HOLD: Final = 0x7FC00000
"""Hand the call to who holds the listener (SECCOMP_RET_USER_NOTIF): weaker than an error."""
ERRNO: Final = 0x00050000
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16
_MODE_FILTER: Final = 2
_X32_BIT: Final = 0x40000000

_SOCK_TYPE_MASK: Final = 0xF
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_NAMESPACES: Final = 0x7E020000

# (x86-64, aarch64); None where the architecture has no such call.
_Numbers = tuple[int | None, int | None]
_SOCKET: Final[_Numbers] = (41, 198)
_SOCKETPAIR: Final[_Numbers] = (53, 199)
_CLONE: Final[_Numbers] = (56, 220)
IOCTL: Final[_Numbers] = (16, 29)
REFUSED: Final[dict[str, _Numbers]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "iopl": (172, None),
    "ioperm": (173, None),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "vhangup": (153, 58),
}
# Programs that know these also know what came before them.
ABSENT: Final[dict[str, _Numbers]] = {
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
# Refused besides, where other people's processes can be seen.
REFUSED_AMONG_OTHERS: Final[dict[str, _Numbers]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
}


class Architecture(NamedTuple):
    """One architecture: its column in the tables, and its audit number."""

    column: int
    audit: int


ARCHITECTURES: Final = {
    "x86_64": Architecture(0, 0xC000003E),
    "aarch64": Architecture(1, 0xC00000B7),
}


class Step(NamedTuple):
    """One BPF instruction."""

    code: int
    when: int
    unless: int
    value: int


Steps = list[Step]


def _load(offset: int) -> Step:
    return Step(_LOAD, 0, 0, offset)


def argument(index: int) -> Step:
    """Load an argument of the call."""
    # The low half, on a little-endian machine: the kernel takes an int, and drops the rest.
    return _load(_ARGUMENTS_AT + 8 * index)


def end(action: int) -> Steps:
    """End with an action."""
    return [Step(_RETURN, 0, 0, action)]


def fail(number: int) -> Steps:
    """End with an error."""
    return end(ERRNO | number)


def when(value: int, then: Steps) -> Steps:
    """Do ``then``, which ends the program, if the accumulator is ``value``."""
    return [Step(_EQUAL, 0, len(then), value), *then]


def _socket_rule(*, datagrams: bool) -> Steps:
    protocols = (0, socket.IPPROTO_TCP, *((socket.IPPROTO_UDP,) if datagrams else ()))
    protocol = [argument(2)]
    for each in protocols:
        protocol += when(each, end(ALLOW))
    protocol += fail(errno.EPROTONOSUPPORT)
    kinds = (socket.SOCK_STREAM, *((socket.SOCK_DGRAM,) if datagrams else ()))
    internet = [argument(1), Step(_AND, 0, 0, _SOCK_TYPE_MASK)]
    for kind in kinds:
        internet += when(int(kind), protocol)
    internet += fail(errno.EPERM)
    routes = [
        argument(2),
        *when(socket.NETLINK_ROUTE, end(ALLOW)),
        *fail(errno.EPROTONOSUPPORT),
    ]
    return [
        argument(0),
        *when(int(socket.AF_INET), internet),
        *when(int(socket.AF_INET6), internet),
        *when(int(socket.AF_NETLINK), routes),
        *fail(errno.EAFNOSUPPORT),
    ]


def _socketpair_rule() -> Steps:
    kind = [argument(1), Step(_AND, 0, 0, _SOCK_TYPE_MASK)]
    for each in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        kind += when(int(each), end(ALLOW))
    kind += fail(errno.EPERM)
    return [argument(0), *when(int(socket.AF_UNIX), kind), *fail(errno.EAFNOSUPPORT)]


def _clone_rule() -> Steps:
    refuse = fail(errno.EPERM)
    return [argument(0), Step(_ANY_BIT, 0, len(refuse), _CLONE_NAMESPACES), *refuse, *end(ALLOW)]


def _ioctl_rule() -> Steps:
    refused = [*when(_TIOCSTI, fail(errno.EPERM)), *when(_TIOCLINUX, fail(errno.EPERM))]
    return [argument(1), *refused, *end(ALLOW)]


def for_architecture(architecture: Architecture) -> Steps:
    """Begin a filter for one architecture: the number of the call is then at hand."""
    steps = [_load(_ARCHITECTURE_AT), Step(_EQUAL, 1, 0, architecture.audit), *end(KILL)]
    steps.append(_load(_NUMBER_AT))
    if architecture.column == 0:
        # Calls of x32 are other names of the same ones.
        steps += [Step(_AT_LEAST, 0, 1, _X32_BIT), *fail(errno.ENOSYS)]
    return steps


def program(architecture: Architecture, *, own_network: bool, own_processes: bool) -> Steps:
    """Return the filter.

    Without a network namespace UDP is refused too; without a process namespace, what
    reaches into other processes.
    """
    column = architecture.column
    steps = for_architecture(architecture)
    judged = {
        IOCTL: _ioctl_rule(),
        _CLONE: _clone_rule(),
        _SOCKET: _socket_rule(datagrams=own_network),
        _SOCKETPAIR: _socketpair_rule(),
    }
    for numbers, rule in judged.items():
        steps += when(numbers[column] or 0, rule)
    refused = REFUSED if own_processes else REFUSED | REFUSED_AMONG_OTHERS
    for table, number in ((refused, errno.EPERM), (ABSENT, errno.ENOSYS)):
        for names in table.values():
            if (call := names[column]) is not None:
                steps += when(call, fail(number))
    return steps + end(ALLOW)


def assemble(steps: Sequence[Step]) -> bytes:
    """Return the program as the kernel reads it."""
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def enforce(*, own_network: bool, own_processes: bool) -> None:
    """Put the filter in force for this process and all it starts, for good.

    Needs no_new_privs. OSError where the kernel or the architecture has no filter.
    """
    machine = os.uname().machine
    architecture = ARCHITECTURES.get(machine)
    if architecture is None:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    steps = program(architecture, own_network=own_network, own_processes=own_processes)
    code = ctypes.create_string_buffer(assemble(steps))
    header = struct.pack("@HP", len(steps), ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header)
    kernel.prctl(kernel.PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(buffer))

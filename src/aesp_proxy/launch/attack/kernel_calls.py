"""Attempts on the machine: other processes, namespaces, mounts, odd system calls, own rules."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Final

from aesp_proxy.launch.attack.plan import CannotTryError, Plan, ProvenError
from aesp_proxy.launch.isolation import kernel

_PTRACE_ATTACH: Final = 16
_PTRACE_DETACH: Final = 17
_SYS_PIDFD_GETFD: Final = 438
_SYS_IO_URING_SETUP: Final = 425
_IO_URING_PARAMS_BYTES: Final = 120
_SYS: Final = {"x86_64": {"bpf": 321, "userfaultfd": 323}, "aarch64": {"bpf": 280,
               "userfaultfd": 282}}  # fmt: skip
_OTHER: Final = 1


def _apart(attempt: Callable[[], str]) -> str:
    """Make an attempt in a child, which may spoil itself; return or raise what it met there."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                said = f" {attempt()}"
            except ProvenError as proof:
                said = f"!{proof}"
            except OSError as error:
                said = f" {error}"
            os.write(write_end, said.encode()[:4000])
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as told:
        said = told.read().decode()
    os.waitpid(pid, 0)
    if said.startswith("!"):
        raise ProvenError(said[1:])
    return said[1:]


def _victim(plan: Plan, name: str) -> int:
    pid = plan.victims[name]
    if pid in (os.getpid(), os.getppid(), 1):
        raise CannotTryError("inside, the same process id is another process")
    return pid


def environments(_plan: Plan, token: str) -> str:
    """Look for a mark in the environments of all processes that can be seen."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib, to start fast
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
            before, mark, after = file.read().partition(token.encode())
            if mark:
                raise ProvenError((mark + after).partition(b"\0")[0].decode())
            del before
    return "no process outside can be seen"


def signalled(plan: Plan, _token: str) -> str:
    """End a process outside."""
    os.kill(_victim(plan, "signal"), signal.SIGKILL)
    return "signalled"


def traced(plan: Plan, _token: str) -> str:
    """Attach to a process outside and have it killed."""
    pid = _victim(plan, "ptrace")

    def attach() -> str:
        call = kernel.LIBC.ptrace
        call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        kernel.checked(call(_PTRACE_ATTACH, pid, None, None), "ptrace")
        os.waitpid(pid, 0)
        call(_PTRACE_DETACH, pid, None, int(signal.SIGKILL))
        return "attached"

    return _apart(attach)


def stolen_descriptor(plan: Plan, token: str) -> str:
    """Take a connected socket out of a process outside."""
    pidfd = os.pidfd_open(_victim(plan, "stolen-descriptor"))
    stolen = kernel.syscall(_SYS_PIDFD_GETFD, pidfd, plan.held, 0)
    os.write(stolen, token.encode())
    return "taken"


def other_network(plan: Plan, token: str) -> str:
    """Enter the network namespace of a process outside, and connect from there."""
    pid = _victim(plan, "other-network")

    def enter() -> str:
        with open(f"/proc/{pid}/ns/net", "rb") as file:  # noqa: PTH123
            os.setns(file.fileno(), os.CLONE_NEWNET)
        with socket.create_connection(("127.0.0.1", plan.tcp_ports[0]), 2) as sock:
            sock.sendall(token.encode())
        return "entered"

    return _apart(enter)


def own_namespaces(_plan: Plan, _token: str) -> str:
    """Make a user namespace, and be its root."""

    def leave() -> str:
        before = os.readlink("/proc/self/ns/user")  # noqa: PTH115
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
        after = os.readlink("/proc/self/ns/user")  # noqa: PTH115
        raise ProvenError(f"left {before} for {after}")

    return _apart(leave)


def mounted(_plan: Plan, _token: str) -> str:
    """Mount over a folder."""

    def cover() -> str:
        kernel.mount("none", "/proc/self/fdinfo", "tmpfs")
        kernel.detach("/proc/self/fdinfo")
        raise ProvenError("mounted a file system")

    return _apart(cover)


def privileges(_plan: Plan, _token: str) -> str:
    """Look for capabilities, and for leave to get some by exec."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        rows = {name: value.strip() for name, _, value in (row.partition(":") for row in file)}
    held = {name: rows[name] for name in ("CapEff", "CapPrm", "CapAmb") if int(rows[name], 16)}
    if held or rows.get("NoNewPrivs") != "1":
        told = " ".join(f"{name}={value}" for name, value in held.items())
        raise ProvenError(f"{told} NoNewPrivs={rows.get('NoNewPrivs')}".strip())
    return "none, and none to get"


def io_uring(_plan: Plan, _token: str) -> str:
    """Make a ring, whose operations no filter of system calls sees."""
    parameters = bytes(_IO_URING_PARAMS_BYTES)
    os.close(kernel.syscall(_SYS_IO_URING_SETUP, 1, parameters))
    raise ProvenError("made a ring")


def odd_calls(_plan: Plan, _token: str) -> str:
    """Load a program into the kernel, and take page faults over."""
    numbers = _SYS.get(os.uname().machine)
    if numbers is None:
        raise CannotTryError("the numbers of the calls are not known for this architecture")
    said = []
    for name, arguments in (("bpf", (0, struct.pack("=IIII", 1, 4, 4, _OTHER) + bytes(104), 120)),
                            ("userfaultfd", (os.O_CLOEXEC | _OTHER,))):  # fmt: skip
        try:
            os.close(kernel.syscall(numbers[name], *arguments))
        except OSError as error:
            said.append(f"{name}: {os.strerror(error.errno or 0)}")
        else:
            raise ProvenError(f"{name} is open")
    return "; ".join(said)


def write_policy(plan: Plan, token: str) -> str:
    """Add a line to the policy in force."""
    with open(plan.policy, "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"\n# {token}\n")
    return "written"


def read_ca_key(plan: Plan, _token: str) -> str:
    """Read the key of the host CA, with which certificates for anybody can be made."""
    with open(plan.ca_key, "rb") as file:  # noqa: PTH123
        raise ProvenError(f"read: SHA-256 {hashlib.sha256(file.read()).hexdigest()}")


ATTEMPTS: Final = {
    "proc-environ": environments,
    "signal": signalled,
    "ptrace": traced,
    "stolen-descriptor": stolen_descriptor,
    "other-network": other_network,
    "own-namespaces": own_namespaces,
    "mount": mounted,
    "privileges": privileges,
    "io-uring": io_uring,
    "odd-calls": odd_calls,
    "write-policy": write_policy,
    "read-ca-key": read_ca_key,
}

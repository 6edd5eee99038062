"""The agent's view of the file system: its own /proc, kernel settings read-only, its resolver.

Everything else is the host's, as it is: what may be read and written is another layer.
"""

from __future__ import annotations

import os
from typing import Final

from aesp_proxy.launch.isolation import kernel

_RESOLV_CONF: Final = "/etc/resolv.conf"
_PROC_FLAGS: Final = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
# Root writes these without a capability, and they govern the whole machine.
_KERNEL_FILES: Final = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_KEPT: Final = ("search", "domain", "options", "sortlist")
_BYTES_MAX: Final = 65536


def make_private() -> None:
    """Keep what is mounted from here on to this namespace."""
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)


def resolver_text(before: str) -> str:
    """Return a resolv.conf(5) that keeps search domains and options, and asks us."""
    kept = [line for line in before.splitlines() if line.split()[:1] and line.split()[0] in _KEPT]
    return "\n".join(["nameserver 127.0.0.1", *kept, ""])


def own_resolver() -> None:
    """Lay a file of ours over /etc/resolv.conf; without that file libc asks loopback anyway."""
    try:
        with open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            before = file.read(_BYTES_MAX)
    except FileNotFoundError:
        return
    # /proc is a place that is there, and about to be covered again.
    kernel.mount("aesp-proxy", "/proc", "tmpfs", _PROC_FLAGS, "mode=755,size=64k")
    try:
        with open("/proc/resolv.conf", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(resolver_text(before))
            os.fchmod(file.fileno(), 0o444)
        kernel.mount("/proc/resolv.conf", _RESOLV_CONF, flags=kernel.MS_BIND)
        kernel.make_read_only(_RESOLV_CONF)
    finally:
        kernel.detach("/proc")


def own_proc() -> None:
    """Show the processes of this namespace, and no others, under /proc: proc(5)."""
    kernel.mount("proc", "/proc", "proc", _PROC_FLAGS)


def protect_kernel_files() -> None:
    """Make the kernel's settings read-only where the user id alone would open them."""
    if os.geteuid() != 0:
        return
    for path in _KERNEL_FILES:
        if os.path.exists(path):  # noqa: PTH110 - no Path, to start fast
            kernel.mount(path, path, flags=kernel.MS_BIND | kernel.MS_REC)
            kernel.make_read_only(path)
    if os.path.ismount("/sys"):
        kernel.make_read_only("/sys")

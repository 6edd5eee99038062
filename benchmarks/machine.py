"""What the kernel says about processes and about the machine, read from ``/proc``.

CPU time is the sum over every thread of a process tree of ``schedstat`` (ns), so
it does not depend on who else had the cores; the price is that threads and
processes that ended in between are not counted.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """Return the process and all its living descendants."""
    found = [pid]
    for parent in found:
        for thread in _entries(PROC / str(parent) / "task"):
            children = _read(PROC / str(parent) / "task" / thread / "children")
            found += [int(child) for child in children.split()]
    return found


def cpu_ns(pids: list[int]) -> int:
    """Return the nanoseconds of CPU that these processes have used so far."""
    total = 0
    for pid in pids:
        for thread in _entries(PROC / str(pid) / "task"):
            text = _read(PROC / str(pid) / "task" / thread / "schedstat")
            total += int(text.split()[0]) if text else 0
    return total


def rss_bytes(pid: int) -> int:
    """Return resident bytes now, 0 for a process that is gone (VmRSS, proc_pid_status(5))."""
    return _status_kib(pid, "VmRSS:") * 1024


def peak_rss_bytes(pid: int) -> int:
    """Return the most resident bytes since the start or since :func:`forget_peak` (VmHWM)."""
    return _status_kib(pid, "VmHWM:") * 1024


def forget_peak(pid: int) -> None:
    """Set VmHWM back to what is resident now (proc_pid_clear_refs(5), value 5)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def command_line(pid: int) -> str:
    """Return the command line of a process, empty when it is gone."""
    return _read(PROC / str(pid) / "cmdline").replace("\0", " ").strip()


def facts() -> dict[str, object]:
    """Return what a reader must know about this machine to judge the figures."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "load_1m": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in _read(PROC / "cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _status_kib(pid: int, name: str) -> int:
    for line in _read(PROC / str(pid) / "status").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  -- names only, many times a second
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

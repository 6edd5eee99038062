"""What the machine offers, each asked for real: kernel, clock, limits, later features."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aesp_proxy.decide.secrets.compiled import MARKS, RUNS
from aesp_proxy.launch.isolation import kernel
from aesp_proxy.launch.probe.finding import Finding, Group, Level

_KERNEL_MIN: Final = (5, 12)  # mount_setattr(2)
_ARCHITECTURES: Final = ("x86_64", "aarch64")
_FDS_EACH: Final = 2  # a client's connection and the one upstream
_FDS_SPARE: Final = 256
_EARLIEST_S: Final = 1_735_689_600  # 2025-01-01: an earlier clock was never set
_TIME_ERROR: Final = 5  # adjtimex(2)
_TIMEX_BYTES: Final = 512
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_VERSION: Final = 1
_LANDLOCK_SCOPES: Final = 6


def machine_findings(*, connections_max: int) -> Iterator[Finding]:
    """Yield what stands on this machine."""
    yield _kernel(platform.release(), platform.machine())
    yield _landlock()
    yield _ipv6()
    yield _descriptors(resource.getrlimit(resource.RLIMIT_NOFILE), connections_max)
    yield _clock()
    yield _entropy()
    yield _search()
    yield _systemd()


def _machine(name: str, level: Level, found: str, meaning: str, remedy: str = "") -> Finding:
    return Finding(
        group=Group.MACHINE, name=name, level=level, found=found, meaning=meaning, remedy=remedy
    )


def version_of(release: str) -> tuple[int, ...]:
    """Return the first two numbers of a kernel release; zeros for what is none.

    >>> version_of("6.1.0-18-amd64")
    (6, 1)
    """
    parts = [
        "".join(c for c in part if c.isdigit()) for part in release.partition("-")[0].split(".")
    ]
    numbers = [int(part or 0) for part in parts[:2]]
    return tuple([*numbers, 0, 0][:2])


def _kernel(release: str, machine: str) -> Finding:
    found = f"Linux {release}, {machine}"
    if machine not in _ARCHITECTURES:
        return _machine(
            "kernel", Level.MISSING, found, "`run` has no system call filter for it",
            "x86-64 or aarch64",
        )  # fmt: skip
    if version_of(release) < _KERNEL_MIN:
        return _machine(
            "kernel", Level.WEAKER, found, "some layers of `run` need a newer one", "Linux 5.12"
        )
    return _machine("kernel", Level.OK, found, "new enough")


def _landlock() -> Finding:
    try:
        version = kernel.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    except OSError as error:
        return _machine(
            "Landlock version", Level.WEAKER, os.strerror(error.errno or 0),
            "without it namespaces alone hold signals and abstract sockets back",
            "CONFIG_SECURITY_LANDLOCK and `landlock` in the boot option lsm=",
        )  # fmt: skip
    if version < _LANDLOCK_SCOPES:
        return _machine(
            "Landlock version", Level.WEAKER, f"ABI {version}",
            "namespaces alone hold signals and abstract sockets back", "Linux 6.12",
        )  # fmt: skip
    return _machine(
        "Landlock version", Level.OK, f"ABI {version}", "signals and abstract sockets stay inside"
    )


def _ipv6() -> Finding:
    if Path("/proc/self/net/if_inet6").exists():
        return _machine("IPv6", Level.OK, "there", "caught and decided as IPv4 is")
    return _machine("IPv6", Level.OK, "the kernel has none", "there is nothing to catch")


def _descriptors(limit: tuple[int, int], connections_max: int) -> Finding:
    soft, hard = limit
    needed = _FDS_EACH * connections_max + _FDS_SPARE
    found = f"{_count(soft)}, can be raised to {_count(hard)}"
    if 0 <= hard < needed:  # a worker raises the soft limit by itself
        return _machine(
            "file descriptors", Level.WEAKER, found,
            f"`run` and `daemon` hold fewer than {connections_max} connections at once",
            f"ulimit -n {needed}, or LimitNOFILE={needed}; or lower limits.connections_max",
        )  # fmt: skip
    return _machine("file descriptors", Level.OK, found, f"{connections_max} connections fit")


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _clock() -> Finding:
    now_s = time.time()
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if now_s < _EARLIEST_S:
        return _machine(
            "clock", Level.MISSING, found, "certificates are not valid yet", "set the clock"
        )
    state = kernel.LIBC.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        return _machine(
            "clock", Level.WEAKER, f"{found}, not synchronised",
            "records of `run` and `daemon` carry a time that nobody has compared",
            "start chrony or systemd-timesyncd",
        )  # fmt: skip
    return _machine("clock", Level.OK, f"{found}, synchronised", "records carry the right time")


def _entropy() -> Finding:
    try:
        os.getrandom(16, os.GRND_NONBLOCK)
    except BlockingIOError:
        return _machine(
            "entropy", Level.WEAKER, "not ready", "making keys waits until it is", "virtio-rng"
        )
    return _machine("entropy", Level.OK, "ready", "keys can be made")


def _search() -> Finding:
    name, remedy = "loops of the scan", "install gcc and Python's headers, then again"
    if MARKS is None or RUNS is None:
        return _machine(
            name,
            Level.OK,
            "not compiled",
            "finds the same, large bodies cost twice as much and more",
            remedy,
        )
    return _machine(name, Level.OK, "compiled", "registered values cost a large body a tenth")


def _systemd() -> Finding:
    if Path("/run/systemd/system").is_dir():
        return _machine("systemd", Level.OK, "runs", "`daemon` can be a unit of it")
    return _machine(
        "systemd", Level.OK, "does not run", "`daemon` needs another supervisor; `run` needs none"
    )

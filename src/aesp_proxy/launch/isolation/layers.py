"""The layers of isolation by name: which must stand, and what is open without each.

The reaper's helper tries every one and says how it went; nothing is guessed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Layer(StrEnum):
    """One layer; the value is its name in messages."""

    USER = "user"
    NETWORK = "network"
    MOUNTS = "mounts"
    PROCESSES = "processes"
    IPC = "ipc"
    HOSTNAME = "hostname"
    PROC = "proc"
    KERNEL_FILES = "kernel_files"
    RESOLVER = "resolver"
    OWN_FILES = "own_files"
    STAGE = "stage"
    FUSE = "fuse"
    NOTIFY = "notify"
    EVERY_PORT = "every_port"
    CAPABILITIES = "capabilities"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


class Meaning(NamedTuple):
    """What stands open without a layer, and whether ``run`` refuses to go on without it."""

    open_without: str
    required: bool


MEANINGS: Final[Mapping[Layer, Meaning]] = {
    Layer.USER: Meaning("the agent's namespaces belong to the host's user namespace", False),
    Layer.NETWORK: Meaning("the agent uses the host's network beside the proxy", True),
    Layer.MOUNTS: Meaning("the agent sees the host's mounts as they change", True),
    Layer.PROCESSES: Meaning("the agent can signal the user's other processes", True),
    Layer.IPC: Meaning("the agent shares System V IPC with the host", False),
    Layer.HOSTNAME: Meaning("the agent shares the host's name with the host", False),
    Layer.PROC: Meaning("/proc shows the host's processes", True),
    Layer.KERNEL_FILES: Meaning("root can write kernel settings under /proc and /sys", True),
    Layer.RESOLVER: Meaning("/etc/resolv.conf names the host's resolvers, which are out of reach",
                            False),
    Layer.OWN_FILES: Meaning("the agent can read the proxy's keys and write its record and policy",
                             True),
    Layer.STAGE: Meaning("`run --stage` cannot hold back what the agent writes", False),
    Layer.FUSE: Meaning("accesses to files are not decided by a live view of them", False),
    Layer.NOTIFY: Meaning("system calls that open files are not decided", False),
    Layer.EVERY_PORT: Meaning("programs that ignore the proxy are caught on well-known ports only, "
                              "and refused on others", False),
    Layer.CAPABILITIES: Meaning("capabilities or set-user-id programs could help the agent", True),
    Layer.LANDLOCK: Meaning("signals and abstract sockets are held back by namespaces only",
                            False),
    Layer.SECCOMP: Meaning("unix sockets and dangerous system calls are open", True),
}  # fmt: skip

OF_FILES: Final = frozenset({Layer.STAGE, Layer.FUSE, Layer.NOTIFY})
"""One of them at most is wanted: the one that decides accesses to files."""
EVERYTHING: Final = tuple(each for each in Layer if each not in OF_FILES)
_NOT_TRIED: Final = errno.ENOSYS
_USER_NAMESPACE_SWITCHES: Final = (
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "10000"),
    ("user/max_net_namespaces", "0", "10000"),
)


class Report(NamedTuple):
    """How each layer that was tried went: 0, or the errno it failed with."""

    outcomes: Mapping[Layer, int]

    def stands(self, layer: Layer) -> bool:
        """Whether this layer is enforced."""
        return self.outcomes.get(layer, _NOT_TRIED) == 0

    def missing(self) -> list[Layer]:
        """Return the layers without which ``run`` does not go on."""
        return [each for each in Layer if MEANINGS[each].required and not self.stands(each)]

    def not_enforced(self, wanted: Collection[Layer]) -> list[str]:
        """Say what is open, one line for each layer of ``wanted`` that does not stand."""
        return [
            f"{each}: {MEANINGS[each].open_without} ({self.why(each)})"
            for each in Layer
            if each in wanted and not self.stands(each)
        ]

    def why(self, layer: Layer) -> str:
        """Say why a layer does not stand."""
        return os.strerror(self.outcomes[layer]) if layer in self.outcomes else "not tried"

    def line(self) -> str:
        """Return the report as one line of words."""
        return " ".join(f"{layer}={number}" for layer, number in self.outcomes.items())


def read_report(words: Iterable[str]) -> Report:
    """Read what ``Report.line`` made; ValueError for anything else."""
    pairs = (word.partition("=") for word in words)
    return Report({Layer(name): int(number) for name, _, number in pairs})


def remedy(report: Report, *, is_root: bool, sysctl: str = "/proc/sys") -> str:
    """Say how to get what is missing on this machine."""
    if not report.stands(Layer.SECCOMP) and report.stands(Layer.NETWORK):
        return "seccomp needs a kernel with CONFIG_SECCOMP_FILTER on x86-64 or aarch64"
    for name, bad, good in _USER_NAMESPACE_SWITCHES:
        try:
            with open(f"{sysctl}/{name}", encoding="ascii") as file:  # noqa: PTH123
                value = file.read().strip()
        except OSError:
            continue
        if value == bad and (not is_root or name.startswith("user/")):
            return f"sysctl -w {name.replace('/', '.')}={good}, or --allow-degraded"
    return (
        "a container has to allow namespaces, for Docker --cap-add SYS_ADMIN --security-opt "
        "seccomp=unconfined --security-opt apparmor=unconfined --security-opt "
        "systempaths=unconfined; or --allow-degraded"
    )

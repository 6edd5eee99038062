"""The settings of the service, and of what it takes from the programs of a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aesp_proxy.daemon.config_values import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """How the service runs (`aesp-proxy daemon`)."""

    workers: int = setting(
        1, "Worker processes sharing the port; what is limited or counted is so in each: "
        "connections and budgets are divided among them.", minimum=1, maximum=64,
    )  # fmt: skip
    run_dir: Path | None = setting(
        None, "Directory of the control socket, mode 0700; default is systemd's "
        "$RUNTIME_DIRECTORY, /run/aesp-proxy for root, else aesp-proxy under $XDG_RUNTIME_DIR, "
        "or `run` in the state directory.",
    )  # fmt: skip
    ca_copy: Path | None = setting(
        None, "File to which the CA's certificate, never its key, is copied at the start, for "
        "agents to trust.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Whose connections are brought to the service, whether they know of a proxy or not."""

    users: str = setting(
        "", "Users, names or ids, separated by commas; their ids of /etc/subuid too.",
    )  # fmt: skip
    groups: str = setting(
        "", "Groups, names or ids, separated by commas: members, and what runs with their id.",
    )  # fmt: skip
    cgroups: str = setting(
        "", "Cgroups (version 2), paths such as `agents.slice`, separated by commas; what is below "
        "them, too.",
    )  # fmt: skip
    rules: str = setting(
        "daemon",
        "Who keeps the packet rules: `daemon`: a process of the service, which needs CAP_NET_ADMIN "
        "to start it; `service`: `aesp-proxy capture keep` beside it; `elsewhere`: they were put "
        "in for good before it (a pod's init container), and the service cannot tell.",
        choices=("daemon", "service", "elsewhere"),
    )
    port: int = setting(
        3129, "Port of 127.0.0.1 and ::1 to which captured connections are brought.",
        minimum=1, maximum=65535,
    )  # fmt: skip
    dns_port: int = setting(
        3130, "Port of 127.0.0.1 and ::1 to which their queries for names are brought.",
        minimum=1, maximum=65535,
    )  # fmt: skip
    loopback: str = setting(
        "policy",
        "`policy`: connections to this machine's own services are brought to the proxy too, and "
        "decided; `open`: they are left alone, datagrams too.",
        choices=("policy", "open"),
    )
    inbound: str = setting(
        "local",
        "Who may connect to what the captured serve: `local`: this machine; `any`: whoever reaches "
        "it, and has its answers.",
        choices=("local", "any"),
    )
    on_stop: str = setting(
        "block",
        "When the service is told to stop: `block`: the rules stay, the captured have no way out; "
        "`release`: the rules go. When it dies they stay.",
        choices=("block", "release"),
    )

"""The settings of the service."""

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

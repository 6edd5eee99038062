"""The settings of files."""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.daemon.config_values import setting

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Whose opens of files the service decides, of agents that it did not start."""

    users: str = setting(
        "", "Users, names or ids, separated by commas; their ids of /etc/subuid too.",
    )  # fmt: skip
    groups: str = setting(
        "", "Groups, names or ids, separated by commas: members, and what runs with their id.",
    )  # fmt: skip
    cgroups: str = setting(
        "", "Cgroups (version 2), paths such as `agents.slice`, separated by commas; what is below "
        "them, too. A unit's is `system.slice/NAME.service`.",
    )  # fmt: skip
    trees: str = setting(
        "", "Directories in which forbidden files are looked for, separated by colons; the file "
        "systems that they lie on are watched as a whole. Default is the homes of the users.",
    )  # fmt: skip
    by: str = setting(
        "daemon",
        "Who answers the kernel: `daemon`: processes of the service, which needs CAP_SYS_ADMIN to "
        "start them; `service`: `aesp-proxy files watch` beside it.",
        choices=("daemon", "service"),
    )
    hung_s: float = setting(
        10.0, "Longest time the listener may stand still while somebody waits; then it is ended "
        "and what waits is denied.", minimum=1, maximum=300,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What `run` does about files, and the service about those of agents that run already."""

    watch: Watch = Watch()

    backend: str = setting(
        "auto",
        "`auto`: the strictest that this machine has, where the policy speaks of files; `fuse`: a "
        "live view in which every access is decided; `stage`: forbidden files are not there for "
        "the command, and what it writes in the tree is held back until it is published; "
        "`notify`: system calls are decided, with no privilege; `observe`: what happens is "
        "recorded, and nothing is stopped; `none`: files are as they are.",
        choices=("auto", "fuse", "stage", "notify", "observe", "none"),
    )
    tree: str = setting(
        "", "Directory that is guarded; default is the one in which `run` was started."
    )
    hide: str = setting(
        "", "Directories in which forbidden files are made unreadable besides, separated by "
        "colons; default is the home directory.",
    )  # fmt: skip
    entries_max: int = setting(
        5_000_000, "Most names in these directories; more are refused at the start.",
        minimum=1, maximum=100_000_000,
    )  # fmt: skip
    secrets_read: str = setting(
        "record", "What becomes of a file with a secret in it when it is opened: `refuse`, or "
        "`record` and let it be read, as what leaves is looked at anyhow.",
        choices=("record", "refuse"),
    )  # fmt: skip
    secrets_written: str = setting(
        "record", "What becomes of a file with a secret in it that is written in a live view: "
        "`refuse`, or `record` and let it be; a stage with one is never published.",
        choices=("record", "refuse"),
    )  # fmt: skip
    content_bytes_max: int = setting(
        64 * _MIB, "Largest file that is vetted, and so can be published.",
        minimum=1024, maximum=1024 * _MIB,
    )  # fmt: skip

    def trees(self) -> tuple[str, ...]:
        """Return the guarded directories that are named, the tree first."""
        named = (self.tree, *self.hide.split(":"))
        return tuple(dict.fromkeys(filter(None, named)))

"""The settings of files."""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.daemon.config_values import setting

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What `run` does about files."""

    backend: str = setting(
        "none",
        "`auto`: the strictest that this machine has, where the policy speaks of files; `fuse`: a "
        "live view in which every access is decided; `stage`: forbidden files are not there for "
        "the command, and what it writes in the tree is held back until it is published; "
        "`notify`: system calls are decided, with no privilege; `none`: files are as they are.",
        choices=("auto", "fuse", "stage", "notify", "none"),
    )
    tree: str = setting(
        "", "Directory that is guarded; default is the one in which `run` was started."
    )
    hide: str = setting(
        "", "Directories in which forbidden files are made unreadable besides, separated by "
        "colons; default is the home directory.",
    )  # fmt: skip
    entries_max: int = setting(
        500_000, "Most names in these directories; more are refused at the start.",
        minimum=1, maximum=100_000_000,
    )  # fmt: skip
    secrets_read: str = setting(
        "record", "What becomes of a file with a secret in it when it is opened: `refuse`, or "
        "`record` and let it be read, as what leaves is looked at anyhow.",
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

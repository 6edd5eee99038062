"""The state directory: ours alone (0700), writable, or the program does not start.

It holds keys and the record. A directory that is wider than 0700 is tightened only
when it is empty or holds nothing but what we put there: ``--state /tmp`` typed by
mistake must not lock everybody out of /tmp.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError

_OURS: Final = frozenset(
    {
        "audit", "ca", "cache", "crash", "fingerprint.key", "forward", "log", "policy", "run",
        "stage", "view",
    }
)  # fmt: skip
_REMEDY: Final = "give --state DIR"


def prepare_state_dir(path: Path) -> None:
    """Make ``path`` if need be and check that it is private and writable.

    Raises ConfigError, with what to do, if it is not.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(path)
        for name in ("log", "crash"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
        # Mode bits do not tell of a read-only or full file system: trying does.
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"probe")
    except FileExistsError as error:
        raise ConfigError("is not a directory", where=str(path), remedy=_REMEDY) from error
    except OSError as error:
        message = f"the state directory cannot be used: {error.strerror}"
        raise ConfigError(message, where=str(path), remedy=_REMEDY) from error


def _check_private(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise ConfigError("the state directory is another user's", where=str(path), remedy=_REMEDY)
    if not status.st_mode & 0o077:
        return
    strangers = sorted({entry.name for entry in path.iterdir()} - _OURS)
    if strangers or status.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"others can enter it, and it holds more than state ({', '.join(strangers[:3])})",
            where=str(path), remedy=f"chmod 700 it, or {_REMEDY}",
        )  # fmt: skip
    path.chmod(0o700)

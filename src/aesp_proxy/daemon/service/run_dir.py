"""The run directory: ours alone, with the lock of the one daemon and its control socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from aesp_proxy.daemon.config import Settings
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.files import Lock

_SOCKET: Final = "control.sock"
_PATH_BYTES_MAX: Final = 107  # unix(7), sun_path
_REMEDY: Final = "set daemon.run_dir"


def run_dir_of(settings: Settings, environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Return the run directory; nothing is made."""
    if settings.daemon.run_dir is not None:
        return settings.daemon.run_dir
    # systemd.exec(5): absolute paths, separated by colons; ours is the first.
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given)
    if is_root:
        return Path("/run/aesp-proxy")
    base = environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "aesp-proxy" if base.startswith("/") else settings.state_dir / "run"


def socket_in(run_dir: Path) -> Path:
    """Return the control socket of a run directory."""
    return run_dir / _SOCKET


def capture_socket_in(run_dir: Path) -> Path:
    """Return the socket of a run directory on which who keeps the packet rules is heard."""
    return run_dir / "capture.sock"


def files_socket_in(run_dir: Path) -> Path:
    """Return the socket of a run directory on which who watches files is heard."""
    return run_dir / "files.sock"


class RunDir:
    """A run directory that is held: no other daemon starts in it."""

    def __init__(self, path: Path) -> None:
        """Make it, take its lock and listen; ConfigError where that is not possible."""
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(path)
            lock = Lock.try_take(path / "lock")
            if lock is None:
                raise ConfigError("another daemon runs here", where=str(path), remedy=_REMEDY)
            self._lock = lock
            self.listener = _listen(socket_in(path))
            # Who keeps the packet rules comes here, if anybody does.
            self.capture_listener = _listen(capture_socket_in(path))
            # And who watches files, the same.
            self.files_listener = _listen(files_socket_in(path))
        except OSError as error:
            raise ConfigError(
                f"the run directory cannot be used: {error.strerror or error}",
                where=str(path),
                remedy=_REMEDY,
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.capture_listener.close()
        self.files_listener.close()
        socket_in(self.path).unlink(missing_ok=True)
        capture_socket_in(self.path).unlink(missing_ok=True)
        files_socket_in(self.path).unlink(missing_ok=True)
        self._lock.release()


def _check_private(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigError(
            "the run directory is another user's, or others may write to it",
            where=str(path),
            remedy=_REMEDY,
        )


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise ConfigError(
            f"the path of the control socket has more than {_PATH_BYTES_MAX} bytes",
            where=str(path),
            remedy=_REMEDY,
        )
    path.unlink(missing_ok=True)  # we hold the lock: who made it is dead
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(16)
    finally:
        os.umask(before)
    return listener

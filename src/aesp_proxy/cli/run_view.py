"""What a run shows its command of this program's own files: what clients need, and no more.

The state directory is covered by a view of it that holds the public files beside the CA.
Keys, record, log and rules behind it are not to be seen, whoever the command is; policy
and settings can be read and not written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.launch.isolation import view

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings

_PUBLIC: Final = ("ca-cert.pem", "ca-bundle.pem", "wgetrc", "truststore.p12")


@contextmanager
def view_for(
    settings: Settings, session_id: str, *, config: Path | None, more: Sequence[Sequence[str]] = ()
) -> Iterator[Path]:
    """Make a view of the state directory for one session; give the list that ``Wish`` takes.

    ``more`` are rows of the list besides. ConfigError when it cannot be made.
    """
    folder = settings.state_dir / "view" / session_id
    listed = folder.with_suffix(".list")
    try:
        _make(settings, folder)
        view.write(str(listed), [*more, *_read_only(settings, config), _state(settings, folder)])
    except OSError as error:
        raise ConfigError(
            f"cannot hold a view of it: {error.strerror}",
            where=str(settings.state_dir),
            remedy="give --state DIR",
        ) from error
    try:
        yield listed
    finally:
        listed.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _make(settings: Settings, folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o755)
    public = folder / settings.ca_dir.name
    public.mkdir(mode=0o755)
    for name in _PUBLIC:
        file = settings.ca_dir / name
        if file.exists():
            os.link(file, public / name)


def _state(settings: Settings, folder: Path) -> tuple[str, str, str]:
    return "cover", str(folder), str(settings.state_dir)


def _read_only(settings: Settings, config: Path | None) -> Iterator[tuple[str, str, str]]:
    """Cover files by themselves: the mount is read-only."""
    for file in (settings.policy, config):
        if file is not None and file.is_file():
            path = str(file.resolve())
            yield "cover", path, path

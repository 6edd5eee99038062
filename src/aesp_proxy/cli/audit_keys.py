"""``aesp-proxy audit keys``: list the keys of a record, and hand it over to a new one."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Final

import click

from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.record import rotation
from aesp_proxy.record.files import Lock
from aesp_proxy.record.keys import PUBLIC_SUFFIX, current_key_id, load_public_keys

if TYPE_CHECKING:
    from aesp_proxy.record.state import AuditPaths

_WAIT_S_MAX: Final = 20.0
_LOOK_S: Final = 0.1


def show_keys(paths: AuditPaths, *, as_json: bool) -> None:
    """List the keys that signed this record, and which one signs now."""
    current = current_key_id(paths)
    listed = [
        {
            "key_id": key_id,
            "public_key": public_key.hex(),
            "current": key_id == current,
            "file": str(paths.keys / (key_id + PUBLIC_SUFFIX)),
        }
        for key_id, public_key in load_public_keys(paths).items()
    ]
    if as_json:
        click.echo(json.dumps(listed))
        return
    for entry in listed:
        mark = "signs now" if entry["current"] else "retired"
        click.echo(printable(f"{entry['key_id']}  {mark:<9}  {entry['file']}"))


def rotate(paths: AuditPaths) -> None:
    """Have a new key made and named by the old one; by the running sealer where one runs.

    ConfigError when there is no key; UnavailableError when the sealer does not do it in
    time: the request stands.
    """
    old = current_key_id(paths)
    if not old:
        raise ConfigError(
            "has no key yet", where=str(paths.root), remedy="the first start makes it"
        )
    rotation.ask(paths)
    deadline = time.monotonic() + _WAIT_S_MAX
    while rotation.is_asked(paths) and time.monotonic() < deadline:
        if not _rotate_here(paths):
            time.sleep(_LOOK_S)
    if rotation.is_asked(paths):
        raise UnavailableError(
            "the sealer has not made a new key yet",
            where=str(paths.keys),
            remedy="the request stands: it is done when the service runs",
        )
    line(f"key {old} handed over to {current_key_id(paths)}; its private half is gone")


def _rotate_here(paths: AuditPaths) -> bool:
    """Rotate in this process unless a sealer is at work, or the state is another user's."""
    from aesp_proxy.record.sealer import SealerOptions
    from aesp_proxy.record.sealer_process import open_sealer
    from aesp_proxy.record.state import load_origin

    if paths.root.stat().st_uid != os.geteuid():
        return False  # files of ours would shut its sealer out
    lock = Lock.try_take(paths.lock)
    if lock is None:
        return False
    try:
        open_sealer(paths, load_origin(paths), SealerOptions(heartbeat_s=0)).tick()
    finally:
        lock.release()
    return True

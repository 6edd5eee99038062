"""What the settings say of the watch: whose opens of files, below which directories."""

from __future__ import annotations

import base64
import binascii
import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

from aesp_proxy.daemon.capturing import user_name, words
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.control import FrameDecoder
from aesp_proxy.daemon.secret_registry import Registry, entries_of
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.intercept.capture.ruleset import Selection
from aesp_proxy.intercept.capture.who import Named, found
from aesp_proxy.intercept.fanotify.who import selection_word

WHERE = "files.watch"


def watches(settings: Settings) -> bool:
    """Whether the service decides opens of files."""
    return bool(named_of(settings))


def named_of(settings: Settings) -> Named:
    """Return who is named."""
    chosen = settings.files.watch
    return Named(
        users=words(chosen.users), groups=words(chosen.groups), cgroups=words(chosen.cgroups)
    )


def watched_now(settings: Settings) -> Selection:
    """Find out who is meant now; ConfigError where that cannot be."""
    named = named_of(settings)
    if not named:
        raise ConfigError(
            "nobody is named",
            where=WHERE,
            remedy="set files.watch.users, files.watch.groups or files.watch.cgroups",
        )
    return found(named, proxy_uid=os.geteuid(), where=WHERE)


def trees_of(settings: Settings) -> tuple[str, ...]:
    """Return the directories to look through, resolved; ConfigError where there is none."""
    named = tuple(filter(None, settings.files.watch.trees.split(":")))
    trees = named or tuple(_homes(named_of(settings).users))
    if not trees:
        raise ConfigError(
            "no directory is named", where=f"{WHERE}.trees", remedy="name those of the agents"
        )
    for tree in trees:
        if not tree.startswith("/") or not Path(tree).is_dir():
            raise ConfigError("no such directory", where=f"{WHERE}.trees: {tree}")
    return tuple(dict.fromkeys(os.path.realpath(tree) for tree in trees))


def wish_word(settings: Settings) -> str:
    """Return what the guard is to watch, as one word; ConfigError as ``watched_now``.

    ``launch.files`` reads it.
    """
    return json.dumps(
        {
            "chosen": selection_word(watched_now(settings)),
            "trees": trees_of(settings),
            "hung_s": settings.files.watch.hung_s,
        }
    )


def config_line(
    settings: Settings,
    *,
    session_id: str,
    kept: str = "",
    serial: int = 1,
    registry: Registry | None = None,
) -> bytes:
    """Return the line that tells the listener what to decide by, and to look for."""
    frame = {
        "type": "config",
        "settings": settings.to_worker(),
        "session_id": session_id,
        "kept": kept,
        "serial": serial,
    }
    if registry is not None and len(registry):
        packed = [base64.b64encode(each).decode() for each in registry.frames()]
        frame |= {"exact_key": base64.b64encode(registry.key).decode(), "registered": packed}
    return json.dumps(frame).encode() + b"\n"


def registered_in(frame: dict[str, object]) -> ExactIndex | None:
    """Return the registered values of a line, None for none; InputError for a damaged one."""
    key, packed = frame.get("exact_key", ""), frame.get("registered", [])
    if not key:
        return None
    if not isinstance(key, str) or not isinstance(packed, list):
        raise InputError("the daemon registers values without a key")
    try:
        index = ExactIndex(base64.b64decode(key, validate=True))
        frames = b"".join(base64.b64decode(str(each), validate=True) for each in packed)
    except binascii.Error as error:
        raise InputError("the daemon registers what is not base64") from error
    for one in FrameDecoder().feed(frames):
        index.add(entries_of(one))
    return index


def user_names(settings: Settings) -> Callable[[int], str] | None:
    """Return what names a user by its id, for the record; None where nobody is watched."""
    return user_name if watches(settings) else None


def _homes(users: tuple[str, ...]) -> list[str]:
    homes = []
    for name in users:
        try:
            home = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except KeyError:
            continue
        if Path(home.pw_dir).is_dir() and home.pw_dir != "/":
            homes.append(home.pw_dir)
    return homes

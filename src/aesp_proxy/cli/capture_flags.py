"""What the commands of ``capture`` take alike: whom, and where to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aesp_proxy.cli.flags import listen_flags, more_flags

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.intercept.capture.wish import Wish

_UID_MAX: Final = 0xFFFF_FFFE
_OPTIONS: Final = (
    click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings."),
    click.option("--users", metavar="USER,...", help="Users to capture (capture.users)."),
    click.option("--groups", metavar="GROUP,...", help="Groups to capture (capture.groups)."),
    click.option("--cgroups", metavar="PATH,...", help="Cgroups to capture (capture.cgroups)."),
    click.option("--listen", metavar="HOST:PORT", help="Where HTTPS_PROXY finds the proxy."),
    click.option(
        "--set",
        "more",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any setting of docs/settings.md.",
    ),
)


def rule_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that say whom and where to."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def spared_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flag that captures everybody, as in a pod."""
    return click.option(
        "--all-but-uid",
        "spared",
        type=click.IntRange(0, _UID_MAX),
        metavar="UID",
        help="Capture everybody in this network but the proxy's own user, as in a pod.",
    )(command)


def settings_for(
    config: Path | None,
    users: str | None,
    groups: str | None,
    cgroups: str | None,
    listen: str | None,
    more: tuple[str, ...],
) -> Settings:
    """Load the settings with what the flags say."""
    from aesp_proxy.daemon.config_load import load

    named = {"capture.users": users, "capture.groups": groups, "capture.cgroups": cgroups}
    flags = {name: value for name, value in named.items() if value is not None}
    flags |= listen_flags(listen) | more_flags(more)
    return load(environ=os.environ, is_root=os.geteuid() == 0, flags=flags, file=config)


def wish_for(spared: int | None = None, **given: Any) -> Wish:  # noqa: ANN401 - of click
    """Return what the flags and settings ask for; a usage error where they exclude each other."""
    from aesp_proxy.daemon.capturing import wish_of

    if spared is not None and (given["users"] or given["groups"] or given["cgroups"]):
        raise click.UsageError("--all-but-uid captures everybody: it goes with no other name")
    return wish_of(settings_for(**given), spared=spared)

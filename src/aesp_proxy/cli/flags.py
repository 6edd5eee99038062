"""What commands that start a proxy take alike: flags into settings, and who acts."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aesp_proxy.daemon.config import Settings


def listen_flags(listen: str | None) -> dict[str, str]:
    """Read HOST:PORT; a usage error where it is none."""
    if listen is None:
        return {}
    from aesp_proxy.daemon.config_values import split_port

    host, port = split_port(listen)
    if not host or not (port or listen.endswith(":0")):
        message = f"{listen!r} is not HOST:PORT"
        raise click.UsageError(message)
    return {"listen.host": host, "listen.port": port or "0"}


def split_listen(text: str, *, where: str = "--listen") -> tuple[str, int]:
    """Read HOST:PORT of a server, the port 0 for a free one. ConfigError where it is none."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError(f"{text!r} is not HOST:PORT", where=where)
    return host.removeprefix("[").removesuffix("]"), int(port)


def more_flags(more: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE, of any setting; a usage error where one is none."""
    flags = {}
    for item in more:
        name, equals, value = item.partition("=")
        if not equals:
            message = f"--set {item!r} is not NAME=VALUE"
            raise click.UsageError(message)
        flags[name.strip()] = value
    return flags


def settings_of(flags: dict[str, str], config: Path | None, *, agent_type: str) -> Settings:
    """Load the settings; what they leave open of the agent is this user, here."""
    from aesp_proxy.daemon.config_load import load

    settings = load(environ=os.environ, is_root=os.geteuid() == 0, flags=flags, file=config)
    agent, user = settings.agent, _user()
    return replace(
        settings,
        agent=replace(
            agent,
            principal_id=agent.principal_id or user,
            id=agent.id or f"{user}@{socket.gethostname()}",
            type=agent.type or agent_type,
        ),
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid-{os.geteuid()}"

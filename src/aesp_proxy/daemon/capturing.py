"""What the settings say of capture: whom, where to, and whether there is any."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from aesp_proxy.daemon.config import Settings
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.capture.ruleset import Ways
from aesp_proxy.intercept.capture.who import Named
from aesp_proxy.intercept.capture.wish import Wish

ELSEWHERE = "elsewhere"


def captures(settings: Settings) -> bool:
    """Whether the service takes captured connections."""
    chosen = settings.capture
    named = chosen.users or chosen.groups or chosen.cgroups
    return bool(named) or chosen.rules == ELSEWHERE


def names_of_users(settings: Settings) -> Callable[[int], str] | None:
    """Return what names a user by its id, for the record; None where users are not told apart.

    In a pod they are not this machine's, and the operator says who the agent is.
    """
    if not captures(settings) or settings.capture.rules == ELSEWHERE:
        return None
    return user_name


@lru_cache(maxsize=1_024)
def user_name(uid: int) -> str:
    """Return the name of a user, or a word with its id."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def wish_of(settings: Settings, *, spared: int | None = None) -> Wish:
    """Return what is to be captured; ConfigError for ports that cannot be.

    ``spared`` is the one user who is not, where all others are.
    """
    chosen = settings.capture
    wish = Wish(
        named=Named(
            users=words(chosen.users),
            groups=words(chosen.groups),
            cgroups=words(chosen.cgroups),
        ),
        ways=_ways(settings),
        proxy_uid=os.geteuid(),
        release=chosen.on_stop == "release",
    )
    return wish if spared is None else replace(wish, named=Named(), spared=spared)


def _ways(settings: Settings) -> Ways:
    listen, chosen = settings.listen, settings.capture
    if not listen.port:
        raise ConfigError(
            "a port that is drawn at the start cannot stand in packet rules",
            where="listen.port",
            remedy="set it, 3128 for example",
        )
    if len({listen.port, chosen.port, chosen.dns_port}) < 3:
        raise ConfigError(
            "listen.port, capture.port and capture.dns_port are to be three ports", where="capture"
        )
    return Ways(
        host=listen.host,
        explicit=listen.port,
        port=chosen.port,
        dns_port=chosen.dns_port,
        loopback=chosen.loopback == "open",
        inbound=chosen.inbound == "any",
    )


def words(text: str) -> tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())

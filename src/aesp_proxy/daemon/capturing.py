"""What the settings say of capture: whom, where to, and whether there is any."""

from __future__ import annotations

import os
from dataclasses import replace

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


def wish_of(settings: Settings, *, spared: int | None = None) -> Wish:
    """Return what is to be captured; ConfigError for ports that cannot be.

    ``spared`` is the one user who is not, where all others are.
    """
    chosen = settings.capture
    wish = Wish(
        named=Named(
            users=_words(chosen.users),
            groups=_words(chosen.groups),
            cgroups=_words(chosen.cgroups),
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())

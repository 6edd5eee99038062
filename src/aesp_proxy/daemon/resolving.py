"""The resolver of a worker, made from the operator's settings."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config import Resolver as ResolverSettings
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.name_budget import BudgetLimits
from aesp_proxy.decide.name_limits import NameLimits
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.egress.dialler import static_addresses
from aesp_proxy.intercept.resolver.cache import CacheLimits
from aesp_proxy.intercept.resolver.resolver import Resolver
from aesp_proxy.intercept.resolver.server import ServerLimits
from aesp_proxy.intercept.resolver.upstream import (
    Upstreams,
    parse_search,
    parse_servers,
    servers_of,
)
from aesp_proxy.normalize.dns import RecordType

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_NEVER: Final = frozenset({RecordType.HTTPS, RecordType.SVCB, RecordType.AXFR, RecordType.ANY})


def own_resolver(settings: Settings, *, clock: Callable[[], float]) -> Resolver:
    """Make the resolver; upstreams and search domains not set are those of this machine, now.

    Raises ``ConfigError`` where a setting cannot be read. Where nobody is named, names
    without an address of the operator's do not resolve, and nothing else is amiss.
    """
    chosen = settings.resolver
    servers, search = parse_servers(_words(chosen.upstreams)), parse_search(_words(chosen.search))
    if not servers or not search:
        of_machine, search_of_machine = servers_of(_resolv_conf())
        servers, search = servers or of_machine, search or search_of_machine
    return Resolver(
        upstreams=Upstreams(servers, timeout_s=chosen.timeout_s),
        static=_static(settings),
        search=search,
        cache=CacheLimits(
            entries_max=chosen.cache_entries_max,
            ttl_s_max=chosen.ttl_s_max,
            negative_s_max=chosen.negative_ttl_s_max,
        ),
        clock=clock,
    )


def server_limits(chosen: ResolverSettings) -> ServerLimits:
    """Return what the agent may ask; ``ConfigError`` for a type that is none, or never told."""
    return ServerLimits(
        queries_per_s_max=chosen.queries_per_s_max,
        in_flight_max=chosen.in_flight_max,
        types=frozenset(map(_type, _words(chosen.types))),
    )


def budget_limits(chosen: ResolverSettings) -> BudgetLimits:
    """Return how many names a session may invent, and how much one may say."""
    return BudgetLimits(
        names_per_minute_max=chosen.names_per_minute_max,
        names_per_hour_max=chosen.names_per_hour_max,
        of_one=NameLimits(
            label_chars_max=chosen.label_chars_max,
            name_chars_max=chosen.name_chars_max,
            bits_max=chosen.name_bits_max,
        ),
    )


def _type(word: str) -> RecordType:
    try:
        found = RecordType[word.upper()]
    except KeyError:
        found = RecordType.ANY
    if found in _NEVER:
        known = ", ".join(kind.name for kind in RecordType if kind not in _NEVER)
        raise ConfigError(
            f"{word!r} is no type that is answered", where="resolver.types", remedy=known
        )
    return found


def _static(settings: Settings) -> dict[str, list[IPv4Address | IPv6Address]]:
    found: dict[str, list[IPv4Address | IPv6Address]] = {}
    for (name, _), target in static_addresses(dict(settings.upstream.resolve)).items():
        address = ip_address(target.address)
        if address not in found.setdefault(name, []):
            found[name].append(address)
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _resolv_conf() -> str:
    try:
        return RESOLV_CONF.read_text("utf-8", "replace")
    except OSError:
        return ""

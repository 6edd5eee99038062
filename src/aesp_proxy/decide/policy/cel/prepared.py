"""Constants made ready at load: regular expressions, networks, globs, host rules, levels.

Each has a value of its own, so that two rules with the same constant are one term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import re2

from aesp_proxy.decide.policy.cel.errors import EvaluationError, ExpressionError
from aesp_proxy.decide.policy.cel.moments import Zone, zone
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostIndex, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.model.context import Level
from aesp_proxy.model.host import parse_host

PATTERN_CHARS_MAX: Final = 1_024
_MEMORY_BYTES_MAX: Final = 8 * 1024 * 1024
_HOST_CHARS_MAX: Final = 1_024
_ADDRESS_CHARS_MAX: Final = 64

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression of RE2: linear in the text, bounded in memory."""

    text: str
    program: re2._Regexp[str] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Network:
    """A network; an IPv6 address that maps an IPv4 one is asked as that one."""

    network: IPv4Network | IPv6Network

    def holds(self, value: Address) -> bool:
        """Tell whether an address lies in the network."""
        return value.version == self.network.version and value in self.network


@dataclass(frozen=True, slots=True)
class Networks:
    """A list of networks; ``holds`` tells whether any does."""

    networks: tuple[Network, ...]

    def holds(self, value: Address) -> bool:
        """Tell whether an address lies in one of the networks."""
        return any(network.holds(value) for network in self.networks)


@dataclass(frozen=True, slots=True)
class Glob:
    """A path glob."""

    text: str
    globs: PathGlobs = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """An entry as in an egress list, of every port."""

    text: str
    index: HostIndex = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ZoneName:
    """A time zone."""

    text: str
    to_wall: Zone = field(compare=False, repr=False)


def prepare(op: str, text: str) -> Pattern | Network | Glob | HostPattern:
    """Make the constant of an operation ready; raises ``ExpressionError``."""
    match op:
        case "matches":
            return Pattern(text, _program(text))
        case "glob":
            return Glob(text, _of_config(lambda: PathGlobs([Sourced(text, "")], fold=False)))
        case "host_matches":
            rule = _of_config(lambda: parse_host_rule(Sourced(text, "")))
            return HostPattern(text, HostIndex([rule], ports_without=None, any_is_address=True))
        case _:
            return network(text)


def _program(text: str) -> re2._Regexp[str]:
    if len(text) > PATTERN_CHARS_MAX:
        raise ExpressionError(f"a pattern longer than {PATTERN_CHARS_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES_MAX
    try:
        return re2.compile(text, options)
    except (re2.error, UnicodeError) as error:
        why = error.args[0] if error.args else ""
        told = why.decode("utf-8", "replace") if isinstance(why, bytes) else "no UTF-8"
        raise ExpressionError(f"a bad regular expression: {told[:80]!a}") from None


def _of_config[T](make: Callable[[], T]) -> T:
    try:
        return make()
    except ConfigError as error:
        raise ExpressionError(error.message) from None


def network(text: str) -> Network:
    """Read an address or a network (RFC 4632); raises ``ExpressionError``."""
    try:
        made = ip_network(text, strict=True)
    except ValueError:
        raise ExpressionError(
            f"{text[:40]!a} is no address and no network", remedy="write 10.0.0.0/8"
        ) from None
    return Network(made)


def time_zone(text: str) -> ZoneName:
    """Read a time zone; raises ``ExpressionError``."""
    return ZoneName(text, zone(text))


def level(text: str) -> Level:
    """Read the word of a level; raises ``ExpressionError``."""
    try:
        return Level[text.upper()]
    except KeyError:
        words = ", ".join(each.word for each in Level)
        raise ExpressionError(f"{text[:40]!a} is no level", remedy=f"levels: {words}") from None


def found(pattern: Pattern, text: str) -> bool:
    """Search a text for a pattern."""
    try:
        return pattern.program.search(text) is not None
    except UnicodeError:
        raise EvaluationError("a text that UTF-8 cannot hold") from None


def glob_found(glob: Glob, text: str) -> bool:
    """Match an absolute path."""
    return glob.globs.find(text) is not None


# Only what is short enough for a host or an address is kept: the texts are a peer's.
@lru_cache(maxsize=4_096)
def _host_matches(pattern: HostPattern, text: str) -> bool:
    try:
        return pattern.index.find(parse_host(text), 443) is not None
    except InputError:
        return False


def host_found(pattern: HostPattern, text: str) -> bool:
    """Match a host; what is no host matches nothing."""
    return len(text) <= _HOST_CHARS_MAX and _host_matches(pattern, text)


def address(text: str) -> Address:
    """Read an address; an IPv6 address that maps an IPv4 one is that one."""
    if len(text) > _ADDRESS_CHARS_MAX:
        raise EvaluationError("a text that is no address")
    return _address(text)


@lru_cache(maxsize=4_096)
def _address(text: str) -> Address:
    try:
        value = ip_address(text)
    except ValueError:
        raise EvaluationError("a text that is no address") from None
    mapped = value.ipv4_mapped if isinstance(value, IPv6Address) else None
    return value if mapped is None else mapped

"""A scope: the region, unit, team and frameworks that a policy is compiled for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import ConfigError

_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_NAME_CHARS_MAX: Final = 64
_FRAMEWORKS_MAX: Final = 32
KEYS: Final = ("framework", "region", "unit", "team")
_ALIASES: Final = {"business_unit": "unit", "compliance": "framework"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Names, empty where there is none. ``frameworks`` are sorted, each once."""

    region: str = ""
    unit: str = ""
    team: str = ""
    frameworks: tuple[str, ...] = ()

    def names(self, key: str) -> tuple[str, ...]:
        """Return the names of ``framework``, ``region``, ``unit`` or ``team``."""
        if key == "framework":
            return self.frameworks
        name = {"region": self.region, "unit": self.unit, "team": self.team}[key]
        return (name,) if name else ()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The scope as keys and names, in a fixed order."""
        return tuple((key, name) for key in KEYS for name in self.names(key))

    def __str__(self) -> str:
        return ",".join(f"{key}={name}" for key, name in self.pairs) or "everything"


def parse_scope(text: str) -> Scope:
    """Parse ``region=us-east,unit=engineering,team=ml,framework=hipaa``; ``ConfigError``."""
    pairs = []
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, name = part.strip().partition("=")
        if not equals:
            raise _refused(part, "write KEY=NAME")
        pairs.append((key.strip(), name.strip()))
    return scope_of(pairs)


def scope_of(pairs: Iterable[tuple[str, str]]) -> Scope:
    """Return a scope of keys and names; ``ConfigError`` for what is no scope."""
    frameworks: set[str] = set()
    single: dict[str, str] = {}
    for written, name in pairs:
        key = _ALIASES.get(written, written)
        if key not in KEYS:
            raise _refused(written, f"known keys: {', '.join(KEYS)}")
        check_name(name)
        if key == "framework":
            frameworks.add(name)
        elif single.setdefault(key, name) != name:
            raise _refused(f"{key}={name}", f"{key} is {single[key]} already")
    if len(frameworks) > _FRAMEWORKS_MAX:
        raise _refused("framework", f"more than {_FRAMEWORKS_MAX} frameworks")
    return Scope(
        region=single.get("region", ""),
        unit=single.get("unit", ""),
        team=single.get("team", ""),
        frameworks=tuple(sorted(frameworks)),
    )


def check_name(name: str) -> None:
    """Refuse a name that could be anything but one part of a file's name."""
    good = 0 < len(name) <= _NAME_CHARS_MAX and _NAME_CHARS.issuperset(name)
    if not good or name.startswith("."):
        raise _refused(name, f"a name is 1 to {_NAME_CHARS_MAX} letters, digits, '-', '_', '.'")


def _refused(text: str, why: str) -> ConfigError:
    return ConfigError(f"bad scope {text[:80]!a}: {why}", where="scope")

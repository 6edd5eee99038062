"""How many names a session may invent: what a wildcard lets an agent say to its owner.

Every name that a policy does not state as a whole, and that the session has not used
before, is taken out of a budget: of the suffix it stands under, a minute and an hour, and
of all suffixes together. A name once let through is free from then on. How much one name
may say is ``decide.name_limits``; together they bound a tunnel to some bytes a minute.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from aesp_proxy.decide.name_limits import NameLimits, fixed_part, over_limit
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.host import Host

_SUFFIXES_MAX: Final = 1_024
_NAMES_PER_SUFFIX_MAX: Final = 8_192
_OF_ALL: Final = 10  # all suffixes together may have ten times what one may
_MINUTE_S, _HOUR_S = 60.0, 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """New names under one suffix, and the bounds of one name."""

    names_per_minute_max: int = 30
    names_per_hour_max: int = 300
    of_one: NameLimits = field(default_factory=NameLimits)


class _Bucket:
    """So many at once, filling up again over ``over_s`` seconds."""

    __slots__ = ("_at", "_left", "_most", "_over_s")

    def __init__(self, most: int, over_s: float, now: float) -> None:
        self._most, self._over_s = most, over_s
        self._left, self._at = float(most), now

    def has_one(self, now: float) -> bool:
        grown = (now - self._at) * self._most / self._over_s
        self._left, self._at = min(self._most, self._left + grown), now
        return self._left >= 1

    def take(self) -> None:
        self._left -= 1


class _Suffix:
    __slots__ = ("hour", "minute", "names")

    def __init__(self, limits: BudgetLimits, now: float) -> None:
        self.names: OrderedDict[str, None] = OrderedDict()
        self.minute = _Bucket(limits.names_per_minute_max, _MINUTE_S, now)
        self.hour = _Bucket(limits.names_per_hour_max, _HOUR_S, now)


class NameBudget:
    """The names of one session. ``now`` is in seconds of a clock that only rises."""

    __slots__ = ("_all", "_limits", "_suffixes")

    def __init__(self, limits: BudgetLimits, *, now: float) -> None:
        self._limits = limits
        self._all = _Bucket(limits.names_per_minute_max * _OF_ALL, _MINUTE_S, now)
        self._suffixes: OrderedDict[str, _Suffix] = OrderedDict()

    def refused(self, host: Host, snapshot: Snapshot, now: float) -> str:
        """Say why an allowed name may not be used all the same; empty where it may."""
        if host.address is not None:
            return ""
        name = host.name
        fixed = fixed_part(host, snapshot)
        if name == fixed:
            return ""
        suffix = self._suffixes.get(fixed)
        if suffix is not None and name in suffix.names:
            suffix.names.move_to_end(name)
            return ""
        why = over_limit(name, fixed, self._limits.of_one)
        if why:
            return f"{name[:80]} says too much: {why}"
        return self._take(name, fixed, now)

    def _take(self, name: str, fixed: str, now: float) -> str:
        suffix = self._suffixes.get(fixed)
        if suffix is None:
            suffix = self._suffixes[fixed] = _Suffix(self._limits, now)
            if len(self._suffixes) > _SUFFIXES_MAX:
                self._suffixes.popitem(last=False)
        self._suffixes.move_to_end(fixed)
        for bucket, told in (
            (suffix.minute, f"under {fixed} in a minute"),
            (suffix.hour, f"under {fixed} in an hour"),
            (self._all, "in a minute"),
        ):
            if not bucket.has_one(now):
                return f"too many new names {told}"
        for bucket in (suffix.minute, suffix.hour, self._all):
            bucket.take()
        suffix.names[name] = None
        if len(suffix.names) > _NAMES_PER_SUFFIX_MAX:
            suffix.names.popitem(last=False)
        return ""

"""Answers of upstream resolvers, kept for their time to live and within bounds.

Nothing in it is a decision: policy and addresses are looked at again for each query.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from aesp_proxy.normalize.dns_answer import Resolved

Key = tuple[str, int]
"""A canonical name and a type of record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How long and how many: seconds for what there is, and for "there is none"."""

    entries_max: int = 10_000
    ttl_s_min: int = 1
    ttl_s_max: int = 300
    negative_s_max: int = 30


class Cache:
    """The newest answers by name and type; ``now`` is in seconds of a clock that only rises."""

    __slots__ = ("_entries", "_limits")

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        self._entries: OrderedDict[Key, tuple[Resolved, float]] = OrderedDict()

    def find(self, key: Key, now: float) -> Resolved | None:
        """Return an answer with the time that it still has; None where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        found, until = entry
        left_s = until - now
        if left_s <= 0:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return replace(found, ttl_s=max(1, int(left_s)))

    def keep(self, key: Key, found: Resolved, now: float) -> Resolved:
        """Keep an answer; return it with the time to live that holds here."""
        limits = self._limits
        ttl_s = min(max(found.ttl_s, limits.ttl_s_min), limits.ttl_s_max)
        if not found.rdatas:
            ttl_s = min(ttl_s, limits.negative_s_max)
        found = replace(found, ttl_s=ttl_s)
        if ttl_s > 0:
            self._entries[key] = (found, now + ttl_s)
            self._entries.move_to_end(key)
            while len(self._entries) > limits.entries_max:
                self._entries.popitem(last=False)
        return found

    def __len__(self) -> int:
        return len(self._entries)

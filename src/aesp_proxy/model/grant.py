"""A grant: a signed, scoped, expiring permission that lifts one kind of refusal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class GrantKind(StrEnum):
    """What a grant lifts: the ``allow_*`` keys of an exception."""

    EGRESS = "egress"
    PATH = "path"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One thing that an approved exception allows, for as long as it lasts.

    ``pattern`` is an entry as the guard of that kind reads it (host rule, path glob, tool
    rule). In force from ``from_ns`` up to and without ``until_ns``, UTC nanoseconds.
    ``source`` is FILE:LINE of the entry.
    """

    grant_id: str
    kind: GrantKind
    pattern: str
    from_ns: int
    until_ns: int
    source: str

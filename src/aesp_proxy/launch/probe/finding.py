"""One thing that was looked at on this machine, and what it means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it stands: ``missing`` makes ``run`` refuse, ``unused`` nothing here needs."""

    OK = "ok"
    WEAKER = "weaker"
    MISSING = "missing"
    UNUSED = "unused"


class Group(StrEnum):
    """Where a finding belongs, in the order in which they are told."""

    MACHINE = "machine"
    ISOLATION = "isolation of `run`"
    CAPTURE = "capture by `daemon`"
    FILES = "files of agents that run already"
    SETUP = "setup"
    CLIENTS = "clients"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``found`` is what is there, ``meaning`` a sentence, ``remedy`` how to get what is not."""

    group: Group
    name: str
    level: Level
    found: str
    meaning: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level of all."""
    levels = {finding.level for finding in findings}
    for level in (Level.MISSING, Level.WEAKER):
        if level in levels:
            return level
    return Level.OK

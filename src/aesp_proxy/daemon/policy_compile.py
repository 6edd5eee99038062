"""Compile the policy of a scope from disk: levels, exceptions, and the time of the version."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.policy_exceptions import read_exceptions
from aesp_proxy.daemon.policy_files import lone_parents, read_text
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.decide.policy.compile import (
    POLICY_LEVEL,
    Compiled,
    LevelInput,
    Step,
    compiled,
    join_levels,
)
from aesp_proxy.decide.policy.exception import time_ns
from aesp_proxy.decide.policy.load import read_chain
from aesp_proxy.decide.policy.scope import Scope
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

_GIT_S_MAX: Final = 10
_YEAR_9999_S: Final = 253_402_300_799


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTime:
    """The time of a version in seconds of UTC, and where it is from, empty when unknown."""

    seconds: int
    source: str

    @property
    def stamp(self) -> str:
        """The time as YYYYMMDDHHMMSS."""
        return f"{datetime.fromtimestamp(self.seconds, UTC):%Y%m%d%H%M%S}"


def version_time(given: str | None, environ: Mapping[str, str], folder: Path) -> VersionTime:
    """Return the time of a version: given, ``SOURCE_DATE_EPOCH``, else the last commit there.

    The beginning of 1970 where none is known: never the clock, so that the same files give
    the same bytes.
    """
    if given is not None:
        seconds = time_ns(Sourced(given, "--time")) // 1_000_000_000
        return VersionTime(seconds=_checked(seconds, "--time"), source="--time")
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    if epoch:
        if not epoch.isascii() or not epoch.isdigit() or len(epoch) > 12:
            raise ConfigError("SOURCE_DATE_EPOCH is no number of seconds", where="environment")
        seconds = _checked(int(epoch), "SOURCE_DATE_EPOCH")
        return VersionTime(seconds=seconds, source="SOURCE_DATE_EPOCH")
    committed = _commit_time(folder)
    if committed is None:
        return VersionTime(seconds=0, source="")
    return VersionTime(seconds=committed, source="git")


def compile_scope(
    found: PolicyHierarchy,
    scope: Scope,
    *,
    time: VersionTime,
    keys: Sequence[bytes] = (),
    more_exceptions: Sequence[Path] = (),
) -> Compiled:
    """Compile one scope; ``ConfigError`` for a weakening and for everything else wrong."""
    paths = [*found.exception_paths(scope), *more_exceptions]
    exceptions = read_exceptions(
        [(path, found.named(path)) for path in paths],
        keys,
        scope,
        time_ns=time.seconds * 1_000_000_000,
    )
    made = compiled(
        steps_of(found, scope),
        where=found.hierarchy.where,
        scope=scope,
        exceptions=exceptions.files,
        exception_layers=exceptions.layers,
        time_s=time.seconds,
        stamp_time=time.stamp,
    )
    warnings = made.policy.warnings + exceptions.warnings
    return replace(made, policy=replace(made.policy, warnings=warnings))


def steps_of(found: PolicyHierarchy, scope: Scope) -> tuple[Step, ...]:
    """Return the steps from the top level to the lowest of a scope."""
    return join_levels(found.inputs(scope), found.hierarchy.frozen)


def compile_file(path: Path, *, time: VersionTime) -> Compiled:
    """Compile a single file with what it extends; sources are told relative to its folder."""
    where = path.name
    files = read_chain(read_text(path), where, lone_parents(path, where, told_from=path.parent))
    level = LevelInput(level=POLICY_LEVEL, overridable=True, files=files)
    return compiled(
        join_levels([level]),
        where=where,
        scope=Scope(),
        exceptions=(),
        exception_layers=(),
        time_s=time.seconds,
        stamp_time=time.stamp,
    )


def _checked(seconds: int, where: str) -> int:
    if not 0 <= seconds <= _YEAR_9999_S:
        raise ConfigError("not a time from 1970 to 9999", where=where)
    return seconds


def _commit_time(folder: Path) -> int | None:
    where = folder if folder.is_dir() else folder.parent
    name = "." if folder.is_dir() else folder.name
    try:
        answer = subprocess.run(
            ["git", "-C", str(where), "log", "-1", "--format=%ct", "--", name],  # noqa: S607
            capture_output=True,
            check=False,
            timeout=_GIT_S_MAX,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = answer.stdout.strip()
    return int(text) if answer.returncode == 0 and text.isdigit() else None

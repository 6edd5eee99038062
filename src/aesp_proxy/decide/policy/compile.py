"""The levels of a hierarchy joined into the policy of one scope, from the top down.

The first level stands as it is. Below a level that is not overridable, and for teams
always, a level may only be stricter; else it joins what is above like a file that extends
it. A level's parents that are in force above already are not joined a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aesp_proxy.decide.policy.document import Mapping
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.exception import ExceptionFile, check_exception_locks
from aesp_proxy.decide.policy.hierarchy import TEAM
from aesp_proxy.decide.policy.levels import strictly_joined
from aesp_proxy.decide.policy.merge import joined
from aesp_proxy.decide.policy.policy import Layer, Policy
from aesp_proxy.decide.policy.scope import Scope
from aesp_proxy.decide.policy.stated import Stated
from aesp_proxy.decide.policy.weakening import NOTHING_FROZEN, Frozen, Weakening
from aesp_proxy.errors import ConfigError

POLICY_LEVEL = "policy"
EXCEPTION_LEVEL = "exception"
_HASH_CHARS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelInput:
    """A level that is in force for a scope: its files with their parents, topmost first."""

    level: str
    overridable: bool
    files: tuple[Stated, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file on its way down. ``tree`` is what holds after it; ``strict`` tells the law."""

    level: str
    file: Stated
    strict: bool
    tree: Mapping
    weakenings: tuple[Weakening, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """The policy of a scope and how it came to be.

    ``serial`` is the time of the version in seconds of UTC: it never goes back while
    history goes on.
    """

    policy: Policy
    tree: Mapping
    serial: int


def join_levels(levels: Sequence[LevelInput], frozen: Frozen = NOTHING_FROZEN) -> tuple[Step, ...]:
    """Join levels from the top down, each file a step; weakenings are kept, not raised."""
    steps: list[Step] = []
    seen: set[str] = set()
    closed = False
    for level in levels:
        strict = bool(steps) and (closed or level.level == TEAM)
        for file in level.files:
            if file.where in seen:
                continue
            seen.add(file.where)
            steps.append(_step(steps, level.level, file, frozen if strict else None))
        closed = closed or (bool(level.files) and not level.overridable)
    return tuple(steps)


def _step(steps: list[Step], level: str, file: Stated, frozen: Frozen | None) -> Step:
    above = steps[-1].tree if steps else None
    if frozen is None or above is None:
        tree, warnings = joined(above, file)
        return Step(
            level=level, file=file, strict=False, tree=tree, weakenings=(), warnings=warnings
        )
    made = strictly_joined(above, file, frozen)
    return Step(
        level=level,
        file=file,
        strict=True,
        tree=made.tree,
        weakenings=made.weakenings,
        warnings=made.warnings,
    )


def compiled(
    steps: Sequence[Step],
    *,
    where: str,
    scope: Scope,
    exceptions: Sequence[ExceptionFile],
    exception_layers: Sequence[Layer],
    time_s: int,
    stamp_time: str,
) -> Compiled:
    """Return the policy that steps and exceptions make; ``ConfigError`` for a weakening.

    ``time_s`` is the time of the version in seconds of UTC, ``stamp_time`` the same as
    YYYYMMDDHHMMSS. ``exceptions`` are checked, in force or not yet, and of the scope.
    """
    for step in steps:
        for weakening in step.weakenings:
            raise weakening.error()
    if not steps:
        raise ConfigError("no level has a file for this scope", where=where)
    tree = steps[-1].tree
    for exception in exceptions:
        check_exception_locks(exception, tree)
    warnings = tuple(warning for step in steps for warning in step.warnings)
    policy = replace(
        policy_of(tree, where, warnings),
        grants=tuple(grant for exception in exceptions for grant in exception.grants),
        layers=(*(step.file.layer(step.level) for step in steps), *exception_layers),
        scope=scope.pairs,
    )
    stamp = f"{stamp_time}:{policy.hash[:_HASH_CHARS]}"
    return Compiled(policy=replace(policy, stamp=stamp), tree=tree, serial=time_s)

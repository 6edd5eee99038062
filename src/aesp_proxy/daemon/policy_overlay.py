"""A policy under an overlay: what a suite tries of a file that only tightens another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aesp_proxy.daemon.policy_files import lone_parents, read_text
from aesp_proxy.decide.policy.compile import LevelInput, join_levels
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.load import read_chain
from aesp_proxy.decide.policy.policy import Policy


def read_overlay(overlay: Path, over: Path) -> Policy:
    """Read ``overlay`` as a compliance level over the policy ``over`` and what that extends.

    What the overlay itself extends and is in force already is joined once. Raises
    ``ConfigError`` for the first thing in which the overlay would weaken the policy.
    """
    steps = join_levels((_level("global", over), _level("compliance", overlay)))
    for step in steps:
        for weakening in step.weakenings:
            raise weakening.error()
    warnings = tuple(warning for step in steps for warning in step.warnings)
    policy = policy_of(steps[-1].tree, str(overlay), warnings)
    return replace(policy, layers=tuple(step.file.layer(step.level) for step in steps))


def _level(level: str, path: Path) -> LevelInput:
    where = str(path)
    files = read_chain(read_text(path), where, lone_parents(path, where))
    return LevelInput(level=level, overridable=False, files=files)

"""Policies from disk to what ``policy lint`` looks at, and attempts made of described facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.policy_compile import VersionTime, compile_scope, steps_of
from aesp_proxy.daemon.policy_files import (
    check_secret_rules,
    lone_parents,
    read_text,
)
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.decide.policy.compile import LevelInput, compiled, join_levels
from aesp_proxy.decide.policy.compiled_json import BYTES_MAX, from_json, is_compiled
from aesp_proxy.decide.policy.lint.finding import LintFinding
from aesp_proxy.decide.policy.lint.run import lint
from aesp_proxy.decide.policy.lint.subject import subject_of
from aesp_proxy.decide.policy.load import read_chain
from aesp_proxy.decide.policy.scope import Scope
from aesp_proxy.errors import InputError
from aesp_proxy.model.context import Context
from aesp_proxy.model.event import Event
from aesp_proxy.normalize.described import described

_NOON_NS: Final = 1_767_607_200_000_000_000
_LEVEL: Final = "policy"


def lint_file(path: Path) -> tuple[LintFinding, ...]:
    """Look at one file and what it extends; raises ``ConfigError`` where it does not load.

    Told is what this file has a part in: what is wrong in a parent alone is the parent's.
    """
    where = str(path)
    text = read_text(path, compiled_bytes_max=BYTES_MAX)
    if is_compiled(text):
        subject = subject_of(from_json(text, where), None, ())
        check_secret_rules(subject.policy)
        return lint(subject, attempt)
    files = read_chain(text, where, lone_parents(path, where))
    steps = join_levels([LevelInput(level=_LEVEL, overridable=True, files=files)])
    made = compiled(
        steps, where=where, scope=Scope(), exceptions=(), exception_layers=(), time_s=0,
        stamp_time="",
    )  # fmt: skip
    check_secret_rules(made.policy)
    found = lint(subject_of(made.policy, made.tree, files), attempt)
    return tuple(each for each in found if _is_about(each, where))


def lint_scope(root: Path, scope: Scope) -> tuple[LintFinding, ...]:
    """Look at the policy of a scope, compiled from a hierarchy; raises ``ConfigError``."""
    found = PolicyHierarchy(root)
    made = compile_scope(found, scope, time=VersionTime(seconds=0, source=""))
    check_secret_rules(made.policy)
    files = tuple(step.file for step in steps_of(found, scope))
    return lint(subject_of(made.policy, made.tree, files), attempt)


def _is_about(finding: LintFinding, where: str) -> bool:
    places = (finding.source, *(each.source for each in finding.related))
    return any(place == where or place.startswith(f"{where}:") for place in places)


def attempt(facts: Mapping[str, object]) -> tuple[Event, Context] | None:
    """Return the event that facts describe; None where they describe none."""
    try:
        return described(facts, time_ns=_NOON_NS)
    except InputError:
        return None

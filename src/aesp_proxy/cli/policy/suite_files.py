"""Suites from disk: found, read, tried on the policy they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from aesp_proxy.daemon.pack_files import packs_of
from aesp_proxy.daemon.policy_compile import VersionTime, compile_scope
from aesp_proxy.daemon.policy_files import read_policy, read_text
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.daemon.policy_overlay import read_overlay
from aesp_proxy.daemon.rule_cache import compiled
from aesp_proxy.decide.policy.coverage import Coverage, coverage
from aesp_proxy.decide.policy.document import parse_document
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.scope import parse_scope
from aesp_proxy.decide.policy.suite import Case, Suite, parse_suite
from aesp_proxy.decide.policy.suite_run import Attempt, decide_attempt, mismatches
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot, secret_rules
from aesp_proxy.decide.trace import RuleTrace, explain
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.model.decision import Decision
from aesp_proxy.normalize.described import described
from aesp_proxy.normalize.fact_table import moment_ns

SUITE_ENDING: Final = ".test.yaml"
# A suite that states no clock has this one, so that it answers the same every day.
_NOW: Final = "2026-01-05T10:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """A case, what was decided, and in what that is not what was expected."""

    case: Case
    decision: Decision
    mismatches: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """All cases of a suite on its policy. ``covered`` is of these cases alone."""

    where: str
    policy_where: str
    policy_hash: str
    results: tuple[CaseResult, ...]
    covered: Coverage

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        """The cases that were not answered as expected."""
        return tuple(result for result in self.results if result.mismatches)


def find_suites(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the suites that paths stand for: a suite, a policy with one beside it, a folder.

    Raises ``click.UsageError`` where a path stands for none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        suites = sorted(path.rglob(f"*{SUITE_ENDING}")) if path.is_dir() else [_suite_for(path)]
        if not suites:
            message = f"no suite below {path} (a suite is named NAME{SUITE_ENDING})"
            raise click.UsageError(message)
        found.update(dict.fromkeys(suites))
    return tuple(found)


def _suite_for(path: Path) -> Path:
    if path.name.endswith(SUITE_ENDING):
        return path
    beside = path.with_name(path.stem + SUITE_ENDING)
    if beside.is_file():
        return beside
    if parse_document(read_text(path), str(path)).key("cases") is not None:
        return path
    message = f"no suite beside {path}: {beside.name} is not there"
    raise click.UsageError(message)


class SuiteRunner:
    """Runs suites; a policy that several suites name is read and compiled once.

    ``cache_dir`` keeps compiled secret rules; None keeps nothing. ``part`` runs only the
    cases whose names hold it, without regard to case.
    """

    def __init__(self, cache_dir: Path | None, part: str = "") -> None:
        self._cache_dir = cache_dir
        self._part = part.casefold()
        self._made: dict[tuple[str, ...], tuple[Policy, Snapshot]] = {}

    def run(self, path: Path) -> SuiteResult:
        """Run one suite. Raises ``ConfigError`` for a wrong suite, fact or policy."""
        suite = parse_suite(read_text(path), str(path))
        now_ns = _now_ns(suite)
        policy, snapshot = self._subject(suite, path, now_ns)
        results, traces = [], []
        for case in suite.cases:
            if self._part not in case.name.casefold():
                continue
            attempt = _attempt(case, now_ns)
            decision = decide_attempt(attempt, snapshot)
            traces.append(_traces(attempt, decision, snapshot))
            results.append(
                CaseResult(
                    case=case, decision=decision, mismatches=mismatches(case.expect, decision)
                )
            )
        return SuiteResult(
            where=str(path),
            policy_where=policy.where,
            policy_hash=snapshot.policy_hash,
            results=tuple(results),
            covered=coverage(policy, traces, (result.decision.source for result in results)),
        )

    def _subject(self, suite: Suite, path: Path, now_ns: int) -> tuple[Policy, Snapshot]:
        """Return the policy that a suite is about, compiled."""
        place = path.with_name(path.name.removesuffix(SUITE_ENDING) + ".yaml")
        if suite.root is not None and suite.scope is not None:
            place = _relative(path, suite.root.value)
            scoped = (os.path.realpath(place), suite.scope.value, str(now_ns))
            return self._once(scoped, lambda: _of_scope(suite, place, now_ns))
        if suite.policy is not None:
            place = _relative(path, suite.policy.value)
        elif place == path:
            raise ConfigError("the suite names no policy", where=str(path), remedy="add policy:")
        if suite.over is None:
            return self._once((os.path.realpath(place),), lambda: read_policy(place))
        over = _relative(path, suite.over.value)
        key = (os.path.realpath(place), os.path.realpath(over))
        return self._once(key, lambda: read_overlay(place, over))

    def _once(self, key: tuple[str, ...], read: Callable[[], Policy]) -> tuple[Policy, Snapshot]:
        if key not in self._made:
            self._made[key] = self._compiled(read())
        return self._made[key]

    def _compiled(self, policy: Policy) -> tuple[Policy, Snapshot]:
        packs = packs_of(policy)
        locator = compiled(secret_rules(policy, packs), self._cache_dir) if packs else None
        return policy, build_snapshot(
            policy, packs, fingerprint_key=os.urandom(32), serial=1, locator=locator
        )


def _of_scope(suite: Suite, root: Path, now_ns: int) -> Policy:
    """Return the policy of a scope as it is at the suite's time."""
    text = suite.scope.value if suite.scope is not None else ""
    time = VersionTime(seconds=now_ns // 1_000_000_000, source="suite.now")
    return compile_scope(PolicyHierarchy(root), parse_scope(text), time=time).policy


def _relative(suite: Path, text: str) -> Path:
    """Return a path of a suite, which is relative to the suite's folder, in its short form."""
    return Path(os.path.normpath(suite.parent / text))


def _now_ns(suite: Suite) -> int:
    text, where = (_NOW, "") if suite.now is None else (suite.now.value, suite.now.where)
    try:
        return moment_ns(text, "now")
    except InputError as error:
        raise ConfigError(f"suite.now {error.message}", where=where) from None


def _attempt(case: Case, now_ns: int) -> Attempt:
    try:
        event, context = described(case.facts, time_ns=now_ns)
    except InputError as error:
        raise ConfigError(
            f"{error.where} {error.message}" if error.where else error.message,
            where=case.place_of(error.where),
            remedy=error.remedy,
        ) from None
    content = case.facts.get("content")
    body = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else None
    return Attempt(event=event, context=context, body=body)


def _traces(attempt: Attempt, decision: Decision, snapshot: Snapshot) -> tuple[RuleTrace, ...]:
    """Return how each rule fared."""
    if snapshot.rules is None:
        return ()
    return explain(snapshot.rules, attempt.event, attempt.context, decision.findings)

"""Which paths nobody may touch: by the path as given and by the path it resolves to.

Either of the two forbids. An exception lifts only when it matches the resolved path,
and the given one too where that is forbidden by itself: neither a link with an
innocent name nor an innocent target with a forbidden name is a way around.
"""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.policy import PathSection
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import Event, FileAccess, PatchApply

_SHOWN_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class ForbiddenPath:
    """Built by :func:`forbidden_path`; answers for files and patches."""

    patterns: PathGlobs
    exceptions: PathGlobs
    passes: Answer
    name: str = "forbidden_path"
    grants: bool = True

    def check(self, event: Event) -> Answer | None:
        """Answer for accesses to files and for patches."""
        match event:
            case FileAccess() | PatchApply():
                return self._answer(event.path, event.resolved)
            case _:
                return None

    def _answer(self, given: str, resolved: str) -> Answer:
        by_given = self.patterns.find(given)
        by_resolved = by_given if resolved == given else self.patterns.find(resolved)
        found = by_given or by_resolved
        if found is None:
            return self.passes
        if self._excepted(resolved) and (by_given is None or self._excepted(given)):
            return self.passes
        return _forbidden(given, resolved, found)

    def _excepted(self, path: str) -> bool:
        return self.exceptions.find(path) is not None


def forbidden_path(section: PathSection) -> ForbiddenPath:
    """Build the guard from its section of the policy."""
    return ForbiddenPath(
        patterns=PathGlobs(section.patterns, fold=True),
        exceptions=PathGlobs(section.exceptions, fold=False),
        passes=Answer(
            verdict=Verdict.ALLOW,
            reason=Reason.ALLOWED,
            severity=Severity.INFO,
            message="no forbidden path",
            source=section.source,
        ),
    )


def _forbidden(given: str, resolved: str, pattern: Sourced[str]) -> Answer:
    link = "" if given == resolved else f" (it resolves to {_shown(resolved)})"
    file, _, line = pattern.source.partition(" (")[0].rpartition(":")
    return Answer(
        verdict=Verdict.DENY,
        reason=Reason.PATH_FORBIDDEN,
        severity=Severity.ERROR,
        message=f"{_shown(given)} is forbidden by {pattern.value}{link}",
        source=pattern.source,
        remediation=(
            "Do not retry, and do not look for the same content elsewhere.",
            f"Ask the owner of {file} (line {line}) for guards.forbidden_path.exceptions.",
        ),
    )


def _shown(path: str) -> str:
    """Return a path fit for one line: control characters and long tails do not go out."""
    cut = path if len(path) <= _SHOWN_CHARS_MAX else f"{path[:_SHOWN_CHARS_MAX]}..."
    return cut if cut.isprintable() else ascii(cut)

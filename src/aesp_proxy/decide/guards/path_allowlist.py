"""Which paths may be touched at all: what no entry names is refused.

Reading and running need ``file_access_allow``; writing, creating, deleting and renaming
need ``file_write_allow``, and it alone: what may be written may not be read for that. A
patch needs ``patch_allow``. The given and the resolved path must both be on the list, so
that a link is no way around. Case counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.policy import PathAllowSection
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import Event, FileAccess, FileOperation, PatchApply

_SECTION = "guards.path_allowlist"
_SHOWN_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class _List:
    """One list: its key in the policy, what an entry permits, and its entries."""

    key: str
    doing: str
    globs: PathGlobs


@dataclass(frozen=True, slots=True)
class PathAllowlist:
    """Built by :func:`path_allowlist`; answers for files and patches."""

    access: _List
    write: _List
    patch: _List
    section: PathAllowSection
    name: str = "path_allowlist"
    grants: bool = True

    def check(self, event: Event) -> Answer | None:
        """Answer for accesses to files and for patches."""
        match event:
            case FileAccess():
                return self._answer(event.path, event.resolved, self._list_for(event.operation))
            case PatchApply():
                return self._answer(event.path, event.resolved, self.patch)
            case _:
                return None

    def _list_for(self, operation: FileOperation) -> _List:
        match operation:
            case FileOperation.OPEN | FileOperation.EXEC:
                return self.access
            case (
                FileOperation.WRITE
                | FileOperation.CREATE
                | FileOperation.DELETE
                | FileOperation.RENAME
            ):
                return self.write
            case _:
                assert_never(operation)

    def _answer(self, given: str, resolved: str, allowed: _List) -> Answer:
        entry = allowed.globs.find(resolved)
        if entry is None:
            return self._not_allowed(given, resolved, allowed)
        if given != resolved and allowed.globs.find(given) is None:
            return self._not_allowed(given, given, allowed)
        return _passes(entry)

    def _not_allowed(self, given: str, missing: str, allowed: _List) -> Answer:
        link = "" if given == missing else f" (it resolves to {_shown(missing)})"
        file, _, line = self.section.source.rpartition(":")
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.PATH_NOT_ALLOWED,
            severity=Severity.WARNING,
            message=f"{_shown(given)} is on no list of paths to {allowed.doing}{link}",
            source=self.section.source,
            remediation=(
                "Do not retry, and do not reach the same file by another name.",
                f"Ask the owner of {file} to add it under {_SECTION}.{allowed.key} (line {line}).",
            ),
            implicit=True,
        )


def path_allowlist(section: PathAllowSection) -> PathAllowlist:
    """Build the guard from its section of the policy."""
    return PathAllowlist(
        access=_List("file_access_allow", "read", PathGlobs(section.access, fold=False)),
        write=_List("file_write_allow", "write", PathGlobs(section.write, fold=False)),
        patch=_List("patch_allow", "patch", PathGlobs(section.patch, fold=False)),
        section=section,
    )


def _passes(entry: Sourced[str]) -> Answer:
    return Answer(
        verdict=Verdict.ALLOW,
        reason=Reason.ALLOWED,
        severity=Severity.INFO,
        message=f"allowed by {entry.value}",
        source=entry.source,
    )


def _shown(path: str) -> str:
    """Return a path fit for one line: control characters and long tails do not go out."""
    cut = path if len(path) <= _SHOWN_CHARS_MAX else f"{path[:_SHOWN_CHARS_MAX]}..."
    return cut if cut.isprintable() else ascii(cut)

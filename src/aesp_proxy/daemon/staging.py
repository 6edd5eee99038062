"""Decide and record what a stage would change, before any of it is published.

Each change is an event like any other: the path as it would be named and as it resolves,
the operation, the content that is written, and the difference to what was there as a
patch. The decision on each is in the record before anything is published, and one
refusal refuses the whole: a half of what an agent did is not what anybody looked at.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.guards.patch_integrity import PatchIntegrity
from aesp_proxy.decide.protected import protects
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.intercept.stage.changes import Change, Kind, changes_of
from aesp_proxy.intercept.stage.stage import Stage, StagedTree
from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict
from aesp_proxy.model.event import FileAccess, FileOperation, PatchApply
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Record, RecordId
from aesp_proxy.record.compose import decision_record

_DIFF_LINES_MAX: Final = 20_000
_OPERATIONS: Final = {
    Kind.CREATE: FileOperation.CREATE,
    Kind.MAKE_DIRECTORY: FileOperation.CREATE,
    Kind.SPECIAL: FileOperation.CREATE,
    Kind.WRITE: FileOperation.WRITE,
    Kind.MODE: FileOperation.WRITE,
    Kind.DELETE: FileOperation.DELETE,
}


class Recorder(Protocol):
    """The journal."""

    def append(self, record: Record) -> RecordId:
        """Write one record; RecordError when it cannot be made durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vetted:
    """One change and what was decided of it."""

    tree: Path
    change: Change
    decision: Decision

    @property
    def path(self) -> Path:
        """The path it would have."""
        return self.tree / self.change.name


class Vetting:
    """Vets stages by one snapshot. ``content_bytes_max`` is the largest file that is read."""

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        journal: Recorder,
        principal: Principal,
        now_ns: Callable[[], int],
        content_bytes_max: int,
    ) -> None:
        self._snapshot = snapshot
        self._journal = journal
        self._principal = principal
        self._now_ns = now_ns
        self._content_bytes_max = content_bytes_max
        self._reads_patches = any(isinstance(each, PatchIntegrity) for each in snapshot.guards)

    def vet(self, stage: Stage) -> Iterator[Vetted]:
        """Yield each change with its decision, once that is recorded.

        RecordError when it cannot be recorded: then nothing may be published.
        """
        for tree in stage.trees:
            for change in changes_of(tree):
                yield Vetted(tree=tree.path, change=change, decision=self._decided(tree, change))

    def _decided(self, tree: StagedTree, change: Change) -> Decision:
        event = self._event(tree, change)
        try:
            decision = self._refused(tree, change, event) or decide(event, self._snapshot)
            if decision.verdict.passes and self._reads_patches:
                patch = self._patch(tree, change, event)
                if patch is not None:
                    of_patch = decide(patch, self._snapshot)
                    decision = decision if of_patch.verdict.passes else of_patch
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
            decision = self._refusal(Reason.INTERCEPTOR_FAILED, reason)
        self._journal.append(decision_record(event, decision, time_ns=event.time_ns))
        return decision

    def _event(self, tree: StagedTree, change: Change) -> FileAccess:
        path = tree.path / change.name
        resolved = os.path.realpath(path.parent) + "/" + path.name
        if change.is_link:
            target = (tree.upper / change.name).readlink()
            resolved = os.path.normpath(path.parent / target)
        return FileAccess(
            event_id="",
            time_ns=self._now_ns(),
            principal=self._principal,
            operation=_OPERATIONS[change.kind],
            path=str(path),
            resolved=resolved,
            content=self._content(tree, change),
        )

    def _content(self, tree: StagedTree, change: Change) -> bytes | None:
        if change.is_link or change.kind not in (Kind.CREATE, Kind.WRITE):
            return None
        path = tree.upper / change.name
        return path.read_bytes() if path.stat().st_size <= self._content_bytes_max else None

    def _refused(self, tree: StagedTree, change: Change, event: FileAccess) -> Decision | None:
        """Refuse what no guard is asked about."""
        if change.kind is Kind.SPECIAL:
            return self._refusal(Reason.UNSUPPORTED, "devices, pipes and sockets stay behind")
        if change.kind is Kind.DELETE and _holds_hidden(tree, change):
            return self._refusal(
                Reason.PATH_FORBIDDEN, "files in it were hidden, and would be removed unseen"
            )
        # An empty directory runs nothing, and git makes one for its samples.
        makes_directory = change.kind is Kind.MAKE_DIRECTORY
        why = "" if makes_directory else _protected(tree, change, event)
        if why:
            return self._refusal(Reason.PATH_FORBIDDEN, why)
        is_file = change.kind in (Kind.CREATE, Kind.WRITE) and not change.is_link
        if is_file and event.content is None:
            return self._refusal(
                Reason.LIMIT_EXCEEDED,
                f"more than {self._content_bytes_max} bytes are not read, and so not published",
            )
        return None

    def _patch(self, tree: StagedTree, change: Change, event: FileAccess) -> PatchApply | None:
        if change.is_directory or change.kind in (Kind.MODE, Kind.SPECIAL) or change.is_link:
            return None
        return PatchApply(
            event_id="",
            time_ns=event.time_ns,
            principal=event.principal,
            path=event.path,
            resolved=event.resolved,
            patch=patch_of(change.name, _before(tree, change), event.content or b""),
        )

    def _refusal(self, reason: Reason, message: str) -> Decision:
        return Decision(
            verdict=Verdict.DENY,
            reason=reason,
            guard="stage",
            severity=Severity.ERROR,
            message=message,
            policy_name=self._snapshot.policy_name,
            policy_hash=self._snapshot.policy_hash,
        )


def _protected(tree: StagedTree, change: Change, event: FileAccess) -> str:
    return protects(event.path, _before(tree, change), event.content or b"")


def _holds_hidden(tree: StagedTree, change: Change) -> bool:
    return any(name.startswith(f"{change.name}/") for name in tree.hidden)


def difference(tree: StagedTree, change: Change) -> bytes:
    """Return one change as a person reads it: a patch where there is content, else a line."""
    path = tree.upper / change.name
    name = os.fsencode(change.name)
    if change.is_link:
        return b"link %b -> %b\n" % (name, os.fsencode(path.readlink()))
    if change.is_directory or change.kind in (Kind.MODE, Kind.SPECIAL):
        return b"%b %b\n" % (change.kind.encode(), name)
    after = b"" if change.kind is Kind.DELETE else path.read_bytes()
    return patch_of(change.name, _before(tree, change), after)


def patch_of(name: str, before: bytes, after: bytes) -> bytes:
    """Return the difference of two contents as a unified diff of one file.

    What holds a NUL is told as a binary patch. More lines than can be compared in
    reasonable time are told as all removed and all added: never fewer than there are.
    """
    shown = name.encode("utf-8", "surrogateescape")
    if b"\0" in before or b"\0" in after:
        return b"Binary files a/%b and b/%b differ\n" % (shown, shown)
    old, new = before.splitlines(), after.splitlines()
    head = b"--- a/%b\n+++ b/%b\n" % (shown, shown)
    if len(old) + len(new) > _DIFF_LINES_MAX:
        hunk = b"@@ -1,%d +1,%d @@\n" % (len(old), len(new))
        lines = [b"-" + line for line in old] + [b"+" + line for line in new]
        return head + hunk + b"\n".join(lines) + b"\n"
    diff = difflib.diff_bytes(difflib.unified_diff, old, new, shown, shown, lineterm=b"")
    return head + b"".join(line + b"\n" for line in list(diff)[2:])


def _before(tree: StagedTree, change: Change) -> bytes:
    """Return what the tree has under this name, nothing for what is no file."""
    path = tree.path / change.name
    if change.kind is Kind.CREATE or path.is_symlink() or not path.is_file():
        return b""
    return path.read_bytes()

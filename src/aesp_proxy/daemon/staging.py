"""Decide and record what a stage would change, before any of it is published.

Each change is an event like any other: the path as it would be named and as it resolves,
the operation, the content that is written, and the difference to what was there as a
patch. The decision on each is in the record before anything is published, and one
refusal refuses the whole: a half of what an agent did is not what anybody looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aesp_proxy.daemon.file_judge import FileJudge, Judged
from aesp_proxy.daemon.scrub import scrubbed_of_file
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.intercept.stage.changes import Change, Kind, changes_of
from aesp_proxy.intercept.stage.stage import Stage, StagedTree
from aesp_proxy.model.decision import Decision, Reason
from aesp_proxy.model.event import FileOperation
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Record, RecordId
from aesp_proxy.normalize.patch_of import patch_of
from aesp_proxy.record.compose import decision_record

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
    """Vets stages by one snapshot. ``content_bytes_max`` is the largest file that is read.

    ``exact`` are registered values that the snapshot does not know: no record has them.
    """

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        journal: Recorder,
        principal: Principal,
        now_ns: Callable[[], int],
        content_bytes_max: int,
        exact: ExactIndex | None = None,
    ) -> None:
        self._journal = journal
        self._exact = exact
        self._judge = FileJudge(
            snapshot=snapshot,
            principal=principal,
            now_ns=now_ns,
            content_bytes_max=content_bytes_max,
            guard="stage",
        )

    def vet(self, stage: Stage) -> Iterator[Vetted]:
        """Yield each change with its decision, once that is recorded.

        RecordError when it cannot be recorded: then nothing may be published.
        """
        for tree in stage.trees:
            for change in changes_of(tree):
                yield Vetted(tree=tree.path, change=change, decision=self._decided(tree, change))

    def _decided(self, tree: StagedTree, change: Change) -> Decision:
        path = str(tree.path / change.name)
        resolved = _resolved(tree, change)
        try:
            event, decision = self._judged(tree, change, path, resolved)
        except OSError as error:
            event = self._judge.event(_OPERATIONS[change.kind], path, resolved)
            reason = f"it cannot be read: {error.strerror}"
            decision = self._judge.refusal(Reason.INTERCEPTOR_FAILED, reason)
        record = decision_record(event, decision, time_ns=event.time_ns)
        self._journal.append(scrubbed_of_file(record, self._judge.snapshot.scanner, self._exact))
        return decision

    def _judged(self, tree: StagedTree, change: Change, path: str, resolved: str) -> Judged:
        judge, operation = self._judge, _OPERATIONS[change.kind]
        refused = _refused(tree, change)
        if refused is not None:
            return Judged(judge.event(operation, path, resolved), judge.refusal(*refused))
        if change.is_link or change.kind not in (Kind.CREATE, Kind.WRITE):
            is_directory = change.kind is Kind.MAKE_DIRECTORY
            return judge.access(operation, path, resolved, is_directory=is_directory)
        written = tree.upper / change.name
        size = written.stat().st_size
        after = written.read_bytes() if size <= judge.content_bytes_max else None
        before = None if change.kind is Kind.CREATE else _before(tree, change)
        return judge.writing(path, resolved, before, after, size)


def _resolved(tree: StagedTree, change: Change) -> str:
    """Return where a name leads once it is published; a link, to where it points."""
    path = tree.path / change.name
    if change.is_link:
        return os.path.normpath(path.parent / (tree.upper / change.name).readlink())
    return os.path.realpath(path.parent) + "/" + path.name


def _refused(tree: StagedTree, change: Change) -> tuple[Reason, str] | None:
    """Refuse what no guard is asked about."""
    if change.kind is Kind.SPECIAL:
        return Reason.UNSUPPORTED, "devices, pipes and sockets stay behind"
    if change.kind is Kind.DELETE and _holds_hidden(tree, change):
        return Reason.PATH_FORBIDDEN, "files in it were hidden, and would be removed unseen"
    return None


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


def _before(tree: StagedTree, change: Change) -> bytes:
    """Return what the tree has under this name, nothing for what is no file."""
    path = tree.path / change.name
    if change.kind is Kind.CREATE or path.is_symlink() or not path.is_file():
        return b""
    return path.read_bytes()

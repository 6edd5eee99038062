"""What is decided of files, the same for every backend: by name, by content, by what changes.

Nothing is recorded here: who asks does, before anything takes effect. A write is decided
by what it would leave behind: names that others run or trust are refused whatever the
policy says, then the guards are asked about name and content, then about the difference
to what was there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.guards.patch_integrity import PatchIntegrity
from aesp_proxy.decide.protected import protects
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict
from aesp_proxy.model.event import FileAccess, FileOperation, PatchApply
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.patch_of import patch_of

_WRITING: Final = frozenset(
    {FileOperation.CREATE, FileOperation.WRITE, FileOperation.DELETE, FileOperation.RENAME}
)
_OF_CONTENT: Final = frozenset({Reason.SECRET_FOUND, Reason.UNSCANNABLE})
_OF_SIZE: Final = frozenset({Reason.PATCH_TOO_LARGE, Reason.PATCH_UNBALANCED})
_EMPTY: Final = frozenset({FileOperation.CREATE, FileOperation.DELETE})

SECRET: Final = "secret"  # noqa: S105 - a label
"""The label of content with a finding of a kind that has no tag of its own."""
UNREAD: Final = "unread"
"""The label of content that was more than is read."""


class Strictness(NamedTuple):
    """What is let be of what is written.

    ``notes_secrets``: a secret in it is told and does not refuse, as what leaves is looked
    at anyhow. ``takes_new_files_of_any_size``: limits of a patch are for changes of what
    there is, and not for what an installer unpacks.
    """

    notes_secrets: bool = False
    takes_new_files_of_any_size: bool = False


STRICT: Final = Strictness()


class Judged(NamedTuple):
    """An event and what was decided of it."""

    event: FileAccess
    decision: Decision


class FileJudge:
    """Decides accesses to files by one snapshot; ``guard`` names who refuses by itself.

    ``written`` is what it lets be of what is written.
    """

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        principal: Principal,
        now_ns: Callable[[], int],
        content_bytes_max: int,
        guard: str,
        written: Strictness = STRICT,
    ) -> None:
        self.snapshot = snapshot
        self._written = written
        self.principal = principal
        self.content_bytes_max = content_bytes_max
        self._now_ns = now_ns
        self._guard = guard
        self._reads_patches = any(isinstance(each, PatchIntegrity) for each in snapshot.guards)
        rules = snapshot.scanner.rules if snapshot.scanner is not None else ()
        self._tags = {rule.id: rule.tags for rule in rules if rule.tags}

    def labels(self, decision: Decision) -> tuple[str, ...]:
        """Say what kinds of content were found: the tags of the rules, ``secret`` for the rest."""
        tags = self._tags
        found = (tags.get(each.rule, ()) or (SECRET,) for each in decision.findings)
        return tuple(sorted({label for labels in found for label in labels}))

    def event(
        self, operation: FileOperation, path: str, resolved: str, content: bytes | None = None
    ) -> FileAccess:
        """Make the event of one access."""
        return FileAccess(
            event_id="",
            time_ns=self._now_ns(),
            principal=self.principal,
            operation=operation,
            path=path,
            resolved=resolved,
            content=content,
        )

    def access(
        self, operation: FileOperation, path: str, resolved: str, *, is_directory: bool = False
    ) -> Judged:
        """Decide by the name alone; what is written is decided when it is known."""
        event = self.event(operation, path, resolved)
        # An empty directory runs nothing: git makes one for its samples, and a clone that is
        # removed loses one.
        if operation in _WRITING and not (is_directory and operation in _EMPTY):
            # Git's configuration is decided by what would change in it.
            why = protects(path, b"", b"") or protects(resolved, b"", b"")
            if why:
                return Judged(event, self.refusal(Reason.PATH_FORBIDDEN, why))
        return Judged(event, decide(event, self.snapshot))

    def reading(self, path: str, resolved: str, content: bytes, *, refuses: bool) -> Judged:
        """Decide whether a file may be opened with this content.

        Secrets in it refuse only where ``refuses``; else they are noted: what leaves is
        looked at anyhow.
        """
        event = self.event(FileOperation.OPEN, path, resolved, content)
        decision = decide(event, self.snapshot)
        if decision.reason in _OF_CONTENT and not refuses:
            decision = self._noted(decision)
        return Judged(event, decision)

    def writing(
        self, path: str, resolved: str, before: bytes | None, after: bytes | None, size: int
    ) -> Judged:
        """Decide what a file may become: ``after``, None when it is more than is read."""
        operation = FileOperation.CREATE if before is None else FileOperation.WRITE
        event = self.event(operation, path, resolved, after)
        # A name that others trust is none to write to, by whichever way it is reached.
        names = (path,) if resolved == path else (path, resolved)
        whys = (protects(name, before or b"", after or b"") for name in names)
        if why := next(filter(None, whys), ""):
            return Judged(event, self.refusal(Reason.PATH_FORBIDDEN, why))
        if after is None:
            most = self.content_bytes_max
            told = f"{size} bytes are not read, and so not written: at most {most}"
            return Judged(event, self.refusal(Reason.LIMIT_EXCEEDED, told))
        decision = decide(event, self.snapshot)
        if decision.reason in _OF_CONTENT and self._written.notes_secrets:
            decision = self._noted(decision)
        if decision.verdict.passes and self._reads_patches:
            of_patch = decide(self._patch(event, before or b"", after), self.snapshot)
            is_free = before is None and self._written.takes_new_files_of_any_size
            passes = of_patch.verdict.passes or (is_free and of_patch.reason in _OF_SIZE)
            if of_patch.reason in _OF_CONTENT and self._written.notes_secrets:
                passes = True
            decision = decision if passes else of_patch
        return Judged(event, decision)

    def _noted(self, decision: Decision) -> Decision:
        """Tell of a finding, and let it be."""
        noted = self.refusal(decision.reason, decision.message, verdict=Verdict.AUDIT)
        return replace(noted, findings=decision.findings)

    def done(
        self,
        operation: FileOperation,
        path: str,
        resolved: str,
        content: bytes | None,
        *,
        is_directory: bool,
    ) -> Judged:
        """Judge what has happened: what would have been refused is told as gravely, but passed."""
        judged = self.access(operation, path, resolved, is_directory=is_directory)
        # What was there before is not known: all that names a program counts as new.
        if content is not None and (why := protects(resolved, b"", content)):
            judged = Judged(judged.event, self.refusal(Reason.PATH_FORBIDDEN, why))
        if judged.decision.verdict.passes and content is not None:
            event = self.event(operation, path, resolved, content)
            judged = Judged(event, decide(event, self.snapshot))
        decision = judged.decision
        if decision.verdict.passes:
            return judged
        told = f"not stopped: {decision.message}"
        return Judged(judged.event, replace(decision, verdict=Verdict.AUDIT, message=told))

    def _patch(self, event: FileAccess, before: bytes, after: bytes) -> PatchApply:
        return PatchApply(
            event_id="",
            time_ns=event.time_ns,
            principal=event.principal,
            path=event.path,
            resolved=event.resolved,
            patch=patch_of(event.path, before, after),
        )

    def refusal(self, reason: Reason, message: str, *, verdict: Verdict = Verdict.DENY) -> Decision:
        """Make a decision that no guard has made."""
        return Decision(
            verdict=verdict,
            reason=reason,
            guard=self._guard,
            severity=Severity.ERROR,
            message=message,
            policy_name=self.snapshot.policy_name,
            policy_hash=self.snapshot.policy_hash,
        )

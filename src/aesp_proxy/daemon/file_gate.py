"""The flow for files: decision, record, and only then the effect.

What ``pipeline`` is for the network: a backend holds a system call, this decides and
records, the backend answers the kernel. Net 3: whatever fails is a denial. What was
allowed is recorded once for each operation and path as long as the policy stays: the
kernel itself then opens it a million times without asking.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, Protocol

from aesp_proxy.act.denial import Denial
from aesp_proxy.act.file import FileDenial
from aesp_proxy.daemon.denials import Denials, spelled
from aesp_proxy.daemon.file_judge import UNREAD, FileJudge, Judged
from aesp_proxy.daemon.file_names import is_lasting, sole_guard
from aesp_proxy.daemon.scrub import scrubbed_of_file
from aesp_proxy.daemon.tally import FileTally
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import RecordError
from aesp_proxy.intercept.file_port import NOBODY, Actor
from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict
from aesp_proxy.model.event import FileOperation
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.compose import decision_record

_MINUTE_NS: Final = 60 * 10**9
_KEPT_MAX: Final = 200_000
ENFORCED_KEY: Final = "enforced"
"""Metadata of a record: ``no`` where what it tells of had happened before."""
_PROBES: Final = tuple("/".join(["\x01 nobody's name"] * depth) for depth in range(1, 5))
_NOT_RECORDED: Final = "not-recorded"


class _Asked(NamedTuple):
    """What a process asked for, in its own words; no name where it gave none."""

    operation: FileOperation = FileOperation.OPEN
    name: str = ""


_UNASKED: Final = _Asked()


class Recorder(Protocol):
    """The journal."""

    def append(self, record: Record) -> RecordId:
        """Write one record; RecordError when it cannot be made durable."""


class JudgedFileGate:
    """Decides and records for one backend; not for several threads at once.

    ``judge`` makes the decisions and is replaced with the policy (``swap``).
    ``reading_refuses`` is whether secrets in a file refuse its opening. ``tell_labels`` says
    to the proxy what is about to be read (``session_labels``).
    """

    def __init__(
        self,
        judge: FileJudge,
        journal: Recorder,
        *,
        reading_refuses: bool,
        user_of: Callable[[int], str] | None = None,
        tell_labels: Callable[[tuple[str, ...] | None], bool] = lambda _: True,
    ) -> None:
        self._judge = judge
        self._journal = journal
        self._reading_refuses = reading_refuses
        self._user_of = user_of
        self._tell_labels = tell_labels
        self._hidden: dict[str, bool] = {}
        self._take(judge)
        self._allowed: set[tuple[FileOperation, str, str]] = set()
        self._swaps = 1
        self.content_bytes_max = judge.content_bytes_max
        self.counts = {"allowed": 0, "refused": 0}
        self.tally = FileTally()
        self.denials = Denials(time.time_ns)

    def _take(self, judge: FileJudge) -> None:
        sole = sole_guard(judge)
        self._sole_patterns: PathGlobs | None = sole.patterns if sole else None
        self._sole_exceptions: PathGlobs | None = sole.exceptions if sole else None
        self.is_lasting = is_lasting(judge)

    @property
    def generation(self) -> int:
        """Grows with each policy, and each minute where an answer may change by itself."""
        if self.is_lasting:
            return self._swaps
        return self._swaps + time.monotonic_ns() // _MINUTE_NS

    def swap(self, judge: FileJudge) -> None:
        """Decide by another policy from now on."""
        self._judge = judge
        self._take(judge)
        self._hidden, self._allowed = {}, set()
        self._swaps += 1

    @property
    def snapshot(self) -> Snapshot:
        """The policy that is decided by."""
        return self._judge.snapshot

    def hides(self, path: str) -> bool:
        """Tell whether nothing may open this path; see ``file_port``."""
        patterns = self._sole_patterns
        if patterns is not None and patterns.find(path) is None:
            return False
        known = self._hidden.get(path)
        if known is None:
            try:
                event = self._judge.event(FileOperation.OPEN, path, path)
                known = not decide(event, self._judge.snapshot).verdict.passes
            except Exception:  # noqa: BLE001 - net 3: what cannot be decided is not there
                return True
            if self.is_lasting:
                if len(self._hidden) >= _KEPT_MAX:
                    self._hidden.clear()
                self._hidden[path] = known
        return known

    def hides_nothing_below(self, path: str) -> bool:
        """Tell whether no path below a directory can be hidden; see ``file_port``.

        An exception that matches names nobody has thought of, at several depths, ends in
        ``**`` and so matches all below.
        """
        excepted = self._sole_exceptions
        return excepted is not None and all(
            excepted.find(f"{path}/{probe}") is not None for probe in _PROBES
        )

    def refuse_access(
        self,
        operation: FileOperation,
        path: str,
        resolved: str,
        actor: Actor = NOBODY,
        *,
        is_directory: bool = False,
        is_told_later: bool = False,
        is_named: bool = True,
    ) -> FileDenial | None:
        """Decide one access by its name; see ``file_port``."""
        key = (operation, path, resolved)
        is_told = key in self._allowed
        if is_told and self.is_lasting:
            return None
        judge = self._judge
        denial = self._answer(
            lambda: judge.access(operation, path, resolved, is_directory=is_directory),
            actor,
            _Asked(operation, path if is_named else ""),
            is_told=is_told or is_told_later,
        )
        if denial is None and not is_directory and not is_told_later:
            if len(self._allowed) >= _KEPT_MAX:
                self._allowed.clear()
            self._allowed.add(key)
        return denial

    def refuse_reading(
        self, path: str, resolved: str, content: bytes | None, size: int, actor: Actor = NOBODY
    ) -> FileDenial | None:
        """Decide by its content whether a file may be opened; see ``file_port``."""
        judge, refuses = self._judge, self._reading_refuses
        if content is None and refuses and judge.snapshot.scanner is not None:
            told = f"{size} bytes are not read: at most {self.content_bytes_max}"
            return self._answer(
                lambda: Judged(
                    judge.event(FileOperation.OPEN, path, resolved),
                    judge.refusal(Reason.LIMIT_EXCEEDED, told),
                ),
                actor,
                _Asked(FileOperation.OPEN, path),
                size=size,
            )
        return self._answer(
            lambda: self._told(judge, path, resolved, content),
            actor,
            _Asked(FileOperation.OPEN, path),
            size=size,
            only_findings=True,
        )

    def _told(self, judge: FileJudge, path: str, resolved: str, content: bytes | None) -> Judged:
        """Judge a content, and tell its labels to the proxy: what is not told is not read."""
        labels: tuple[str, ...] | None = None
        if judge.snapshot.scanner is None:
            judged = judge.access(FileOperation.OPEN, path, resolved)
        elif content is None:
            judged, labels = judge.access(FileOperation.OPEN, path, resolved), (UNREAD,)
        else:
            judged = judge.reading(path, resolved, content, refuses=self._reading_refuses)
            labels = judge.labels(judged.decision)
        if not judged.decision.verdict.passes or self._tell_labels(labels):
            return judged
        what = "the proxy cannot be told what is read"
        return Judged(judged.event, judge.refusal(Reason.INTERCEPTOR_FAILED, what))

    def refuse_writing(
        self,
        path: str,
        resolved: str,
        before: bytes | None,
        after: bytes | None,
        size: int,
        actor: Actor = NOBODY,
        *,
        is_named: bool = True,
    ) -> FileDenial | None:
        """Decide what a close, a rename or a publication would change; see ``file_port``."""
        judged = partial(self._judge.writing, path, resolved, before, after, size)
        asked = _Asked(FileOperation.WRITE, path if is_named else "")
        return self._answer(judged, actor, asked, size=size)

    def refuse_unsupported(
        self, path: str, what: str, actor: Actor = NOBODY, *, is_named: bool = True
    ) -> FileDenial:
        """Refuse and record what a backend has no answer for."""
        judge = self._judge
        decision = judge.refusal(Reason.UNSUPPORTED, what)
        denial = self._answer(
            lambda: Judged(judge.event(FileOperation.OPEN, path, path), decision),
            actor,
            _Asked(FileOperation.OPEN, path if is_named else ""),
        )
        return denial or self._denied(decision)

    def permits(self, operation: FileOperation, path: str, resolved: str) -> bool:
        """Tell whether an access would pass by its name; see ``file_port``."""
        try:
            return self._judge.access(operation, path, resolved).decision.verdict.passes
        except Exception:  # noqa: BLE001 - net 3: what cannot be decided is not permitted
            return False

    def note_done(
        self,
        operation: FileOperation,
        path: str,
        resolved: str,
        actor: Actor = NOBODY,
        *,
        size: int,
        content: bytes | None = None,
        is_directory: bool = False,
    ) -> None:
        """Record what could not be stopped; see ``file_port``."""
        judge = self._judge
        self._answer(
            lambda: judge.done(operation, path, resolved, content, is_directory=is_directory),
            actor,
            _UNASKED,
            size=size,
            notes=((ENFORCED_KEY, "no"),),
        )

    def note_gap(self, what: str) -> None:
        """Record that something may not have been seen; see ``file_port``."""
        record = Record(
            kind=RecordKind.LIFECYCLE,
            time_ns=self._judge.event(FileOperation.OPEN, "/", "/").time_ns,
            event_type="files.overflow",
            action="files.watch",
            outcome=Outcome.FAILURE,
            verdict="",
            reason="",
            guard="",
            severity="error",
            message=what,
            resource="",
        )
        with contextlib.suppress(RecordError):
            self._journal.append(record)

    # recording --------------------------------------------------------------------

    def _answer(
        self,
        judged: Callable[[], Judged],
        actor: Actor,
        asked: _Asked,
        *,
        size: int | None = None,
        only_findings: bool = False,
        is_told: bool = False,
        notes: tuple[tuple[str, str], ...] = (),
    ) -> FileDenial | None:
        """Decide and record.

        ``only_findings`` leaves out what passed with nothing to tell, ``is_told`` what passed
        as it did before.
        """
        try:
            event, decision = judged()
            passes = decision.verdict.passes
            if passes and (is_told or (only_findings and not decision.findings)):
                return None
            # All at once: to replace parts of a record of forty fields takes as long as to decide.
            record = decision_record(
                event,
                decision,
                time_ns=event.time_ns,
                principal_id=self._who(actor),
                notes=(*self._notes(decision, size, actor), *notes),
            )
            record_id = self._journal.append(
                scrubbed_of_file(_in_utf8(record), self._judge.snapshot.scanner)
            )
            self.tally.decided(record, is_kept=record_id.seq != 0)
        except RecordError:
            self.tally.unrecorded()
            return self._denied(
                self._failed(Reason.RECORD_FAILED, "it could not be recorded"), asked
            )
        except Exception as error:  # noqa: BLE001 - net 3: a decision that fails in a new way denies
            what = f"no decision on a file: {type(error).__name__}"
            return self._denied(self._failed(Reason.ENGINE_FAILED, what), asked)
        self.counts["allowed" if passes else "refused"] += 1
        return None if passes else self._denied(decision, asked, str(record_id))

    def _who(self, actor: Actor) -> str:
        """Name the user that asked, where that is known."""
        if not actor.pid or actor.uid is None or self._user_of is None:
            return ""
        return self._user_of(actor.uid)

    def _notes(
        self, decision: Decision, size: int | None, actor: Actor
    ) -> Iterator[tuple[str, str]]:
        """Say which process asked, and the size and labels of the content, where known."""
        if actor.pid:
            yield "pid", str(actor.pid)
        if decision.findings:
            yield "labels", ",".join(self._judge.labels(decision))
        if size is not None:
            yield "size", str(size)

    def _failed(self, reason: Reason, message: str) -> Decision:
        snapshot = self._judge.snapshot
        return Decision(
            verdict=Verdict.DENY,
            reason=reason,
            guard="files",
            severity=Severity.CRITICAL,
            message=message,
            policy_name=snapshot.policy_name,
            policy_hash=snapshot.policy_hash,
        )

    def _denied(
        self, decision: Decision, asked: _Asked = _UNASKED, record_id: str = _NOT_RECORDED
    ) -> FileDenial:
        if asked.name:
            self.denials.note(asked.operation, asked.name, decision.reason.value)
        who = self._judge.principal
        return FileDenial(
            Denial(
                decision=decision,
                correlation_id=record_id,
                tenant_id=who.tenant_id,
                principal_id=who.principal_id,
            )
        )


def _in_utf8(record: Record) -> Record:
    """Spell bytes of a name that are not UTF-8 as escapes: no record holds them otherwise."""
    told = (record.resource, record.target_path, record.message)
    if all(map(str.isascii, told)):
        return record
    resource, path, message = map(spelled, told)
    return replace(record, resource=resource, target_path=path, message=message)

"""Watches the aggregator's transparency log from the host: what it has shown once must stay.

The host keeps the newest checkpoint it has seen and the proof that the log holds its newest
receipted batch, which by its chain names all before it. Rules: the log's keys are believed as
the pinned receipt key signs them; the log may only grow from what is kept here; a receipted
batch that is not in it after ten minutes was left out; a log that was shown and is hidden is
as bad. An alarm keeps what was shown as evidence and stands until a look finds everything
right; what is kept is never replaced by what contradicts it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from aesp_proxy.errors import InputError, RecordError, TrustError
from aesp_proxy.forward.transport import Answer
from aesp_proxy.record.files import OS_FILES, Files, write_durable
from aesp_proxy.record.merkle import verify_consistency
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.key_list import read_key_list
from aesp_proxy.record.tlog.note import Note, parse_note
from aesp_proxy.record.tlog.policy import LogPolicy
from aesp_proxy.record.tlog.proof import LogProof, parse_hash_lines, parse_proof, verify_proof

LATE_S: Final = 600.0
COUNTS_S_MAX: Final = 60.0
EVIDENCE_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSeen:
    """How the log stands for this host; ``alarm`` is why it is not to be trusted.

    ``batch`` is the newest of ours that is proved to be in it; ``waiting`` one that is not
    yet, and ``waiting_s`` for how long, counted only while the aggregator could be asked;
    ``hidden_s`` in the same way, for how long it has shown no log.
    """

    origin: str = ""
    size: int = 0
    batch: int = 0
    cosigned: tuple[str, ...] = ()
    at_s: float = 0.0
    waiting: int = 0
    waiting_s: float = 0.0
    hidden_s: float = 0.0
    alarm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the aggregator answers, read and not yet believed."""

    keys: bytes
    note: Note
    consistency: tuple[bytes, ...]
    proof: LogProof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBatches:
    """What the watch asks of the spool: the newest receipted batch, and a batch's leaf."""

    covered: Callable[[], int]
    leaf: Callable[[int], bytes | None]


class LogWatch:
    """The watch over one aggregator; ``directory`` is where it keeps what it has seen."""

    def __init__(
        self,
        directory: Path,
        receipt_key: bytes,
        own: OwnBatches,
        *,
        get: Callable[[str], Answer],
        policy: LogPolicy | None = None,
        files: Files = OS_FILES,
        late_s: float = LATE_S,
    ) -> None:
        self._directory, self._receipt_key, self._own = directory, receipt_key, own
        self._get, self._policy, self._files = get, policy or LogPolicy(), files
        self._late_s = late_s

    def look(self, *, now_s: float) -> LogSeen:
        """Ask for the log and check it; give how it stands, kept durably.

        UnavailableError (of ``get``) when the aggregator cannot be reached, RecordError when
        what was seen cannot be kept.
        """
        before = self.seen()
        waiting = before.waiting or self._own.covered()
        # What lies between two looks counts up to a minute: an outage is nobody's fault.
        gone_s = min(max(0.0, now_s - before.at_s), COUNTS_S_MAX) if before.at_s else 0.0
        waited_s = before.waiting_s + gone_s if before.waiting else 0.0
        state = replace(before, at_s=now_s, waiting=waiting, waiting_s=waited_s)
        answer = b""
        try:
            kept = self.kept()
            answer = self._ask(waiting, kept.size if kept else 0)
            state = self._believe(replace(state, hidden_s=0.0), kept, read_shown(answer))
        except (InputError, TrustError) as error:
            self._keep_evidence(answer, kept=before)
            state = replace(state, alarm=str(error))
        except _HiddenError:
            state = self._hidden(replace(state, hidden_s=before.hidden_s + gone_s))
        self._write("seen.json", json.dumps(asdict(state)).encode())
        return state

    def seen(self) -> LogSeen:
        """Return how the log stood at the last look."""
        try:
            said = json.loads((self._directory / "seen.json").read_bytes())
            return LogSeen(**{**said, "cosigned": tuple(said["cosigned"])})
        except (OSError, ValueError, TypeError, KeyError):
            return LogSeen()

    def kept(self) -> Checkpoint | None:
        """Return the newest checkpoint that is kept; TrustError when it is damaged."""
        path = self._directory / "checkpoint"
        try:
            return parse_checkpoint(parse_note(path.read_bytes()).text)
        except FileNotFoundError:
            return None
        except (OSError, InputError) as error:
            raise TrustError(f"the checkpoint kept here cannot be read: {error}") from error

    def _ask(self, batch_no: int, since: int) -> bytes:
        answer = self._get(f"log/proof?batch={batch_no}&since={since}")
        if answer.status != 200:
            raise _HiddenError  # whatever it says: it takes batches and does not show this
        return answer.body

    def _believe(self, state: LogSeen, kept: Checkpoint | None, shown: Shown) -> LogSeen:
        keys = read_key_list(shown.keys, public_key=self._receipt_key)
        policy = replace(self._policy, logs=keys)
        accepted = policy.accept(shown.note)
        _check_growth(kept, accepted.checkpoint, shown.consistency)
        state = self._check_own(state, policy, shown)
        self._write("checkpoint", shown.note.encode())
        return replace(
            state,
            origin=accepted.checkpoint.origin,
            size=accepted.checkpoint.size,
            cosigned=accepted.witnesses,
        )

    def _check_own(self, state: LogSeen, policy: LogPolicy, shown: Shown) -> LogSeen:
        """Check the proof of the batch that was asked for, or how long it is not there."""
        leaf = self._own.leaf(state.waiting) if state.waiting else None
        if leaf is None:  # nothing is receipted yet, or it was released meanwhile
            return replace(state, waiting=0, waiting_s=0.0, alarm="")
        if shown.proof is None:
            late = state.waiting_s > self._late_s
            alarm = f"the log leaves out batch {state.waiting}, which was receipted" if late else ""
            return replace(state, alarm=alarm)
        if shown.proof.note.text != shown.note.text:
            raise TrustError("the proof is of another checkpoint than the one shown")
        verify_proof(shown.proof, leaf, policy)
        self._write("proof", shown.proof.encode())
        return replace(state, batch=state.waiting, waiting=0, waiting_s=0.0, alarm="")

    def _hidden(self, state: LogSeen) -> LogSeen:
        # An aggregator that never had a log is an old one; one that had is hiding it.
        if state.size and state.hidden_s > self._late_s:
            return replace(state, alarm="the aggregator does not show its log any more")
        return state

    def _keep_evidence(self, answer: bytes, *, kept: LogSeen) -> None:
        """Keep what was shown, once for each alarm that begins."""
        if not answer or kept.alarm:
            return
        number = sum(path.name.startswith("evidence-") for path in self._directory.glob("*"))
        if number < EVIDENCE_MAX:
            self._write(f"evidence-{number:02d}.json", answer)

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            write_durable(self._files, self._directory / name, content)
        except OSError as error:
            raise RecordError(
                f"what the log showed cannot be kept: {error.strerror}", where=str(self._directory)
            ) from error


class _HiddenError(Exception):
    """The aggregator shows no log."""


def read_shown(data: bytes) -> Shown:
    """Read the aggregator's answer. InputError when it is none."""
    try:
        said: Any = json.loads(data)
        keys, note, proof = said["keys"], said["checkpoint"], said["proof"]
        lines = said["consistency"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError("the aggregator's answer about its log is not readable") from error
    texts = [keys, note, *([] if proof is None else [proof])]
    if not isinstance(lines, list) or not all(isinstance(text, str) for text in [*texts, *lines]):
        raise InputError("the aggregator's answer about its log is not what was asked for")
    try:
        return Shown(
            keys=keys.encode(),
            note=parse_note(note.encode()),
            consistency=parse_hash_lines(lines),
            proof=None if proof is None else parse_proof(proof.encode()),
        )
    except UnicodeEncodeError as error:
        raise InputError("the aggregator's answer about its log is not UTF-8") from error


def _check_growth(kept: Checkpoint | None, new: Checkpoint, path: tuple[bytes, ...]) -> None:
    if kept is None:
        return
    if new.origin != kept.origin:
        raise TrustError(f"another log is shown than before: {new.origin!r}")
    if new.size < kept.size:
        raise TrustError(f"the log has shrunk from {kept.size} to {new.size} entries")
    if not verify_consistency(kept.size, new.size, kept.root, new.root, path):
        raise TrustError(f"the log of {new.size} entries does not begin with the {kept.size} seen")

"""Asks witnesses to cosign checkpoints (C2SP tlog-witness), and never waits long for one.

Rules: a witness has one question at a time; one that is down or slow is asked again a little
later each time, and nobody waits for it meanwhile unless the quorum needs it; a cosignature
counts when it verifies over the very text that was sent. A witness that has seen a longer
log, or another one of this length, is the alarm that all this is for.
"""

from __future__ import annotations

import ssl
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from aesp_proxy.errors import AespError, ConfigError, InputError, TrustError, UnavailableError
from aesp_proxy.record.tlog.note import (
    Note,
    NoteSignature,
    parse_decimal,
    parse_signatures,
    verify_note,
)
from aesp_proxy.record.tlog.proof import hash_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aesp_proxy.record.tlog.checkpoint import Checkpoint
    from aesp_proxy.record.tlog.policy import LogPolicy, Witness

ASK_S_MAX: Final = 5.0
GRACE_S: Final = 1.0
"""How long one that answered the last time is waited for, when the quorum is there."""
PAUSE_S_MAX: Final = 60.0
ANSWER_BYTES_MAX: Final = 65_536
_TRIES: Final = 3


@dataclass(slots=True)
class Cosigner:
    """What is known of one witness."""

    witness: Witness
    size: int = 0
    error: str = ""
    is_alarm: bool = False
    failures: int = 0
    again_s: float = float("-inf")
    asked: Future[None] | None = None
    held: tuple[str, tuple[NoteSignature, ...]] = ("", ())
    """The text it has cosigned last, and its signatures: one value, set by its own thread."""


class Cosigners:
    """The witnesses of one policy."""

    def __init__(self, policy: LogPolicy, *, tls: ssl.SSLContext | bool = True) -> None:
        without = [witness.name for witness in policy.witnesses if not witness.url]
        if without:
            raise ConfigError(f"gives no URL for witness {without[0]}", where="log.policy")
        self._policy = policy
        self.all = [Cosigner(witness) for witness in policy.witnesses]
        self._client = httpx.Client(verify=tls, timeout=ASK_S_MAX, trust_env=False)
        self._pool = ThreadPoolExecutor(max(1, len(self.all)), thread_name_prefix="witness")

    def close(self) -> None:
        """Ask nobody any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def joined(self, note: Note, published: Note | None) -> Note:
        """Add what is held of cosignatures over this text, and those that are published of it."""
        held = [cosigner.held for cosigner in self.all]
        lines = {
            (line.name, line.key_id): line
            for text, found in held
            if text == note.text
            for line in found
        }
        known = {(one.witness.key.name, one.witness.key.key_id) for one in self.all}
        if published is not None and published.text == note.text:
            for line in published.signatures:
                if (line.name, line.key_id) in known:
                    lines.setdefault((line.name, line.key_id), line)
        return Note(text=note.text, signatures=(*note.signatures, *lines.values()))

    def is_quorum(self, note: Note) -> bool:
        """Whether the policy is content with who has cosigned; each signature is verified."""
        return self._policy.is_quorum(self._policy.cosigners(note))

    def standing(self) -> tuple[tuple[str, int, str], ...]:
        """Return of each witness its name, how many entries it has cosigned, what is wrong."""
        return tuple((one.witness.name, one.size, one.error) for one in self.all)

    def ask(
        self, note: Note, checkpoint: Checkpoint, prove: Callable[[int], Sequence[bytes]]
    ) -> None:
        """Ask all that can be asked; wait for the quorum, and shortly for the rest."""
        begun_s = time.monotonic()
        for cosigner in self.all:
            is_busy = cosigner.asked is not None and not cosigner.asked.done()
            if not is_busy and begun_s >= cosigner.again_s:
                cosigner.asked = self._pool.submit(self._ask, cosigner, note, checkpoint, prove)
        while waited := self._waited_for(note, begun_s):
            left_s = begun_s + self._patience_s(note) - time.monotonic()
            if left_s <= 0:
                return
            wait(waited, timeout=left_s, return_when=FIRST_COMPLETED)

    def _patience_s(self, note: Note) -> float:
        return GRACE_S if self.is_quorum(self.joined(note, None)) else ASK_S_MAX

    def _waited_for(self, note: Note, begun_s: float) -> list[Future[None]]:
        is_quorum = self.is_quorum(self.joined(note, None))
        return [
            cosigner.asked
            for cosigner in self.all
            if cosigner.asked is not None
            and not cosigner.asked.done()
            and begun_s >= cosigner.again_s
            and not (is_quorum and cosigner.failures)
        ]

    def _ask(
        self,
        cosigner: Cosigner,
        note: Note,
        checkpoint: Checkpoint,
        prove: Callable[[int], Sequence[bytes]],
    ) -> None:
        try:
            lines = self._exchange(cosigner, note, checkpoint, prove)
        except AespError as error:
            cosigner.error = error.message
            cosigner.is_alarm = isinstance(error, TrustError)
            cosigner.failures += 1
            pause_s = min(PAUSE_S_MAX, 2.0 ** min(cosigner.failures - 1, 6))
            cosigner.again_s = time.monotonic() + pause_s
        else:
            cosigner.held, cosigner.size = (note.text, lines), checkpoint.size
            cosigner.error, cosigner.is_alarm, cosigner.failures = "", False, 0

    def _exchange(
        self,
        cosigner: Cosigner,
        note: Note,
        checkpoint: Checkpoint,
        prove: Callable[[int], Sequence[bytes]],
    ) -> tuple[NoteSignature, ...]:
        for _ in range(_TRIES):
            body = f"old {cosigner.size}\n{hash_lines(prove(cosigner.size))}\n".encode()
            response = self._post(cosigner.witness.url, body + note.encode())
            if response.status_code == httpx.codes.OK:
                return _lines_of(response.text, note, cosigner.witness)
            if response.status_code != httpx.codes.CONFLICT:
                raise _refusal(response.status_code)
            known = parse_decimal(response.text.removesuffix("\n"), "the witness's size")
            if known > checkpoint.size:
                raise TrustError(
                    f"it has cosigned {known} entries of this log, which has {checkpoint.size}"
                )
            if known == cosigner.size == checkpoint.size:
                raise TrustError(f"it has cosigned another log of {known} entries")
            cosigner.size = known
        raise UnavailableError("its size changes with every question")

    def _post(self, url: str, body: bytes) -> httpx.Response:
        try:
            response = self._client.post(f"{url.rstrip('/')}/add-checkpoint", content=body)
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            raise UnavailableError(f"no answer: {error}") from error
        if len(response.content) > ANSWER_BYTES_MAX:
            raise InputError("its answer is too long")
        return response


def _lines_of(text: str, note: Note, witness: Witness) -> tuple[NoteSignature, ...]:
    """Take the witness's own cosignatures out of its answer. InputError or TrustError."""
    answer = Note(text=note.text, signatures=parse_signatures(text))
    try:
        held = verify_note(answer, [witness.key])
    except TrustError as error:
        raise InputError(f"its answer is not to be trusted: {error.message}") from error
    if not held:
        raise InputError("its answer has no cosignature of its key")
    names = {(witness.key.name, witness.key.key_id)}
    return tuple(s for s in answer.signatures if (s.name, s.key_id) in names)[:1]


def _refusal(status: int) -> AespError:
    match status:
        case 403:
            return UnavailableError("it does not know a key that signs this log (403)")
        case 404:
            return UnavailableError("it does not know this log (404)")
        case 422:
            return TrustError("what it has cosigned is not the beginning of this log (422)")
        case _:
            return UnavailableError(f"it answers {status}")


def witness_tls(ca_file: Path) -> ssl.SSLContext:
    """Trust the system's authorities, and those in ``ca_file`` where it is there."""
    context = ssl.create_default_context()
    try:
        if ca_file.exists():
            context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot be used: {error}", where=str(ca_file)) from error
    return context

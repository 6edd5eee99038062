"""A witness on disk: its key, the logs it knows, and the newest checkpoint it cosigned of each.

Layout of the directory: ``witness.key`` (0600) and ``witness.vkey``; ``logs``, a verifier key
a line; ``cosigned/HASH``, the newest checkpoint of the log whose origin has that SHA-256, with
our own cosignature. Rules: a checkpoint is durable there before its cosignature leaves; what
is there is read anew at every request, so that after a failed write only the disk counts; one
process at a time has the directory.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from aesp_proxy import keys
from aesp_proxy.errors import ConfigError, InputError, RecordError, TrustError
from aesp_proxy.record.files import OS_FILES, Files, write_durable
from aesp_proxy.record.signature import new_seed
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    NoteKey,
    SigningNoteKey,
    parse_key,
    parse_note,
    parse_signing_key,
    sign_text,
    signing_key,
    verify_note,
)
from aesp_proxy.record.tlog.witness import AddCheckpoint, Refused, judge

if TYPE_CHECKING:
    from pathlib import Path

LOGS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class WitnessDir:
    """Where each thing of a witness stands."""

    root: Path

    @property
    def key(self) -> Path:
        """The key that cosigns."""
        return self.root / "witness.key"

    @property
    def public(self) -> Path:
        """Its public half, for logs and auditors."""
        return self.root / "witness.vkey"

    @property
    def logs(self) -> Path:
        """The verifier keys of the logs that are witnessed, one a line."""
        return self.root / "logs"

    @property
    def lock(self) -> Path:
        """Held by the one serving process."""
        return self.root / "serve.lock"

    @property
    def cosigned(self) -> Path:
        """The newest checkpoint of each log."""
        return self.root / "cosigned"

    def cosigned_of(self, origin: str) -> Path:
        """The newest checkpoint of one log; an origin is no file name, its hash is."""
        return self.cosigned / sha256(origin.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStanding:
    """How a log stands with a witness: the checkpoint it cosigned last, None for none yet."""

    origin: str
    checkpoint: Checkpoint | None
    time_s: int


def make_witness(root: Path, name: str) -> NoteKey:
    """Make a witness's directory and key. ConfigError where there is one already."""
    place = WitnessDir(root)
    if place.key.exists():
        raise ConfigError("holds the key of a witness already", where=str(root))
    made = signing_key(name, KeyType.COSIGNATURE, new_seed())
    keys.make_private_dir(root)
    keys.make_private_dir(place.cosigned)
    keys.write_atomic(place.public, f"{made.public}\n".encode(), mode=0o644)
    keys.write_atomic(place.key, f"{made.text}\n".encode())
    return made.public


def load_key(place: WitnessDir) -> SigningNoteKey:
    """Load the key that cosigns. ConfigError when there is none, or it is no witness's."""
    where = str(place.key)
    if not place.key.exists():
        raise ConfigError(
            "there is no witness here", where=str(place.root), remedy="run witness keygen first"
        )
    try:
        key = parse_signing_key(keys.read_private(place.key).decode("ascii"), where=where)
    except UnicodeDecodeError as error:
        raise ConfigError("holds no key", where=where) from error
    if key.public.kind is not KeyType.COSIGNATURE:
        raise ConfigError("is not the key of a witness (type 4)", where=where)
    return key


def load_logs(place: WitnessDir) -> dict[str, tuple[NoteKey, ...]]:
    """Read which logs are witnessed: the keys by origin. ConfigError for a line that is none."""
    found: dict[str, tuple[NoteKey, ...]] = {}
    if not place.logs.exists():
        return found
    try:
        lines = keys.read_bounded(place.logs).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", where=str(place.logs)) from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            key = parse_key(line, where=f"{place.logs}:{number}")
            found[key.name] = (*found.get(key.name, ()), key)
    if len(found) > LOGS_MAX:
        raise ConfigError(f"names more than {LOGS_MAX} logs", where=str(place.logs))
    return found


def trust_log(place: WitnessDir, text: str) -> NoteKey:
    """Witness one more log, or take one more key of one. ConfigError when it is known already."""
    load_key(place)
    key = parse_key(text, where="the log's key")
    if key.kind is not KeyType.ED25519:
        raise ConfigError("is not the key of a log (type 1)", where="the log's key")
    known = [item for found in load_logs(place).values() for item in found]
    if key in known:
        raise ConfigError("is witnessed already", where=key.name)
    lines = "".join(f"{item}\n" for item in [*known, key])
    keys.write_atomic(place.logs, lines.encode(), mode=0o644)
    return key


@dataclass(slots=True, kw_only=True)
class WitnessState:
    """What serves requests: one at a time, each against what the disk holds."""

    place: WitnessDir
    key: SigningNoteKey
    logs: dict[str, tuple[NoteKey, ...]]
    files: Files = OS_FILES
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def known(self, origin: str) -> LogStanding:
        """Return what was cosigned last. RecordError when it is damaged or cannot be read."""
        path = self.place.cosigned_of(origin)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return LogStanding(origin=origin, checkpoint=None, time_s=0)
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
        try:
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
            own = verify_note(note, [self.key.public])
        except (InputError, TrustError) as error:
            raise RecordError(f"is damaged: {error.message}", where=str(path)) from error
        if not own or checkpoint.origin != origin:
            raise RecordError("is not what this witness has cosigned", where=str(path))
        return LogStanding(origin=origin, checkpoint=checkpoint, time_s=own[0].time_s)

    def add(self, request: AddCheckpoint, *, time_s: int) -> str | Refused:
        """Cosign a checkpoint and keep it, durably, or refuse it; gives the signature line.

        RecordError when it cannot be kept: then nothing is signed for.
        """
        origin = request.checkpoint.origin
        with self._turn:
            trusted = self.logs.get(origin, ())
            known = self.known(origin).checkpoint if trusted else None
            refused = judge(request, trusted, known)
            if refused is not None:
                return refused
            signature = sign_text(request.note.text, self.key, time_s=time_s)
            # The log's own signatures are the evidence, should it ever show another history.
            held = {
                (signed.key.name, signed.key.key_id)
                for signed in verify_note(request.note, trusted)
            }
            of_log = tuple(s for s in request.note.signatures if (s.name, s.key_id) in held)
            kept = Note(text=request.note.text, signatures=(*of_log, signature))
            path = self.place.cosigned_of(origin)
            try:
                write_durable(self.files, path, kept.encode())
            except OSError as error:
                raise RecordError(f"cannot be kept: {error.strerror}", where=str(path)) from error
        return signature.line()


def open_state(root: Path, *, files: Files = OS_FILES) -> WitnessState:
    """Open a witness, with everything it has cosigned read once. ConfigError, RecordError."""
    place = WitnessDir(root)
    state = WitnessState(place=place, key=load_key(place), logs=load_logs(place), files=files)
    standings(state)
    return state


def standings(state: WitnessState) -> list[LogStanding]:
    """Return how each witnessed log stands, checked. RecordError when one is damaged."""
    return [state.known(origin) for origin in sorted(state.logs)]

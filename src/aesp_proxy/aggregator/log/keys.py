"""The keys that sign the log's checkpoints: made once, handed over by signing with both.

Rules: the name of every key is the log's origin; the newest stands first; all that stand
in the file sign, so that whoever knows the old key or the new one believes the checkpoint.
An old key is dropped by the operator, when everyone who verifies has the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from aesp_proxy import keys
from aesp_proxy.aggregator.identity import load_receipt_key
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.stores import open_objects
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.signature import new_seed
from aesp_proxy.record.tlog.key_list import KEYS_MAX
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    NoteKey,
    SigningNoteKey,
    parse_signing_key,
    sign_text,
    signing_key,
    verify_note,
)

if TYPE_CHECKING:
    from aesp_proxy.aggregator.identity import DataDir

_FIRST_KEY_DOMAIN: Final = b"aesp-proxy first log key v1\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKeys:
    """The keys of one log, newest first."""

    signing: tuple[SigningNoteKey, ...]

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.signing[0].public.name

    @property
    def public(self) -> tuple[NoteKey, ...]:
        """What checkpoints are verified with."""
        return tuple(key.public for key in self.signing)

    def sign(self, text: str) -> Note:
        """Sign a checkpoint's text with every key."""
        return Note(text=text, signatures=tuple(sign_text(text, k, time_s=0) for k in self.signing))


def ensure_log_key(data: DataDir) -> None:
    """Make the log's first key where there is none.

    Name and key come from the receipt key: aggregators of one region, which share that, have
    one log without another word.
    """
    if not data.log_key.exists():
        receipt_key = load_receipt_key(data)
        # Ed25519 is deterministic (RFC 8032), and nothing else signs this domain.
        seed = sha256(receipt_key.sign(_FIRST_KEY_DOMAIN)).digest()
        name = f"aesp-proxy/{receipt_key.key_id}/log"
        _write(data, (signing_key(name, KeyType.ED25519, seed),))


def load_log_keys(data: DataDir) -> LogKeys:
    """Load the keys. ConfigError when there are none, or they are damaged or open to others."""
    where = str(data.log_key)
    if not data.log_key.exists():
        raise ConfigError("there is no log yet", where=where, remedy="start the aggregator once")
    try:
        lines = keys.read_private(data.log_key).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError("holds no keys", where=where, remedy="restore it") from error
    found = tuple(parse_signing_key(line, where=where) for line in lines)
    names = {key.public.name for key in found}
    kinds = {key.public.kind for key in found}
    if len(names) != 1 or kinds != {KeyType.ED25519} or len(found) > KEYS_MAX:
        raise ConfigError("holds keys of more than one log", where=where, remedy="restore it")
    return LogKeys(signing=found)


def rotate(data: DataDir) -> LogKeys:
    """Add a new key, which signs beside the old ones from the next start on."""
    old = load_log_keys(data)
    if len(old.signing) >= KEYS_MAX:
        raise ConfigError(
            f"{KEYS_MAX} keys sign already", where=str(data.log_key), remedy="retire the old ones"
        )
    _write(data, (signing_key(old.origin, KeyType.ED25519, new_seed()), *old.signing))
    return load_log_keys(data)


def retire(data: DataDir) -> LogKeys:
    """Drop all keys but the newest.

    ConfigError when there is no other, or the newest has not yet signed what is stored: then
    nobody could tell whose checkpoint that is.
    """
    old = load_log_keys(data)
    if len(old.signing) == 1:
        raise ConfigError("has one key only", where=str(data.log_key), remedy="rotate first")
    objects = open_objects(data)
    try:
        stored = LogStore(objects).signed()
    finally:
        objects.close()
    if stored is not None and not verify_note(stored, old.public[:1]):
        raise ConfigError(
            "the newest key has signed nothing yet",
            where=str(data.log_key),
            remedy="start the aggregator once",
        )
    _write(data, old.signing[:1])
    return load_log_keys(data)


def _write(data: DataDir, signing: tuple[SigningNoteKey, ...]) -> None:
    # The public file first: a key that signs is always one that can be looked up.
    public = "".join(f"{key.public}\n" for key in signing)
    keys.write_atomic(data.log_public, public.encode(), mode=0o644)
    keys.write_atomic(data.log_key, "".join(f"{key.text}\n" for key in signing).encode())

"""Hand a chain over from one signing key to the next, whatever crashes on the way.

The steps, each durable before the next: somebody asks (``keys/rotate``); the sealer notes
the name of a new key and makes it; it notes from which batch the key holds (``keys/next``);
it seals the record in which the old key names the new one; the new key becomes the current
one; the old private half is removed, so that who takes the host later cannot rewrite what
was signed before; request and note go.

Rules: only the holder of the sealer's lock takes these steps. What a crash leaves is settled
from the note and the head before anything else is sealed: the record is in the chain, then
the rest is done; or it is not, then the new key was named to nobody and is given up, and the
request, which stands, begins anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.record.files import OS_FILES, Files, write_durable
from aesp_proxy.record.head import Head
from aesp_proxy.record.keys import (
    KEY_SUFFIX,
    PUBLIC_SUFFIX,
    SigningKey,
    current_key_id,
    is_key_id,
    load_key,
    set_current,
    write_key,
)
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem
from aesp_proxy.record.state import AuditPaths

_REQUEST: Final = "rotate"
_NOTE: Final = "next"
_NOTE_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """What a rotation under way has decided; ``from_batch`` 0 means: not yet."""

    old_key_id: str
    key_id: str
    from_batch: int = 0


def ask(paths: AuditPaths) -> None:
    """Ask the sealer for a new key. ConfigError where that cannot be written."""
    try:
        write_durable(OS_FILES, paths.keys / _REQUEST, b"")
    except OSError as error:
        raise ConfigError(
            f"cannot ask for a new key: {error.strerror}", where=str(paths.keys)
        ) from error


def is_asked(paths: AuditPaths) -> bool:
    """Whether a new key was asked for and the rotation is not over."""
    return (paths.keys / _REQUEST).exists()


def make_next_key(paths: AuditPaths, files: Files, *, old_key_id: str) -> SigningKey:
    """Note a new key's name, then make it, durably. OSError: :func:`settle` gives it up."""
    pem = new_private_pem()
    public_key, sign = signer_from_pem(pem)
    key_id = key_id_of(public_key)
    _note(paths, files, HandOver(old_key_id=old_key_id, key_id=key_id))
    write_key(paths, files, key_id, public_key, pem)
    return SigningKey(key_id=key_id, public_key=public_key, sign=sign)


def decide(paths: AuditPaths, files: Files, hand_over: HandOver) -> None:
    """Note from which batch the new key holds, before the batch that says so. OSError."""
    _note(paths, files, hand_over)


def finish(paths: AuditPaths, files: Files, hand_over: HandOver) -> None:
    """Let the new key sign, and forget the old private half. OSError: settle goes on."""
    set_current(paths, hand_over.key_id, files)
    files.unlink(paths.keys / (hand_over.old_key_id + KEY_SUFFIX))
    files.unlink(paths.keys / _REQUEST)
    files.unlink(paths.keys / _NOTE)
    files.sync_dir(paths.keys)


def settle(paths: AuditPaths, files: Files, head: Head, key: SigningKey) -> SigningKey:
    """Finish or undo what a crash left of a rotation, and give the key that signs now.

    ``head`` is where the chain stands, proved. OSError, ConfigError.
    """
    hand_over = _read_note(paths)
    if hand_over is None:
        return key
    named = hand_over.from_batch > 0 and head.batch_no >= hand_over.from_batch - 1
    if named or key.key_id == hand_over.key_id:
        finish(paths, files, hand_over)
        return load_key(paths, current_key_id(paths))
    files.unlink(paths.keys / (hand_over.key_id + KEY_SUFFIX))
    files.unlink(paths.keys / (hand_over.key_id + PUBLIC_SUFFIX))
    files.unlink(paths.keys / _NOTE)
    return key


def _note(paths: AuditPaths, files: Files, hand_over: HandOver) -> None:
    text = json.dumps([hand_over.old_key_id, hand_over.key_id, hand_over.from_batch])
    write_durable(files, paths.keys / _NOTE, text.encode() + b"\n")


def _read_note(paths: AuditPaths) -> HandOver | None:
    path = paths.keys / _NOTE
    try:
        with path.open("rb") as file:
            data = file.read(_NOTE_BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        old, new, from_batch = json.loads(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(paths) from error
    if not (is_key_id(old) and is_key_id(new) and type(from_batch) is int and from_batch >= 0):
        raise _damaged(paths)
    return HandOver(old_key_id=old, key_id=new, from_batch=from_batch)


def _damaged(paths: AuditPaths) -> ConfigError:
    return ConfigError(
        "the note of a key rotation is damaged",
        where=str(paths.keys / _NOTE),
        remedy="restore it, or remove it when the newest batch holds no audit.key_rotated",
    )

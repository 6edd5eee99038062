"""Which keys sign an aggregator's log, said by the key that its hosts have pinned.

A note whose text is a fixed line and then one verifier key a line, newest first. So a host
that knows the receipt key needs no other word to know the log's keys, new ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aesp_proxy.errors import ConfigError, InputError, TrustError
from aesp_proxy.record.signature import Signer, key_id_of
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    NoteKey,
    SigningNoteKey,
    parse_key,
    parse_note,
    sign_text,
    verify_note,
)

_FIRST_LINE: Final = "aesp-proxy log keys v1"
KEYS_MAX: Final = 4


def sign_key_list(keys: Sequence[NoteKey], *, public_key: bytes, sign: Signer) -> bytes:
    """Write the list, signed by the receipt key (32 raw bytes, and what signs)."""
    text = "".join(f"{line}\n" for line in (_FIRST_LINE, *map(str, keys)))
    signer = SigningNoteKey(public=_receipt_key(public_key), sign=sign, text="")
    return Note(text=text, signatures=(sign_text(text, signer, time_s=0),)).encode()


def read_key_list(data: bytes, *, public_key: bytes) -> tuple[NoteKey, ...]:
    """Read the list. InputError when it is none, TrustError when another key signed it."""
    note = parse_note(data)
    if not verify_note(note, [_receipt_key(public_key)]):
        raise TrustError("the list of the log's keys is not signed by the receipt key")
    first, *lines = note.text.removesuffix("\n").split("\n")
    if first != _FIRST_LINE or not 1 <= len(lines) <= KEYS_MAX:
        raise InputError("this is no list of a log's keys")
    try:
        return tuple(parse_key(line) for line in lines)
    except ConfigError as error:
        raise InputError(f"a key of the log {error.message}") from error


def _receipt_key(public_key: bytes) -> NoteKey:
    return NoteKey(name=key_id_of(public_key), kind=KeyType.ED25519, public_key=public_key)

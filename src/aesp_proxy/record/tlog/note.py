"""Signed notes, their keys and cosignatures (C2SP signed-note, tlog-cosignature).

Rules: a signature from a key that is not known is ignored; one of a known key that fails
condemns the whole note; base64 has one form only. Keys are written as Go's ``sumdb/note``
writes them: ``NAME+ID+BASE64`` and ``PRIVATE+KEY+NAME+ID+BASE64``. Of the signature types
there are Ed25519 (1) and timestamped Ed25519 cosignatures (4).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from aesp_proxy.errors import ConfigError, InputError, TrustError
from aesp_proxy.record.signature import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Signer,
    is_signed,
    signer_from_seed,
)

NOTE_BYTES_MAX: Final = 65_536
SIGNATURES_MAX: Final = 64
ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_DASH: Final = "\u2014 "
_PRIVATE: Final = "PRIVATE+KEY+"
_VKEY_CHARS_MAX: Final = 1024


class KeyType(IntEnum):
    """How a key signs; the numbers are those of signed-note."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteKey:
    """A key that notes are verified with; ``public_key`` is 32 raw bytes."""

    name: str
    kind: KeyType
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that name the key beside its name."""
        material = bytes([self.kind]) + self.public_key
        return sha256(self.name.encode() + b"\n" + material).digest()[:ID_BYTES]

    def __str__(self) -> str:
        material = to_base64(bytes([self.kind]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{material}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningNoteKey:
    """A key that signs notes; ``text`` is how its file holds it."""

    public: NoteKey
    sign: Signer
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: ``blob`` is what stands behind the key's four bytes."""

    name: str
    key_id: bytes
    blob: bytes

    def line(self) -> str:
        """Write the line, its newline included."""
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.blob)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text that ends in a newline, and its signatures, unverified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """Write the note."""
        return (self.text + "\n" + "".join(item.line() for item in self.signatures)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature that holds: by whom, and when (POSIX seconds, 0 where it does not say)."""

    key: NoteKey
    time_s: int = 0


def to_base64(data: bytes) -> str:
    """Encode in the standard alphabet with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, what: str) -> bytes:
    """Decode the one form that :func:`to_base64` writes. InputError names ``what``."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{what} is not base64") from error
    if to_base64(data) != text:
        raise InputError(f"{what} is not in the one form of base64")
    return data


def parse_decimal(text: str, what: str) -> int:
    """Read a decimal below 2^63 without a leading zero. InputError names ``what``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (text[0] == "0" != text):
        raise InputError(f"{what} is not a decimal number")
    number = int(text)
    if number >> 63:
        raise InputError(f"{what} is too large")
    return number


def is_key_name(name: str) -> bool:
    """Whether ``name`` may name a key: not empty, no space of any kind, no plus, nothing unseen."""
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


def parse_key(text: str, *, where: str = "") -> NoteKey:
    """Read a verifier key (``NAME+ID+BASE64``). ConfigError when it is none."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or len(text) > _VKEY_CHARS_MAX or not is_key_name(parts[0]):
        raise ConfigError("is no verifier key NAME+ID+BASE64", where=where)
    kind, material = _key_material(parts[2], where)
    key = NoteKey(name=parts[0], kind=kind, public_key=material)
    if key.key_id.hex() != parts[1].lower():
        raise ConfigError("is a verifier key whose id is not its own", where=where)
    return key


def parse_signing_key(text: str, *, where: str = "") -> SigningNoteKey:
    """Read a signing key (``PRIVATE+KEY+NAME+ID+BASE64``). ConfigError when it is none."""
    parts = text.strip().removeprefix(_PRIVATE).split("+", 2)
    if not text.startswith(_PRIVATE) or len(parts) != 3 or not is_key_name(parts[0]):
        raise ConfigError("is no signing key of notes", where=where)
    kind, seed = _key_material(parts[2], where)
    key = signing_key(parts[0], kind, seed)
    if key.public.key_id.hex() != parts[1].lower():
        raise ConfigError("is a signing key whose id is not its own", where=where)
    return key


def signing_key(name: str, kind: KeyType, seed: bytes) -> SigningNoteKey:
    """Make a key of a name, a kind and 32 secret bytes. ConfigError for an impossible name."""
    if not is_key_name(name):
        raise ConfigError(f"{name!r} cannot name a key", remedy="no spaces and no plus")
    public_key, sign = signer_from_seed(seed)
    public = NoteKey(name=name, kind=kind, public_key=public_key)
    text = f"{_PRIVATE}{name}+{public.key_id.hex()}+{to_base64(bytes([kind]) + seed)}"
    return SigningNoteKey(public=public, sign=sign, text=text)


def _key_material(text: str, where: str) -> tuple[KeyType, bytes]:
    try:
        data = from_base64(text, "the key")
        kind = KeyType(data[0])
    except (InputError, ValueError, IndexError) as error:
        raise ConfigError("holds no key of a known type (1 or 4)", where=where) from error
    if len(data) != 1 + PUBLIC_KEY_BYTES:
        raise ConfigError("holds a key of another length", where=where)
    return kind, data[1:]


def parse_note(data: bytes) -> Note:
    """Read a signed note, unverified. InputError for anything but its form."""
    if len(data) > NOTE_BYTES_MAX:
        raise InputError(f"the note has {len(data)} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise InputError("the note is not UTF-8") from error
    if any(char < " " and char != "\n" for char in whole):
        raise InputError("the note holds control characters")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank or not lines:
        raise InputError("the note has no signatures")
    return Note(text=text + "\n", signatures=parse_signatures(lines))


def parse_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Read signature lines, unverified. InputError for anything but their form."""
    *found, last = lines.split("\n")
    if last or not found or len(found) > SIGNATURES_MAX:
        raise InputError("the signatures are cut off, or too many")
    return tuple(_signature(line) for line in found)


def _signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_key_name(name):
        raise InputError("a signature line is not in the form of a note")
    data = from_base64(encoded, "a signature")
    if len(data) <= ID_BYTES:
        raise InputError("a signature is too short")
    return NoteSignature(name=name, key_id=data[:ID_BYTES], blob=data[ID_BYTES:])


def sign_text(text: str, key: SigningNoteKey, *, time_s: int) -> NoteSignature:
    """Sign a text that ends in a newline; ``time_s`` is said by cosignatures only."""
    public = key.public
    if public.kind is KeyType.COSIGNATURE:
        stamp = time_s.to_bytes(_TIME_BYTES)
        blob = stamp + key.sign(_cosigned(text, time_s))
    else:
        blob = key.sign(text.encode())
    return NoteSignature(name=public.name, key_id=public.key_id, blob=blob)


def verify_note(note: Note, keys: Sequence[NoteKey]) -> tuple[Signed, ...]:
    """Give the signatures of known keys, one a key; empty when none of them signed.

    TrustError when a signature that names a known key does not hold.
    """
    known = {(key.name, key.key_id): key for key in keys}
    held: dict[NoteKey, Signed] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        signed = _verify(note.text, signature, key)
        if signed is None:
            raise TrustError(f"the signature of {key.name} does not hold")
        held.setdefault(key, signed)
    return tuple(held.values())


def _verify(text: str, signature: NoteSignature, key: NoteKey) -> Signed | None:
    blob = signature.blob
    if key.kind is KeyType.ED25519:
        return Signed(key=key) if is_signed(key.public_key, blob, text.encode()) else None
    if len(blob) != _TIME_BYTES + SIGNATURE_BYTES:
        return None
    time_s = int.from_bytes(blob[:_TIME_BYTES])
    message = _cosigned(text, time_s)
    if time_s >> 63 or not is_signed(key.public_key, blob[_TIME_BYTES:], message):
        return None
    return Signed(key=key, time_s=time_s)


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()

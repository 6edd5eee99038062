"""The host's signing keys: Ed25519, 0600, in a directory of 0700 that the sealer alone needs.

Rules: the newest key signs; the public halves of all stay, so that the whole
chain can be verified on this host without anyone's help.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.record.files import OS_FILES, Files, Lock, write_durable
from aesp_proxy.record.keyring import KeyRing, KeySpan
from aesp_proxy.record.signature import (
    Signer,
    key_id_of,
    new_private_pem,
    public_from_pem,
    public_to_pem,
    signer_from_pem,
)
from aesp_proxy.record.state import AuditPaths, list_dir

KEY_SUFFIX: Final = ".key"
PUBLIC_SUFFIX: Final = ".pub"
_CURRENT: Final = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that signs: ``public_key`` is 32 raw bytes."""

    key_id: str
    public_key: bytes
    sign: Signer


def load_signing_key(paths: AuditPaths) -> SigningKey:
    """Load the key that signs now, made on first use. ConfigError when it is damaged."""
    current = paths.keys / _CURRENT
    try:
        if not current.exists():
            with Lock.held(paths.keys / "lock"):
                if not current.exists():
                    set_current(paths, make_key(paths))
        return load_key(paths, current.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the audit keys cannot be used: {error}",
            where=str(paths.keys),
            remedy="mend owner and mode, or restore the directory from a backup",
        ) from error


def make_key(paths: AuditPaths) -> str:
    """Make a key pair on disk, durable, and give its id. OSError."""
    pem = new_private_pem()
    public_key, _ = signer_from_pem(pem)
    key_id = key_id_of(public_key)
    paths.keys.chmod(0o700)
    write_key(paths, OS_FILES, key_id, public_key, pem)
    return key_id


def write_key(
    paths: AuditPaths, files: Files, key_id: str, public_key: bytes, private_pem: bytes
) -> None:
    """Put both halves of a key in place, durably, the public one first. OSError."""
    write_durable(files, paths.keys / (key_id + PUBLIC_SUFFIX), public_to_pem(public_key))
    write_durable(files, paths.keys / (key_id + KEY_SUFFIX), private_pem)


def set_current(paths: AuditPaths, key_id: str, files: Files = OS_FILES) -> None:
    """Say which key signs from now on. OSError."""
    write_durable(files, paths.keys / _CURRENT, key_id.encode() + b"\n")


def is_key_id(text: object) -> bool:
    """Whether ``text`` may name a key; what may not never becomes part of a path."""
    return isinstance(text, str) and text.startswith("k-") and text[2:].isalnum()


def load_key(paths: AuditPaths, key_id: str) -> SigningKey:
    """Load one key that can sign. ConfigError when it is damaged or open, OSError."""
    if not is_key_id(key_id):
        raise ConfigError("names no key", where=str(paths.keys / _CURRENT))
    path = paths.keys / (key_id + KEY_SUFFIX)
    _refuse_open_mode(path.stat(), str(path))
    public_key, sign = signer_from_pem(path.read_bytes(), where=str(path))
    if key_id_of(public_key) != key_id:
        raise ConfigError(
            "is another key than its name says", where=str(path), remedy="restore it from a backup"
        )
    return SigningKey(key_id=key_id, public_key=public_key, sign=sign)


def _refuse_open_mode(status: os.stat_result, where: str) -> None:
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError("may be read by others", where=where, remedy="chmod 600, and rotate it")


def load_public_keys(paths: AuditPaths) -> dict[str, bytes]:
    """Read every public key of this host: key id to 32 raw bytes. ConfigError when damaged."""
    found: dict[str, bytes] = {}
    for path in sorted(list_dir(paths.keys)):
        if path.suffix == PUBLIC_SUFFIX:
            try:
                public_key = public_from_pem(path.read_bytes(), where=str(path))
            except OSError as error:
                raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
            found[key_id_of(public_key)] = public_key
    return found


def current_key_id(paths: AuditPaths) -> str:
    """Name the key that signs now, or empty when there is none yet."""
    try:
        return (paths.keys / _CURRENT).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def local_ring(paths: AuditPaths) -> KeyRing:
    """Give a ring that trusts every public key found here, for reading one's own state.

    It cannot tell a retired key from a living one where the batches that say so
    are gone; a verifier who can pin the first key should.
    """
    keys = load_public_keys(paths)
    return KeyRing(spans=tuple(KeySpan(public_key=key) for key in keys.values()))

"""The key under which equal secrets of one host have equal fingerprints.

It never leaves the host, so a fingerprint in a forwarded record says nothing
about a value, not even to one who can guess the value.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from aesp_proxy.errors import ConfigError

_KEY_BYTES = 32


def load_fingerprint_key(state_dir: Path) -> bytes:
    """Read the key of this state directory, 32 bytes; make it at first use.

    Raises ``ConfigError`` when it is damaged or cannot be made.
    """
    path = state_dir / "fingerprint.key"
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read or make the fingerprint key: {error.strerror}",
            where=str(path),
            remedy="make the state directory writable, or give another with --state",
        ) from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"the fingerprint key has {len(key)} bytes, not {_KEY_BYTES}",
            where=str(path),
            remedy="remove the file: a new key is made, old fingerprints stay what they are",
        )
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(draft, path)  # never over a key that another process has just made
    except FileExistsError:
        return
    finally:
        draft.unlink()

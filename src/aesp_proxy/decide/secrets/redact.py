"""Say of a secret only what may be said: a masked form and a keyed fingerprint.

Rules:

- A mask shows at most the issuer's prefix, never more than
  ``MASK_CHARS_MAX`` characters and never more than a quarter of the value.
- A fingerprint tells that two secrets are equal and nothing else; without the
  key it cannot be tried against guesses.
"""

from __future__ import annotations

import hashlib

from aesp_proxy.errors import ConfigError

MASK_CHARS_MAX = 8
FINGERPRINT_BYTES = 16
KEY_BYTES_MIN = 16
KEY_BYTES_MAX = 64
_STARS = "***"


def mask(value: bytes, keep: int) -> str:
    """Return ``value`` with all but its first ``keep`` bytes hidden, as printable ASCII.

    The number of stars does not tell the length.
    """
    shown = max(0, min(keep, MASK_CHARS_MAX, len(value) // 4))
    prefix = value[:shown].decode("ascii", "ignore")
    return "".join(char for char in prefix if char.isprintable() and char != " ") + _STARS


def fingerprint(key: bytes, value: bytes) -> str:
    """Return keyed BLAKE2b-128 of ``value`` as 32 hex digits (RFC 7693)."""
    return hashlib.blake2b(value, digest_size=FINGERPRINT_BYTES, key=key).hexdigest()


def check_key(key: bytes) -> bytes:
    """Return ``key``; ConfigError when it is too short to hide anything, or too long."""
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ConfigError(
            f"the fingerprint key must be {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes long"
        )
    return key

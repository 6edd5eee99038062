"""Ed25519 signatures over domain-separated messages, and the names of keys.

Pure: keys come in as bytes or PEM text. A key's id is the hash of its public
half, so it cannot be chosen to look like another. RFC 8032; PEM as RFC 7468.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from aesp_proxy.errors import ConfigError

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEED_BYTES = 32
PEM_BYTES_MAX = 4096

Signer = Callable[[bytes], bytes]
"""Signs one message: bytes in, 64 bytes out."""


def key_id_of(public_key: bytes) -> str:
    """Name a raw public key: ``k-`` and the first 16 bytes of its SHA-256 in hex."""
    return "k-" + sha256(public_key).digest()[:16].hex()


@lru_cache(maxsize=256)
def _public(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is that key's over ``message``; False for malformed input too."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        _public(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_from_pem(pem: bytes, *, where: str = "") -> bytes:
    """Read a PEM public key as 32 raw bytes. ConfigError when it is no Ed25519 key."""
    if len(pem) > PEM_BYTES_MAX:
        raise ConfigError("is too large for a public key", where=where)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("is not a PEM public key", where=where) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("is not an Ed25519 public key", where=where)
    return key.public_bytes_raw()


def public_to_pem(public_key: bytes) -> bytes:
    """Write 32 raw bytes as a PEM public key (SubjectPublicKeyInfo)."""
    return _public(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def new_private_pem() -> bytes:
    """Make a new private key as PEM (PKCS 8, not encrypted: the file is 0600)."""
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def signer_from_pem(pem: bytes, *, where: str = "") -> tuple[bytes, Signer]:
    """Load a private key: its raw public half and a function that signs.

    ConfigError when the text is not an unencrypted Ed25519 private key.
    """
    if len(pem) > PEM_BYTES_MAX:
        raise ConfigError("is too large for a private key", where=where)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("is not a PEM private key", where=where) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("is not an Ed25519 private key", where=where)
    return key.public_key().public_bytes_raw(), key.sign


def new_seed() -> bytes:
    """Make the 32 secret bytes of a new private key."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def signer_from_seed(seed: bytes) -> tuple[bytes, Signer]:
    """Load a private key from its 32 secret bytes: its raw public half, and what signs."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes_raw(), key.sign

"""Requests for a certificate (PKCS 10, RFC 2986): the key is made here and never leaves.

Rules: EC P-256 only; a request is believed only with its own signature, which shows that who
asks has the key; nothing else in it is taken over, for names are the issuer's to give.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from aesp_proxy.errors import ConfigError, InputError

CSR_BYTES_MAX: Final = 8192


def new_key_pem() -> bytes:
    """Make a private key for TLS as PEM (PKCS 8, not encrypted: the file is 0600)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_csr(key_pem: bytes, common_name: str, *, where: str = "") -> bytes:
    """Ask, as PEM, for a certificate of this key. ConfigError when it is no P-256 key."""
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("holds no readable private key", where=where) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("is not an elliptic-curve private key", where=where)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
    return request.public_bytes(Encoding.PEM)


def asked_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Read whose certificate is asked for. InputError when the request does not hold."""
    if len(csr_pem) > CSR_BYTES_MAX:
        raise InputError(f"a certificate request has more than {CSR_BYTES_MAX} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
        is_signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InputError("the certificate request cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError("the certificate request is not for a P-256 key")
    if not is_signed:
        raise InputError("the certificate request is not signed by its own key")
    return key


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """Write a public key as the 65 bytes of its point (SEC 1, 2.3.3)."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

"""X.509 keys: make certificate authorities and leaves, check and store them.

Rules: EC P-256 (a browser and every TLS stack take it, and it is cheap to
sign); extensions as RFC 5280 asks, so that strict verifiers accept them; time
is passed in. Private keys are written atomically with mode 0600; a file that
is damaged, does not belong to its certificate, or is out of date is a
``ConfigError`` that names the file and what to do.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aesp_proxy.errors import ConfigError

CA_DAYS: Final = 3650
PEM_BYTES_MAX: Final = 1 << 20
_BACKDATE: Final = timedelta(days=1)  # a client's clock may be behind ours
_NAME_CHARS_MAX: Final = 64  # ub-common-name of RFC 5280


class Purpose(StrEnum):
    """What a leaf certificate may be used for."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, both PEM, checked to belong together."""

    cert_pem: bytes
    key_pem: bytes

    @property
    def combined_pem(self) -> bytes:
        """Key, then certificate, in one file: what mitmproxy reads as its CA."""
        return self.key_pem + self.cert_pem


def make_ca(common_name: str, *, now: datetime, days: int = CA_DAYS) -> tuple[bytes, bytes]:
    """Make a certificate authority: (certificate PEM, private key PEM).

    It signs leaves only (path length 0). ``now`` is timezone-aware.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = _dated(name, name, key.public_key(), now, now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM), _key_pem(key)


def issue_leaf(
    ca: KeyPair,
    names: Sequence[str],
    *,
    purpose: Purpose,
    now: datetime,
    days: int,
    common_name: str = "",
    uris: Sequence[str] = (),
) -> tuple[bytes, bytes]:
    """Issue a certificate for host names or addresses: (certificate PEM, private key PEM).

    ``uris`` become further subject names (an origin's identity). ConfigError for
    a name that no certificate can hold. The leaf never outlives its CA.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    cert_pem = certify(
        ca,
        key.public_key(),
        names,
        purpose=purpose,
        now=now,
        not_after=now + timedelta(days=days),
        common_name=common_name,
        uris=uris,
    )
    return cert_pem, _key_pem(key)


def certify(
    ca: KeyPair,
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    *,
    purpose: Purpose,
    now: datetime,
    not_after: datetime,
    common_name: str = "",
    uris: Sequence[str] = (),
) -> bytes:
    """Issue a certificate for a key that another made, as PEM; see :func:`issue_leaf`."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem)
    signing_key = _load_private(ca.key_pem, "the CA's private key")
    subject = _name(common_name or (names[0] if names else "aesp-proxy"))
    not_after = min(not_after, issuer.not_valid_after_utc)
    builder = _dated(subject, issuer.subject, public_key, now, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(_extended(purpose), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
        critical=False,
    )
    alternatives = [_alternative(name) for name in names]
    alternatives += [x509.UniformResourceIdentifier(uri) for uri in uris]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signing_key, SHA256()).public_bytes(Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    try:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_NAME_CHARS_MAX]),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "aesp-proxy"),
            ]
        )
    except ValueError as error:
        raise ConfigError(f"{common_name!r} cannot be a certificate's name") from error


def _dated(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _extended(purpose: Purpose) -> x509.ExtendedKeyUsage:
    match purpose:
        case Purpose.SERVER:
            return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        case Purpose.CLIENT:
            return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise ConfigError(f"{name!r} cannot be a certificate's name") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_private(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("holds no readable private key", where=where, remedy=_REMEDY) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("is not an elliptic-curve private key", where=where, remedy=_REMEDY)
    return key


_REMEDY: Final = "restore the file from a backup, or remove it and have a new one made"


def check_pair(
    cert_pem: bytes, key_pem: bytes, *, now: datetime, where: str, is_ca: bool = False
) -> KeyPair:
    """Check that key and certificate are readable, belong together and are in date.

    ``where`` names the file in errors; ``is_ca`` asks for a certificate that may
    sign others. ConfigError otherwise.
    """
    try:
        cert = x509.load_pem_x509_certificate(cert_pem)
        constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise ConfigError(
            "does not say whether it is an authority (X.509 v3, basic constraints)",
            where=where,
            remedy="have it issued anew with them; `openssl x509 -req` needs -extfile",
        ) from error
    except (ValueError, x509.DuplicateExtension) as error:
        raise ConfigError("holds no readable certificate", where=where, remedy=_REMEDY) from error
    key = _load_private(key_pem, where)
    if key.public_key() != cert.public_key():
        raise ConfigError("key and certificate do not match", where=where, remedy=_REMEDY)
    if is_ca and not constraints.ca:
        raise ConfigError("is not a certificate authority", where=where, remedy=_REMEDY)
    if now > cert.not_valid_after_utc:
        day = cert.not_valid_after_utc.date()
        raise ConfigError(f"has expired on {day}", where=where, remedy="have a new one made")
    if now < cert.not_valid_before_utc:
        day = cert.not_valid_before_utc.date()
        raise ConfigError(f"is not valid before {day}", where=where, remedy="check the clock")
    return KeyPair(cert_pem=cert_pem, key_pem=key_pem)


def load_pair(cert_file: Path, key_file: Path, *, now: datetime, is_ca: bool = False) -> KeyPair:
    """Read and check a certificate and a key file; both may be one combined file."""
    return check_pair(
        read_bounded(cert_file),
        read_bounded(key_file),
        now=now,
        where=str(cert_file),
        is_ca=is_ca,
    )


def load_ca(combined_file: Path, *, now: datetime) -> KeyPair:
    """Read and check a CA in mitmproxy's form: key and certificate in one file."""
    return load_pair(combined_file, combined_file, now=now, is_ca=True)


def read_bounded(path: Path) -> bytes:
    """Read a small file. ConfigError when it is absent, unreadable or too large."""
    try:
        with path.open("rb") as file:
            data = file.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="check path and mode"
        ) from error
    if len(data) > PEM_BYTES_MAX:
        raise ConfigError("is too large for keys or certificates", where=str(path))
    return data


def read_private(path: Path) -> bytes:
    """Read a small file of secrets; ConfigError, too, when others than its owner may."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="check path and mode"
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"others may read it (mode {mode & 0o777:04o})",
            where=str(path),
            remedy=f"chmod 0600 {path}",
        )
    if len(data) > PEM_BYTES_MAX:
        raise ConfigError("is too large for a secret", where=str(path))
    return data


def check_identity(path: Path) -> None:
    """Check a PEM file with a certificate, perhaps its chain, and its key, for OpenSSL to load.

    ConfigError when others may read it, something is missing or does not belong, or the key
    asks for a passphrase: OpenSSL would ask for it on a terminal.
    """
    data = read_private(path)
    try:
        key = load_pem_private_key(data, None)
        certificate = x509.load_pem_x509_certificate(data)
        belongs = key.public_key() == certificate.public_key()
    except TypeError as error:
        raise ConfigError(
            "its key asks for a passphrase", where=str(path), remedy="store it without one"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "does not hold a certificate and its key in PEM form", where=str(path)
        ) from error
    if not belongs:
        raise ConfigError("the key is not that of the first certificate", where=str(path))


def make_private_dir(path: Path) -> None:
    """Make a directory that only its owner may enter (0700), and tighten it if it is wider."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot be made: {error.strerror}", where=str(path), remedy="choose another directory"
        ) from error


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file as a whole or not at all; on return it would survive a power cut.

    ConfigError when the directory does not take it, and when what is there is a device, a pipe
    or a directory: root would put a file in its place.
    """
    with contextlib.suppress(OSError):
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise ConfigError("is there and is no file", where=str(path), remedy="name a file")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_synced(draft, data, mode)
        draft.replace(path)
        _sync_dir(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(path), remedy="check space and mode"
        ) from error


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

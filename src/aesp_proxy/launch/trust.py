"""Files that make the child's tool chains trust the host CA, besides the system's roots.

A bundle in PEM for nearly everybody, a PKCS#12 store for Java, a wgetrc for a wget
that GnuTLS drives and no variable reaches. All live beside the CA and are written
again only when the roots have changed.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError

_SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
    Path("/etc/ssl/cert.pem"),  # Alpine
)
_BUNDLE_BYTES_MAX: Final = 16 << 20
# Java wants one to tell a damaged store; the store holds only public certificates.
JAVA_STORE_PASSWORD: Final = "changeit"  # noqa: S105 - Java's own well-known word
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustFiles:
    """Where the files stand; ``java_store`` is None when Java is not installed."""

    certificate: Path
    bundle: Path
    wgetrc: Path
    java_store: Path | None


def ensure_trust(certificate: Path, *, environ: Mapping[str, str], java: bool) -> TrustFiles:
    """Write what is missing or stale beside ``certificate``; ConfigError if it cannot be.

    ``environ`` is the launcher's environment: the operator's own SSL_CERT_FILE and
    WGETRC are taken over into ours.
    """
    directory = certificate.parent
    files = TrustFiles(
        certificate=certificate,
        bundle=directory / "ca-bundle.pem",
        wgetrc=directory / "wgetrc",
        java_store=directory / "truststore.p12" if java else None,
    )
    try:
        own = certificate.read_bytes()
        bundle = _system_roots(environ).rstrip() + b"\n" + own
        _write_changed(files.bundle, bundle)
        _write_changed(files.wgetrc, _wgetrc(environ, files.bundle))
        if files.java_store is not None:
            _ensure_java_store(files.java_store, bundle)
    except OSError as error:
        raise ConfigError(
            f"cannot write the trust files: {error.strerror}", where=str(directory),
            remedy="give --state DIR",
        ) from error  # fmt: skip
    return files


def _system_roots(environ: Mapping[str, str]) -> bytes:
    """Return the roots this host trusts; none is possible, and then only ours is trusted."""
    named = environ.get("SSL_CERT_FILE", "")
    default = ssl.get_default_verify_paths().cafile
    places = [Path(place) for place in (named, default) if place]
    for place in [*places, *_SYSTEM_BUNDLES]:
        try:
            with place.open("rb") as file:
                data = file.read(_BUNDLE_BYTES_MAX)
        except OSError:
            continue
        if _BEGIN in data:
            return data
    return b""


def _wgetrc(environ: Mapping[str, str], bundle: Path) -> bytes:
    """Return the operator's wgetrc with our bundle as the last word on trust."""
    home = environ.get("HOME", "")
    theirs = environ.get("WGETRC") or (f"{home}/.wgetrc" if home else "")
    try:
        before = Path(theirs).read_bytes() if theirs else b""
    except OSError:
        before = b""
    return before.rstrip() + f"\nca_certificate = {bundle}\n".encode()


def _write_changed(path: Path, data: bytes) -> None:
    """Write whole or not at all, and only when it differs: others may be reading it."""
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


def _ensure_java_store(path: Path, bundle: bytes) -> None:
    """Write Java's store unless it was made of this very bundle already."""
    made_of = path.with_suffix(".of")
    digest = hashlib.sha256(bundle).hexdigest().encode()
    try:
        if path.exists() and made_of.read_bytes() == digest:
            return
    except OSError:
        pass
    _write_changed(path, _java_store(bundle))
    _write_changed(made_of, digest)


def _java_store(bundle: bytes) -> bytes:
    # 60 ms of cryptography, when the roots have changed.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        BestAvailableEncryption,
        pkcs12,
    )

    certificates = []
    for number, pem in enumerate(_each_pem(bundle)):
        try:
            with warnings.catch_warnings():
                # Old roots break rules that are not ours to enforce; the system trusts them.
                warnings.simplefilter("ignore")
                certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            # One root that this library cannot read must not take all others away.
            continue
        alias = f"root-{number}".encode()
        certificates.append(pkcs12.PKCS12Certificate(certificate, alias))
    return pkcs12.serialize_java_truststore(
        certificates, BestAvailableEncryption(JAVA_STORE_PASSWORD.encode())
    )


def _each_pem(bundle: bytes) -> list[bytes]:
    parts = bundle.split(_BEGIN)[1:]
    return [_BEGIN + part.partition(_END)[0] + _END + b"\n" for part in parts if _END in part]

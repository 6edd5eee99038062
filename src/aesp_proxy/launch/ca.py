"""The host CA: made once, checked at every start, its key never leaves the state directory.

The worker reads ``mitmproxy-ca.pem`` (key and certificate in one file, 0600);
``ca-cert.pem`` is the public half. Checking uses the standard library's ssl, which
is loaded anyway; ``keys`` (60 ms of cryptography) is asked only to make a CA, or
to say precisely what is wrong with one. Nothing is mended silently: a CA that is
not as we left it is a ConfigError, as clients trust whatever stands there.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError

_COMBINED: Final = "mitmproxy-ca.pem"
_PUBLIC: Final = "ca-cert.pem"
# A CA that ends while an agent works would break it half way.
_LEFT_MIN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCa:
    """A checked CA: the file for the worker, and the certificate for clients."""

    combined: Path
    certificate: Path


def ensure_ca(directory: Path, *, now: datetime) -> HostCa:
    """Return the CA in ``directory``, made if there is none.

    ``now`` is timezone-aware. Raises ConfigError for a CA that is corrupt,
    mismatched, out of date or open to others, and for a directory that does not
    take one. Several launchers may call this at once.
    """
    ca = HostCa(combined=directory / _COMBINED, certificate=directory / _PUBLIC)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory / ".lock"):
            if not ca.combined.exists() and not ca.certificate.exists():
                _make(ca, now)
    except OSError as error:
        raise ConfigError(
            f"cannot hold the host CA: {error.strerror}", where=str(directory),
            remedy="give --state DIR",
        ) from error  # fmt: skip
    _check(ca, now)
    return ca


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(ca: HostCa, now: datetime) -> None:
    # 60 ms, once in the life of a state directory.
    from aesp_proxy import keys  # noqa: PLC0415

    certificate, key = keys.make_ca(f"AESP Proxy on {socket.gethostname()}", now=now)
    keys.write_atomic(ca.combined, key + certificate, mode=0o600)
    keys.write_atomic(ca.certificate, certificate, mode=0o644)


def _remedy(ca: HostCa) -> str:
    return f"restore it, or remove {ca.combined.parent} and the next run makes a new CA"


def _check(ca: HostCa, now: datetime) -> None:
    _check_mode(ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(ca.combined, password=lambda: "-")
        public = ca.certificate.read_text("ascii")
        context.load_verify_locations(cadata=public)
        if _der(public) != _der(ca.combined.read_text("ascii")):
            raise ConfigError(
                f"is not the certificate of {ca.combined}", where=str(ca.certificate),
                remedy=_remedy(ca),
            )  # fmt: skip
    except (OSError, ValueError, IndexError) as error:
        raise _precise(ca, now, error) from error
    _check_dates(ca, context, now)


def _check_mode(ca: HostCa) -> None:
    try:
        mode = ca.combined.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"the CA's key cannot be read: {error.strerror}", where=str(ca.combined),
            remedy=_remedy(ca),
        ) from error  # fmt: skip
    if mode & 0o077:
        raise ConfigError(
            "the CA's key can be read by others", where=str(ca.combined),
            remedy="if nobody else has read it: chmod 600; else remove it and make a new one",
        )  # fmt: skip


def _der(text: str) -> bytes:
    """Return the first certificate in a PEM file."""
    begin = text.index("-----BEGIN CERTIFICATE-----")
    end = text.index("-----END CERTIFICATE-----", begin) + len("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[begin:end])


def _check_dates(ca: HostCa, context: ssl.SSLContext, now: datetime) -> None:
    where = str(ca.certificate)
    # get_ca_certs lists only certificates that may sign others.
    authorities = context.get_ca_certs()
    if not authorities:
        raise ConfigError(
            "is not a certificate authority", where=where, remedy=_remedy(ca)
        )  # fmt: skip
    dates = authorities[0]
    not_before = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(dates["notBefore"])), UTC)
    not_after = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(dates["notAfter"])), UTC)
    if now + _LEFT_MIN > not_after:
        raise ConfigError(
            f"the host CA expires on {not_after:%Y-%m-%d}", where=where,
            remedy=f"remove {ca.combined.parent} and the next run makes a new CA",
        )  # fmt: skip
    if now < not_before:
        raise ConfigError(
            f"the host CA is not valid before {not_before:%Y-%m-%d}", where=where,
            remedy="check the clock",
        )  # fmt: skip


def _precise(ca: HostCa, now: datetime, error: Exception) -> ConfigError:
    """Say what is wrong with a CA that ssl would not take."""
    from aesp_proxy import keys  # noqa: PLC0415 - only on the way to an error

    try:
        keys.load_ca(ca.combined, now=now)
    except ConfigError as precise:
        message = f"the host CA cannot be used: {precise.message}"
        return ConfigError(message, where=str(ca.combined), remedy=_remedy(ca))
    reason = " ".join(str(error).split())
    where = str(ca.certificate)
    return ConfigError(f"the host CA cannot be used: {reason}", where=where, remedy=_remedy(ca))

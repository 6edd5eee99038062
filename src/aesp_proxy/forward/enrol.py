"""Let this host be enrolled with a one-time token: ``aesp-proxy enroll``.

The order: key and request are made and kept here first, so that an answer that was lost is
asked for again with the same request; then the aggregator's authority is fetched and held
against the hash in the token, over a connection on which nothing else is said; then, over
one that is checked against that authority, the request. ``url`` is written last, because its
presence says that everything else is there.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256

from aesp_proxy import keys
from aesp_proxy.errors import ConfigError, InputError, TrustError, UnavailableError
from aesp_proxy.forward.addresses import learn
from aesp_proxy.forward.transport import (
    ANSWER_BYTES_MAX,
    TIMEOUT_S,
    HttpsTransport,
    load_destination,
    parse_url,
)
from aesp_proxy.model.address import host_port
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.csr import make_csr, new_key_pem
from aesp_proxy.record.enrolment import Token, read_message, signed_request
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.keys import SigningKey, load_signing_key
from aesp_proxy.record.signature import public_from_pem
from aesp_proxy.record.state import ensure_origin, numbered_batches, prepare

_KEY_DRAFT: Final = "client.key.new"
_CSR_DRAFT: Final = "client.csr"
_JSON: Final = "application/json"
_REASON_CHARS_MAX: Final = 200
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "RECORD_LAYER_FAILURE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """How it went: who this host is to the aggregator, and until when."""

    origin: str
    directory: Path
    ends: datetime


def enrol(
    state_dir: Path,
    directory: Path,
    url: str,
    token: Token,
    *,
    origin: str,
    now: datetime,
    certificate_pem: bytes = b"",
) -> Enrolled:
    """Enrol the host of ``state_dir`` and write ``directory``.

    ``certificate_pem`` is what an authority of the enterprise has issued for the request of
    :func:`request_certificate`, its chain behind it.

    ConfigError for what is wrong here, TrustError when the aggregator is another than the
    token's or refuses, UnavailableError when it cannot be reached.
    """
    host, port, path = parse_url(url, "--aggregator", remedy="give https://NAME:PORT")
    if now >= token.expires:
        raise ConfigError(
            f"the token has expired at {token.expires:%Y-%m-%d %H:%M} UTC",
            where="--token",
            remedy="ask for a new one",
        )
    paths = prepare(state_dir)
    name = ensure_origin(paths, wanted=origin)
    key = load_signing_key(paths)
    if not (directory / "url").exists():
        _refuse_changed_key(paths.batches, key)
    keys.make_private_dir(directory)
    key_pem, csr_pem = _draft(directory, name)
    if certificate_pem:
        keys.check_pair(certificate_pem, key_pem, now=now, where="--certificate")
    request = signed_request(
        name,
        csr_pem,
        key.public_key,
        key.sign,
        token=token.fingerprint,
        certificate_pem=certificate_pem,
    )
    ca_pem = _authority(host, port, path, token)
    context = ssl.create_default_context(cadata=ca_pem.decode("ascii"))
    body = _ask(host, port, f"{path}enroll", token, context, request.encode())
    answer = read_message(body, ("certificate", "receipt_key"))
    cert_pem = answer["certificate"].encode("ascii", errors="replace")
    receipt_pem = answer["receipt_key"].encode("ascii", errors="replace")
    public_from_pem(receipt_pem, where="the aggregator's answer")
    if not certificate_pem:
        check_issued(cert_pem, key_pem, ca_pem, now=now)
    elif cert_pem != certificate_pem:
        raise TrustError("another certificate came back", where=host_port(host, port))
    else:
        _probe(host, port, path, ca_pem, cert_pem + key_pem)
    _write(directory, url=url, ca_pem=ca_pem, cert_pem=cert_pem, key_pem=key_pem, pub=receipt_pem)
    _learn(directory, now=now)
    ends = x509.load_pem_x509_certificate(cert_pem).not_valid_after_utc
    return Enrolled(origin=name, directory=directory, ends=ends)


def _learn(directory: Path, *, now: datetime) -> None:
    """Ask where the other aggregators are; that comes later, too, when it does not now."""
    transport = HttpsTransport(load_destination(directory, now=now))
    try:
        learn(directory, transport)
    except (UnavailableError, InputError, ConfigError):
        return
    finally:
        transport.close()


def check_issued(cert_pem: bytes, key_pem: bytes, ca_pem: bytes, *, now: datetime) -> None:
    """Check that a certificate is for our key and of that authority. TrustError."""
    where = "the aggregator's answer"
    try:
        keys.check_pair(cert_pem, key_pem, now=now, where=where)
        issuer = x509.load_pem_x509_certificate(ca_pem)
        x509.load_pem_x509_certificate(cert_pem).verify_directly_issued_by(issuer)
    except (ConfigError, ValueError, TypeError, InvalidSignature) as error:
        raise TrustError("the certificate is not ours to use", where=where) from error


def request_certificate(state_dir: Path, directory: Path, *, origin: str) -> bytes:
    """Make this host's TLS key, or take the one waiting, and ask for a certificate (PEM)."""
    name = ensure_origin(prepare(state_dir), wanted=origin)
    keys.make_private_dir(directory)
    return _draft(directory, name)[1]


def _refuse_changed_key(batches: Path, key: SigningKey) -> None:
    """The aggregator takes the key of the first batch: what was before it must be provable."""
    numbered = numbered_batches(batches)
    if not numbered:
        return
    header = decode_header(decode_batch(numbered[0][1].read_bytes()).header_bytes)
    if header.key_id != key.key_id or header.batch_no != 1:
        raise ConfigError(
            "its key was changed, or batches released, before it was enrolled",
            where=str(batches),
            remedy="use `aesp-proxy aggregator enroll --origin NAME --key FIRST.pub`",
        )


def _draft(directory: Path, name: str) -> tuple[bytes, bytes]:
    """Make key and request, or take those of an attempt before this one."""
    key_file, csr_file = directory / _KEY_DRAFT, directory / _CSR_DRAFT
    if not (key_file.exists() and csr_file.exists()):
        key_pem = new_key_pem()
        keys.write_atomic(key_file, key_pem)
        keys.write_atomic(csr_file, make_csr(key_pem, name))
    return keys.read_private(key_file), keys.read_bounded(csr_file)


def _authority(host: str, port: int, path: str, token: Token) -> bytes:
    """Fetch the aggregator's authority and hold it against the token. TrustError."""
    # Nothing is said and nothing believed on this connection but what the hash proves.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pem = _ask(host, port, f"{path}ca", token, context, None)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise TrustError("no aggregator answers there", where=host_port(host, port)) from error
    if certificate.fingerprint(SHA256()) != token.authority_pin:
        raise TrustError(
            "is another aggregator than the token is for",
            where=host_port(host, port),
            remedy="check --aggregator, and who is between here and there",
        )
    return pem


def _probe(host: str, port: int, path: str, ca_pem: bytes, pair_pem: bytes) -> None:
    """Try a certificate of the enterprise's: only TLS itself says whether it is let in."""
    context = ssl.create_default_context(cadata=ca_pem.decode("ascii"))
    _load_identity(context, pair_pem, "--certificate")
    try:
        _exchange(host, port, f"{path}identity", context, None)
    except UnavailableError as error:
        raise TrustError(
            "the certificate is registered, and its authority is not trusted there",
            where=host_port(host, port),
            remedy="have `aesp-proxy aggregator trust` done there, then enrol again",
        ) from error


def _ask(
    host: str, port: int, path: str, token: Token, context: ssl.SSLContext, body: bytes | None
) -> bytes:
    """Ask once with the token's certificate; the body of a 200, or an error that says why."""
    _load_identity(context, token.combined_pem(), "--token")
    return _exchange(host, port, path, context, body)


def _exchange(
    host: str, port: int, path: str, context: ssl.SSLContext, body: bytes | None
) -> bytes:
    where = host_port(host, port)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        with closing(connection):
            method = "GET" if body is None else "POST"
            connection.request(method, path, body=body, headers={"Content-Type": _JSON})
            response = connection.getresponse()
            data, status = response.read(ANSWER_BYTES_MAX), response.status
    except ssl.SSLCertVerificationError as error:
        raise TrustError(
            f"its certificate is not for this name: {error.verify_message}",
            where=where,
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreached(error, where) from error
    if status == http.client.OK:
        return data
    if status == http.client.NOT_FOUND:
        raise TrustError(
            "no aggregator answers there",
            where=where,
            remedy="check --aggregator: https://NAME:PORT, mostly without a path",
        )
    if status >= http.client.INTERNAL_SERVER_ERROR:
        raise UnavailableError(f"the aggregator answers {status}", where=where)
    raise TrustError(f"the aggregator refuses: {_reason(data, status)}", where=where)


def _unreached(error: Exception, where: str) -> UnavailableError:
    """Tell what stands in the way: no way there, no TLS there, or TLS that ends with us."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        message, remedy = "speaks no TLS 1.3", "check --aggregator: is that its port?"
    elif isinstance(error, ssl.SSLError | ConnectionResetError | http.client.HTTPException):
        message, remedy = f"ends the connection: {reason}", "is the token of this aggregator?"
    else:
        message = f"cannot be reached: {reason}"
        remedy = "check --aggregator, and the way there; proxies are not used"
    return UnavailableError(message, where=where, remedy=remedy)


def _load_identity(context: ssl.SSLContext, pair_pem: bytes, where: str) -> None:
    # The ssl module loads files only; this one has no name and ends with the descriptor.
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pair_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ssl.SSLError) as error:
        raise InputError("cannot be used for TLS", where=where) from error
    finally:
        os.close(descriptor)


def _reason(data: bytes, status: int) -> str:
    try:
        problem = json.loads(data)
        text = f"{problem['detail']} ({problem['code']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return str(status)
    return text[:_REASON_CHARS_MAX]


def _write(
    directory: Path, *, url: str, ca_pem: bytes, cert_pem: bytes, key_pem: bytes, pub: bytes
) -> None:
    try:
        (directory / "url").unlink(missing_ok=True)
        keys.write_atomic(directory / "ca.pem", ca_pem, mode=0o644)
        keys.write_atomic(directory / "client.key", key_pem)
        keys.write_atomic(directory / "client.pem", cert_pem, mode=0o644)
        keys.write_atomic(directory / "aggregator.pub", pub, mode=0o644)
        keys.write_atomic(directory / "url", url.encode() + b"\n", mode=0o644)
        (directory / _KEY_DRAFT).unlink()
        (directory / _CSR_DRAFT).unlink()
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(directory)) from error

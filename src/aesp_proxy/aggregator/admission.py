"""Let hosts enrol themselves with one-time tokens, and renew their certificates.

Rules: a host's private keys never come here; what a token is worth stands in the control
store, not in the token; an origin is believed only with a signature of its audit key, which
is the key of its first batch or the newest that its own chain has named. A refusal uses
nothing up.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from aesp_proxy import keys
from aesp_proxy.aggregator.enrolment import keep_public_key
from aesp_proxy.aggregator.identity import DataDir, fingerprint_of, load_ca
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.store.tokens import TokenRefusedError, TokenTerms
from aesp_proxy.aggregator.stores import (
    has_ledger,
    open_control,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.record.csr import asked_key
from aesp_proxy.record.enrolment import EnrolmentRequest, Token
from aesp_proxy.record.header import is_origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HOST_DAYS: Final = 90
EXPIRES_MAX: Final = timedelta(days=30)
_TENANT_CHARS_MAX: Final = 256
_LABELS_MAX: Final = 32
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator wants a token to be for."""

    origin: str = ""
    tenants: Sequence[str] = ()
    labels: Mapping[str, str] | None = None
    expires: timedelta = timedelta(hours=1)


def make_token(data: DataDir, wanted: Wanted, *, now: datetime) -> Token:
    """Make a token and keep its terms. ConfigError for what cannot be wanted."""
    _check(wanted)
    ca = load_ca(data, now=now)
    key = ec.generate_private_key(ec.SECP256R1())
    cert_pem = keys.certify(
        ca,
        key.public_key(),
        (),
        purpose=keys.Purpose.CLIENT,
        now=now,
        not_after=now + wanted.expires,
        common_name="token",
    )
    token = Token(
        authority_pin=authority_pin(ca.cert_pem),
        scalar=key.private_numbers().private_value.to_bytes(32),
        certificate_der=x509.load_pem_x509_certificate(cert_pem).public_bytes(Encoding.DER),
    )
    control = open_control(data)
    try:
        control.tokens.add(
            TokenTerms(
                fingerprint=token.fingerprint,
                made_ns=_ns(now),
                expires_ns=_ns(now + wanted.expires),
                origin=wanted.origin,
                tenants=frozenset(wanted.tenants),
                labels=tuple(sorted((wanted.labels or {}).items())),
            )
        )
    finally:
        control.close()
    return token


def _check(wanted: Wanted) -> None:
    if wanted.origin and not is_origin(wanted.origin):
        raise ConfigError(f"{wanted.origin!r} cannot name an origin", remedy="use a-z 0-9 . _ -")
    if not timedelta(0) < wanted.expires <= EXPIRES_MAX:
        raise ConfigError("a token may live up to 30 days", where="--expires", remedy="write 1h")
    texts = [*wanted.tenants, *(wanted.labels or {}), *(wanted.labels or {}).values()]
    if any(not text or len(text) > _TENANT_CHARS_MAX for text in texts):
        raise ConfigError("a tenant or label is empty or too long")
    if len(wanted.labels or {}) > _LABELS_MAX:
        raise ConfigError(f"more than {_LABELS_MAX} labels")


def authority_pin(ca_pem: bytes) -> bytes:
    """Name an authority: SHA-256 of its certificate's DER form."""
    return x509.load_pem_x509_certificate(ca_pem).fingerprint(SHA256())


def enrol_by_token(
    data: DataDir, token: bytes, request: EnrolmentRequest, *, now: datetime
) -> bytes:
    """Let a host in by the token of that fingerprint; return its certificate (PEM).

    TokenRefusedError when the token lets it in no more, or origin or key is another's;
    InputError when the request does not hold.
    """
    public_key = asked_key(request.csr_pem)
    if not request.is_proved(token):
        raise InputError("the request is not signed by its audit key for this token")
    identity = Identity(role=Role.HOST, name=request.origin)
    ca = load_ca(data, now=now)
    control = open_control(data)

    def admit(terms: TokenTerms) -> bytes:
        if request.certificate_pem:
            certificate = _foreign(request.certificate_pem, identity, public_key, now=now)
            cert_pem = request.certificate_pem
        else:
            certificate, cert_pem = _issue(ca, identity, public_key, now=now)
        known = control.origin(request.origin)
        first_key = request.public_key
        if known is not None:
            newest = _newest_key(data, request.origin) or known.public_key
            if request.public_key not in {newest, known.public_key}:
                raise TokenRefusedError(
                    "origin_taken", "this origin is enrolled with another audit key"
                )
            first_key = known.public_key
        try:
            control.enrol_within(
                request.origin,
                public_key=first_key,
                tenants=terms.tenants,
                labels=terms.labels,
                certificate=certificate,
            )
        except ConfigError as error:
            raise TokenRefusedError("origin_taken", error.message) from error
        # Before the commit: an origin that is enrolled and has no file could not be verified.
        keep_public_key(data, request.origin, first_key)
        return cert_pem

    try:
        return control.tokens.use(
            token, origin=request.origin, request=request.encode(), now_ns=_ns(now), admit=admit
        )
    finally:
        control.close()


def _newest_key(data: DataDir, origin: str) -> bytes | None:
    if not has_ledger(data):
        return None
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        rotations = ledger.rotations(origin)
    return rotations[-1].public_key if rotations else None


def _foreign(
    cert_pem: bytes, identity: Identity, public_key: ec.EllipticCurvePublicKey, *, now: datetime
) -> Certificate:
    """Take a certificate that another authority has issued; TLS asks whether we trust that."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        held = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError("the certificate cannot be read") from error
    if held != public_key:
        raise InputError("the certificate is for another key than the request")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise InputError("the certificate is out of date")
    fingerprint, not_after_ns = fingerprint_of(cert_pem)
    return Certificate(
        fingerprint=fingerprint, identity=identity, issued_ns=_ns(now), not_after_ns=not_after_ns
    )


def trust(data: DataDir, ca_file: Path, *, now: datetime) -> None:
    """Let certificates of another authority into TLS, from the next start on. ConfigError.

    Who they stand for is still what enrolment has registered.
    """
    pem = keys.read_bounded(ca_file)
    try:
        authorities = x509.load_pem_x509_certificates(pem)
        for authority in authorities:
            constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
            if not constraints.value.ca:
                raise ConfigError("holds a certificate that is no authority's", where=str(ca_file))
            if now >= authority.not_valid_after_utc:
                raise ConfigError("holds an authority that has ended", where=str(ca_file))
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ConfigError("holds no readable authority", where=str(ca_file)) from error
    keys.write_atomic(data.client_ca, pem, mode=0o644)


def renew(
    data: DataDir, identity: Identity, csr_pem: bytes, *, asked_with: bytes, now: datetime
) -> bytes:
    """Give whom ``identity`` stands for a new certificate (PEM); InputError for a bad request."""
    certificate, cert_pem = _issue(load_ca(data, now=now), identity, asked_key(csr_pem), now=now)
    control = open_control(data)
    try:
        control.renew(certificate, asked_with=asked_with)
    finally:
        control.close()
    return cert_pem


def _issue(
    ca: keys.KeyPair, identity: Identity, public_key: ec.EllipticCurvePublicKey, *, now: datetime
) -> tuple[Certificate, bytes]:
    cert_pem = keys.certify(
        ca,
        public_key,
        (),
        purpose=keys.Purpose.CLIENT,
        now=now,
        not_after=now + timedelta(days=HOST_DAYS),
        common_name=f"{identity.role} {identity.name}"[:64],
        uris=(f"urn:aesp-proxy:{identity.role}:{identity.name}",),
    )
    fingerprint, not_after_ns = fingerprint_of(cert_pem)
    certificate = Certificate(
        fingerprint=fingerprint,
        identity=identity,
        issued_ns=_ns(now),
        not_after_ns=not_after_ns,
    )
    return certificate, cert_pem


def _ns(moment: datetime) -> int:
    return int((moment - _EPOCH).total_seconds() * 1e9)

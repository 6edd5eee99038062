"""What host and aggregator say to each other when a host is let in: token, request, answer.

A token is a client certificate for one use: the SHA-256 of the aggregator's authority, a
private key and its short certificate. So TLS stays mutual for strangers too, and the host
knows whom it talks to before it says anything. The aggregator keeps the certificate's hash
only.

The request holds the host's certificate request and its audit key, with a signature of the
audit key over both and over the token: whoever relays it can put no key of its own in.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aesp_proxy.errors import InputError
from aesp_proxy.record.header import is_origin
from aesp_proxy.record.signature import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Signer, is_signed

TOKEN_PREFIX: Final = "aesp1-"  # noqa: S105 - how a token begins, for eyes and for scanners
TOKEN_CHARS_MAX: Final = 4096
MESSAGE_BYTES_MAX: Final = 16_384
PROOF_DOMAIN: Final = b"aesp-proxy enrolment v1\x00"
_PIN_BYTES: Final = 32
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A right to enrol once: ``authority_pin`` is SHA-256 of the aggregator's CA (DER)."""

    authority_pin: bytes
    scalar: bytes
    certificate_der: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token as ``aggregator token`` printed it. InputError, never with its text."""
        text = text.strip()
        if not text.startswith(TOKEN_PREFIX) or len(text) > TOKEN_CHARS_MAX or not text.isascii():
            raise _no_token()
        body = text.removeprefix(TOKEN_PREFIX)
        try:
            data = urlsafe_b64decode(body + "=" * (-len(body) % 4))
            token = cls(
                authority_pin=data[:_PIN_BYTES],
                scalar=data[_PIN_BYTES : _PIN_BYTES + _KEY_BYTES],
                certificate_der=data[_PIN_BYTES + _KEY_BYTES :],
            )
            public_key = x509.load_der_x509_certificate(token.certificate_der).public_key()
            if token._key().public_key() != public_key:
                raise _no_token()
        except (ValueError, Base64Error) as error:
            raise _no_token() from error
        return token

    def text(self) -> str:
        """Write the token in one word."""
        data = self.authority_pin + self.scalar + self.certificate_der
        return TOKEN_PREFIX + urlsafe_b64encode(data).decode("ascii").rstrip("=")

    @property
    def fingerprint(self) -> bytes:
        """What the aggregator knows the token by."""
        return sha256(self.certificate_der).digest()

    @property
    def expires(self) -> datetime:
        """When it ends, UTC."""
        return x509.load_der_x509_certificate(self.certificate_der).not_valid_after_utc

    def combined_pem(self) -> bytes:
        """Key and certificate as TLS loads them."""
        key_pem = self._key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate = x509.load_der_x509_certificate(self.certificate_der)
        return key_pem + certificate.public_bytes(Encoding.PEM)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(self.scalar), ec.SECP256R1())


def _no_token() -> InputError:
    return InputError("is no enrolment token", where="--token", remedy="copy the whole word")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A host that asks to be let in; ``public_key`` (32 bytes) is its audit key.

    ``certificate_pem`` is what another authority has issued for the key of the request;
    empty: the aggregator's own shall.
    """

    origin: str
    csr_pem: bytes
    public_key: bytes
    proof: bytes
    certificate_pem: bytes = b""

    def encode(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(
            {
                "origin": self.origin,
                "csr": self.csr_pem.decode("ascii"),
                "certificate": self.certificate_pem.decode("ascii"),
                "public_key": self.public_key.hex(),
                "proof": self.proof.hex(),
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read JSON. InputError when it is anything else."""
        values = read_message(data, ("origin", "csr", "certificate", "public_key", "proof"))
        try:
            request = cls(
                origin=values["origin"],
                csr_pem=values["csr"].encode("ascii"),
                certificate_pem=values["certificate"].encode("ascii"),
                public_key=bytes.fromhex(values["public_key"]),
                proof=bytes.fromhex(values["proof"]),
            )
        except ValueError as error:
            raise InputError("the request is not readable") from error
        if not is_origin(request.origin):
            raise InputError("the request names no proper origin")
        if (len(request.public_key), len(request.proof)) != (PUBLIC_KEY_BYTES, SIGNATURE_BYTES):
            raise InputError("the request holds a key or signature of another length")
        return request

    def is_proved(self, token: bytes) -> bool:
        """Whether the audit key signed this very request for the token of that fingerprint."""
        message = _signed(self.origin, self.csr_pem + self.certificate_pem, self.public_key, token)
        return is_signed(self.public_key, self.proof, message)


def signed_request(
    origin: str,
    csr_pem: bytes,
    public_key: bytes,
    sign: Signer,
    *,
    token: bytes,
    certificate_pem: bytes = b"",
) -> EnrolmentRequest:
    """Make a request, proved by the audit key for the token of that fingerprint."""
    return EnrolmentRequest(
        origin=origin,
        csr_pem=csr_pem,
        public_key=public_key,
        proof=sign(_signed(origin, csr_pem + certificate_pem, public_key, token)),
        certificate_pem=certificate_pem,
    )


def _signed(origin: str, pems: bytes, public_key: bytes, token: bytes) -> bytes:
    # Every part but the last has a fixed length, so no two requests are the same bytes.
    return PROOF_DOMAIN + token + public_key + sha256(pems).digest() + origin.encode()


def read_message(data: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Read a JSON object of exactly these texts. InputError for anything else."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise InputError(f"a message has more than {MESSAGE_BYTES_MAX} bytes")
    try:
        values: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("a message is not JSON") from error
    if type(values) is not dict or sorted(values) != sorted(names):
        raise InputError("a message has other fields than " + ", ".join(names))
    if any(type(value) is not str for value in values.values()):
        raise InputError("a field of a message is no text")
    return values

"""Renew this host's certificate while it is still good, with the key that it has.

Rules: asked for when a third of its life is left; only ``client.pem`` changes, as a whole, so
a crash leaves a pair that works; the old certificate stays open at the aggregator until its
end, so a lost answer shuts nobody out.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from aesp_proxy import keys
from aesp_proxy.errors import TrustError, UnavailableError
from aesp_proxy.forward.enrol import check_issued
from aesp_proxy.forward.transport import HttpsTransport
from aesp_proxy.record.csr import make_csr
from aesp_proxy.record.enrolment import read_message

ROUTE: Final = "renew"
_LEFT_OF_LIFE: Final = 3


def is_due(directory: Path, *, now: datetime) -> bool:
    """Whether a third of the certificate's life or less is left. ConfigError."""
    certificate = x509.load_pem_x509_certificate(keys.read_bounded(directory / "client.pem"))
    # Certificates here are dated a day back, for clocks that are behind.
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc - timedelta(days=1)
    return certificate.not_valid_after_utc - now <= life / _LEFT_OF_LIFE


def _refuse_foreign(directory: Path) -> None:
    """Ask nobody for what another authority has issued: its owner renews it."""
    certificate = x509.load_pem_x509_certificate(keys.read_bounded(directory / "client.pem"))
    issuer = x509.load_pem_x509_certificate(keys.read_bounded(directory / "ca.pem"))
    if certificate.issuer != issuer.subject:
        raise TrustError(
            f"the certificate is of an authority of yours and ends on "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            where=str(directory / "client.pem"),
            remedy="have the next one issued: `aesp-proxy enroll --request FILE`",
        )


def renew(directory: Path, transport: HttpsTransport, *, now: datetime) -> None:
    """Ask for a new certificate and put it in place.

    UnavailableError: later. TrustError: refused, or the answer is not ours to use.
    """
    _refuse_foreign(directory)
    key_file = directory / "client.key"
    key_pem = keys.read_private(key_file)
    csr_pem = make_csr(key_pem, "renewal", where=str(key_file))
    body = json.dumps({"csr": csr_pem.decode("ascii")}).encode()
    answer = transport.send(ROUTE, body, "application/json")
    if answer.status in {403, 422}:
        raise TrustError("the aggregator does not renew this host's certificate")
    if answer.status != 200:
        # An older aggregator has no such route: its operator renews by hand, as before.
        raise UnavailableError(f"the certificate is not renewed: answer {answer.status}")
    cert_pem = read_message(answer.body, ("certificate",))["certificate"].encode("ascii", "replace")
    check_issued(cert_pem, key_pem, keys.read_bounded(directory / "ca.pem"), now=now)
    keys.write_atomic(directory / "client.pem", cert_pem, mode=0o644)

"""How upstream is reached, from the operator's settings: TLS, certificates, corporate proxy."""

from __future__ import annotations

from aesp_proxy.daemon.config import Tls
from aesp_proxy.intercept.egress.tls_settings import (
    TlsSettings,
    client_certificates,
    parse_ciphers,
)


def tls_settings(settings: Tls) -> TlsSettings:
    """Read the settings of TLS, and the files they name; ConfigError where one is wrong."""
    return TlsSettings(
        version_min=settings.version_min,
        ciphers=parse_ciphers(settings.ciphers),
        certificates=client_certificates(settings.client_certificates),
    )

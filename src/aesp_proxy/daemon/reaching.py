"""How upstream is reached, from the operator's settings: TLS, certificates, corporate proxy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from aesp_proxy.daemon.config_upstream import Tls, Upstream
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.egress.corporate import CorporateProxy, corporate_proxy
from aesp_proxy.intercept.egress.tls_settings import (
    TlsSettings,
    client_certificates,
    parse_ciphers,
    proxy_context,
)
from aesp_proxy.keys import read_private


def way_out(
    settings: Upstream, *, roots: Path | None = None, tls: TlsSettings | None = None
) -> CorporateProxy | None:
    """Read the settings of the corporate proxy; None where there is none.

    An ``https`` proxy is verified against ``roots``, those of upstream, and shown the client
    certificate that ``tls`` names for it.
    """
    file = settings.proxy_credentials_file
    return corporate_proxy(
        settings.proxy,
        credentials=_credentials(file) if file is not None else "",
        excepted=settings.proxy_except,
        tls=partial(proxy_context, tls or TlsSettings(), roots),
    )


def _credentials(file: Path) -> str:
    try:
        text = read_private(file).decode()
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", where=str(file)) from None
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or "\n" in line:
        raise ConfigError("is not one line, user:password", where=str(file))
    return line


def tls_settings(settings: Tls) -> TlsSettings:
    """Read the settings of TLS, and the files they name; ConfigError where one is wrong."""
    return TlsSettings(
        version_min=settings.version_min,
        ciphers=parse_ciphers(settings.ciphers),
        certificates=client_certificates(settings.client_certificates),
    )

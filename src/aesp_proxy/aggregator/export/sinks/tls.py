"""The TLS side of every sink: the receiver is known by the roots that the settings name."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from aesp_proxy import keys
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.settings import SinkSettings


def sink_context(settings: SinkSettings) -> ssl.SSLContext:
    """Make a context that checks the receiver's certificate and name, TLS 1.2 or newer.

    ConfigError for a file that cannot be used.
    """
    if settings.client_file is not None:
        keys.check_identity(settings.client_file)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.client_file is not None:
            context.load_cert_chain(settings.client_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"its TLS files cannot be used: {error.strerror or 'not PEM'}",
            where=f"sinks.{settings.name}",
            remedy="check ca_file and client_file",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

"""mitmproxy set up for embedding: exact version, few add-ons, options closed.

Everything here leans on internals of one pinned release. :func:`verify_contract`
says at start whether they are as the overrides expect, and refuses to run
otherwise; a test runs it too.
"""

from __future__ import annotations

import inspect
import logging
import sys
import types
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aesp_proxy.errors import ConfigError

PINNED = "12.2.3"


def _spare_addons() -> None:
    """Keep ``mitmproxy.addons`` from importing all its members (flask, ldap3, tornado).

    Measured: 2.0 to 1.1 s from start to accepting, 10 MB less. The package
    object keeps its path, so single members still import.
    """
    if "mitmproxy.addons" in sys.modules:
        return
    spec = find_spec("mitmproxy")
    if spec is None or not spec.submodule_search_locations:
        msg = "mitmproxy is not installed"
        raise ConfigError(msg)
    package = types.ModuleType("mitmproxy.addons")
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "addons")]
    sys.modules["mitmproxy.addons"] = package


_spare_addons()

from mitmproxy import options as moptions  # noqa: E402
from mitmproxy.addons import core, proxyserver  # noqa: E402
from mitmproxy.master import Master  # noqa: E402
from mitmproxy.proxy import layer, tunnel  # noqa: E402
from mitmproxy.proxy.layers import http, tls  # noqa: E402
from mitmproxy.proxy.layers.http import _http1, _http2  # noqa: E402

from aesp_proxy.intercept.egress.tls import EgressTls  # noqa: E402
from aesp_proxy.intercept.egress.tls_settings import TlsSettings  # noqa: E402


class EgressMaster(Master):
    """Options and certificates; it never runs a server or an event of its own."""

    def __init__(
        self,
        *,
        ca_dir: Path,
        upstream_roots: Path | None,
        http2: bool,
        tls: TlsSettings | None = None,
    ) -> None:
        super().__init__(moptions.Options())
        # mitmproxy's own signatures are untyped here.
        addons: Any = self.addons
        settings: Any = self.options
        new_proxyserver: Any = proxyserver.Proxyserver
        # The handler for add-ons' logging is not used and costs on every line.
        self._legacy_log_events.uninstall()
        logging.getLogger("mitmproxy").setLevel(logging.ERROR)
        tls = tls or TlsSettings()
        self.tls = EgressTls(http2=http2, settings=tls)
        addons.add(core.Core(), new_proxyserver(), self.tls)
        settings.update(
            confdir=str(ca_dir),
            server=False,
            # Closed: bytes that are not HTTP inside intercepted TLS would go out raw.
            rawtcp=False,
            connection_strategy="lazy",
            upstream_cert=False,
            http2=http2,
            http3=False,
            ssl_insecure=False,
            validate_inbound_headers=True,
            ssl_verify_upstream_trusted_ca=str(upstream_roots) if upstream_roots else None,
            **tls.options,
        )
        self.tls.load_identities(upstream_roots)
        configure: Any = self.tls.configure
        configure({"confdir"})


def verify_contract() -> None:
    """Check version and shape of the internals that are overridden.

    Raises ``ConfigError``: an interceptor on other internals could let bytes by.
    """
    installed = version("mitmproxy")
    if installed != PINNED:
        msg = f"mitmproxy {installed} is installed, this release is built on {PINNED} exactly"
        raise ConfigError(msg, remedy=f"pip install mitmproxy=={PINNED}")
    expected = {
        (http.HttpLayer, "make_stream"): ["self", "stream_id"],
        (http.HttpLayer, "event_to_child"): ["self", "child", "event"],
        (http.HttpClient, "_handle_event"): ["self", "event"],
        (_http1.Http1Client, "send"): ["self", "event"],
        (_http1.Http1Client, "read_headers"): ["self", "event"],
        (_http1.Http1Client, "read_body"): ["self", "event"],
        (_http1.Http1Client, "mark_done"): ["self", "request", "response"],
        (_http2.Http2Client, "handle_h2_event"): ["self", "event"],
        (http.HttpStream, "__init__"): ["self", "context", "stream_id"],
        (http.HttpStream, "state_wait_for_request_headers"): ["self", "event"],
        (http.HttpStream, "state_stream_request_body"): ["self", "event"],
        (http.HttpStream, "state_wait_for_response_headers"): ["self", "event"],
        (http.HttpStream, "state_stream_response_body"): ["self", "event"],
        (http.HttpStream, "flow_done"): ["self"],
        (http.HttpStream, "handle_protocol_error"): ["self", "event"],
        (tls.TLSLayer, "send_data"): ["self", "data"],
        (tls.TLSLayer, "receive_data"): ["self", "data"],
        (tls.TLSLayer, "on_handshake_error"): ["self", "err"],
        (EgressTls.__mro__[1], "configure"): ["self", "updated"],
        (EgressTls.__mro__[1], "tls_start_client"): ["self", "tls_start"],
        (tunnel.TunnelLayer, "_handle_command"): ["self", "command"],
        (tunnel.TunnelLayer, "_handshake_finished"): ["self", "err"],
        (layer.Layer, "handle_event"): ["self", "event"],
        (EgressTls.__mro__[1], "tls_start_server"): ["self", "tls_start"],
    }
    for (owner, name), parameters in expected.items():
        method = getattr(owner, name, None)
        found = list(inspect.signature(method).parameters) if method is not None else None
        if found != parameters:
            msg = f"mitmproxy's {owner.__name__}.{name} takes {found}, not {parameters}"
            raise ConfigError(msg, remedy="use the pinned release")

"""HTTP requests as events: one host, one port, one target, or a refusal.

Takes parsed heads (HTTP/1) or header lists (HTTP/2) and makes the canonical
:class:`EgressRequest`. Whether CONNECT, SNI and Host agree is not decided here:
the event carries all three names (row 1 of the threat list).
"""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.errors import InputError
from aesp_proxy.model.event import EgressRequest
from aesp_proxy.model.host import Host, parse_authority
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.http_head import Headers, RequestHead

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes: ``origin_form`` is what is sent upstream."""

    scheme: str
    host: Host
    port: int
    origin_form: str

    def host_field(self, written: str) -> str:
        """Give the Host to send where ``written`` came: that, or its one canonical spelling."""
        host = str(self.host)
        if written in (host, f"{host}:{self.port}"):
            return written
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The names under which a connection was opened; ``sni`` is empty without TLS.

    ``named``: the client said the host (CONNECT, SOCKS, SNI) and is held to it. A captured
    connection without TLS has named none yet: each request's Host decides, and ``host`` is
    what the destination is known as, for requests of HTTP/1.0 that have no Host.
    """

    scheme: str
    host: Host
    port: int
    sni: str = ""
    named: bool = True

    @property
    def default_port(self) -> int:
        """The port of a Host that says none."""
        return DEFAULT_PORTS[self.scheme] if self.named else self.port


def absolute_target(head: RequestHead) -> Target:
    """Read the absolute-form target of a plain proxy request (RFC 9112 section 3.2.2).

    Only ``http``: an https URL in absolute form would go out unencrypted.
    """
    _refuse_connect(head)
    scheme, separator, rest = head.target.partition("://")
    if not separator or scheme.lower() != "http":
        msg = "the request target is not an absolute http:// URL"
        raise InputError(msg)
    cut = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    if "@" in authority:
        msg = "the request target holds user information"
        raise InputError(msg)
    host, port = parse_authority(authority, 80)
    named, named_port = parse_authority(head.host, 80) if head.host else (host, port)
    if head.host and (named.name, named_port) != (host.name, port):
        msg = f"the Host field names {named}:{named_port}, the target {host}:{port}"
        raise InputError(msg)
    origin = path if path.startswith("/") else "/" + path
    return Target(scheme="http", host=host, port=port, origin_form=origin)


def tunnel_target(head: RequestHead, tunnel: Tunnel) -> Target:
    """Read the origin-form target of a request inside a tunnel (RFC 9112 section 3.2.1)."""
    _refuse_connect(head)
    if not head.target.startswith("/") and not (head.method == "OPTIONS" and head.target == "*"):
        msg = "the request target inside a tunnel is not a path"
        raise InputError(msg)
    if head.host:
        host, port = parse_authority(head.host, tunnel.default_port)
    elif head.minor_version == 0:
        host, port = tunnel.host, tunnel.port
    else:
        msg = "the Host field is missing or empty"
        raise InputError(msg)
    return Target(scheme=tunnel.scheme, host=host, port=port, origin_form=head.target)


def _refuse_connect(head: RequestHead) -> None:
    """Refuse CONNECT to anybody but the proxy, whatever its target looks like."""
    if head.method == "CONNECT":
        msg = "a CONNECT inside a tunnel, or of a whole URL"
        raise InputError(msg)


def egress_request(
    *,
    method: str,
    target: Target,
    headers: Headers,
    content_length: int | None,
    http_version: str,
    tunnel: Tunnel | None,
    principal: Principal,
    time_ns: int,
) -> EgressRequest:
    """Make the event of one request. ``content_length`` is bytes, None when unknown."""
    path, _, query = target.origin_form.partition("?")
    return EgressRequest(
        event_id="",
        time_ns=time_ns,
        principal=principal,
        scheme=target.scheme,
        method=method,
        host=target.host,
        port=target.port,
        target=target.origin_form,
        path=path,
        query=query,
        headers=headers,
        http_version=http_version,
        sni=tunnel.sni if tunnel else "",
        connect_host=tunnel.host.name if tunnel and tunnel.named else "",
        content_length=content_length,
    )


def name_mismatch(event: EgressRequest, tunnel: Tunnel | None) -> str:
    """Say how CONNECT, SNI and Host disagree; empty when they agree or there is no tunnel."""
    if tunnel is None:
        return ""
    if not tunnel.named:
        if event.port == tunnel.port:
            return ""
        return f"the connection is to port {tunnel.port}, Host {event.host}:{event.port}"
    names = {event.host.name, tunnel.host.name}
    if tunnel.sni:
        names.add(tunnel.sni)
    if len(names) == 1 and event.port == tunnel.port:
        return ""
    return (
        f"CONNECT named {tunnel.host}:{tunnel.port}, "
        f"SNI {tunnel.sni or '(none)'}, Host {event.host}:{event.port}"
    )

"""The corporate proxy on the way to a receiver: HTTP CONNECT, with a user where it asks for one.

Rules: only TLS goes through, so the proxy sees a name and nothing of the records; its
password is sent to it alone and stands in no message; its answer is bounded, and what it
says beside a status is not told.
Source: RFC 9110 section 9.3.6 (CONNECT), RFC 7617 (Basic).
"""

from __future__ import annotations

import base64
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx

from aesp_proxy.aggregator.export.sinks.port import LaterError
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.address import host_port

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.settings import SinkSettings

ANSWER_BYTES_MAX: Final = 16 * 1024
_PORT: Final = 8080
_MEANINGS: Final = {
    403: "the proxy refuses the receiver",
    407: "the proxy does not take our user and password",
}


def http_proxy(settings: SinkSettings) -> httpx.Proxy | None:
    """Return the proxy as httpx takes it, None where there is none. ConfigError for its roots."""
    if not settings.proxy:
        return None
    login = (settings.proxy_user, settings.proxy_secret) if settings.proxy_user else None
    try:
        context = ssl.create_default_context(cafile=settings.proxy_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"its roots cannot be used: {error.strerror or 'not PEM'}",
            where=f"sinks.{settings.name}.proxy_ca_file",
        ) from error
    is_tls = settings.proxy.startswith("https:")
    return httpx.Proxy(settings.proxy, auth=login, ssl_context=context if is_tls else None)


def connected(settings: SinkSettings, host: str, port: int) -> socket.socket:
    """Connect to a receiver, by the sink's proxy where it has one. OSError, LaterError."""
    if not settings.proxy:
        return socket.create_connection((host, port), timeout=settings.timeout_s)
    parts = urlsplit(settings.proxy)
    place = (parts.hostname or "", parts.port or _PORT)
    tunnel = socket.create_connection(place, timeout=settings.timeout_s)
    try:
        tunnel.sendall(_request(settings, host, port))
        _check(_answer(tunnel, time.monotonic() + settings.timeout_s), settings.proxy)
        tunnel.settimeout(settings.timeout_s)
    except BaseException:
        tunnel.close()
        raise
    return tunnel


def _request(settings: SinkSettings, host: str, port: int) -> bytes:
    target = host_port(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if settings.proxy_user:
        login = f"{settings.proxy_user}:{settings.proxy_secret}".encode()
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(login).decode("ascii"))
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _answer(tunnel: socket.socket, end_s: float) -> bytes:
    """Read the head of the answer, a byte at a time: what follows it is the receiver's."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        tunnel.settimeout(left_s)
        byte = tunnel.recv(1)
        if not byte:
            raise ConnectionResetError
        head += byte
        if len(head) > ANSWER_BYTES_MAX:
            raise LaterError("the proxy's answer is too long")
    return head


def _check(head: bytes, where: str) -> None:
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    code = rest[:3]
    if version not in {b"HTTP/1.0", b"HTTP/1.1"} or not code.isdigit() or rest[3:4] not in b" ":
        raise LaterError("the proxy does not answer as one does", where=where)
    status = int(code)
    if not 200 <= status < 300:
        meaning = _MEANINGS.get(status, "the proxy has made no connection")
        raise LaterError(f"{meaning} (status {status})", where=where)

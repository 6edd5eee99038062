"""A corporate proxy between this one and the internet: who is reached through it, and how.

``http`` and ``https`` proxies are told names by CONNECT, ``socks5h`` by SOCKS5: they resolve
them, so their addresses cannot be checked here. A ``socks5`` proxy is told a checked address.
The proxy's own address is the operator's and is not checked. Credentials stand in no message,
record or ``repr``.
"""

from __future__ import annotations

import base64
import socket
import ssl
from asyncio import BaseTransport
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from aesp_proxy.decide.policy.hosts import HostIndex, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.intercept.egress.corporate_line import Line, TcpLine, TlsLine
from aesp_proxy.intercept.egress.corporate_speech import ask_http, ask_socks
from aesp_proxy.model.host import Host, parse_host
from aesp_proxy.normalize.socks import LOGIN_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesp_proxy.intercept.egress.wire import Wire

_URL: Final = "upstream.proxy"
_EXCEPT: Final = "upstream.proxy_except"
_WHOSE: Final = "credentials of the corporate proxy"
_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_REMEDY: Final = (
    "write http://HOST:PORT, or https, socks5 or socks5h; credentials in "
    "upstream.proxy_credentials_file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporateProxy:
    """Where it listens, what it is told of us, and who is dialled directly all the same.

    ``tls`` is there for ``https`` only.
    """

    scheme: str
    host: Host
    port: int
    login: tuple[bytes, bytes] | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    excepted: HostIndex

    @property
    def resolves(self) -> bool:
        """Whether it is told names; else addresses that were resolved and checked here."""
        return self.scheme != "socks5"

    def leads_to(self, host: Host, port: int) -> bool:
        """Tell whether a host is reached through it.

        Its own loopback and links are not what an address or ``localhost`` means here.
        """
        address = host.address
        if address is not None and (address.is_loopback or address.is_link_local):
            return False
        if host.name == "localhost" or host.name.endswith(".localhost"):
            return False
        return self.excepted.find(host, port) is None

    async def lead(self, sock: socket.socket, host: Host, port: int, wire: Wire) -> BaseTransport:
        """Have a connected socket led to ``host`` and given to ``wire``.

        Takes the socket over. ``UnavailableError`` says who failed at what.
        """
        line: Line = TcpLine(sock)
        try:
            if self.tls is not None:
                line = await TlsLine.open(sock, self.tls, self.host.name)
            if self.scheme.startswith("socks5"):
                await ask_socks(line, host, port, self.login)
            else:
                await ask_http(line, host, port, self._authorization())
            return await line.hand_over(wire)
        except OSError as error:
            line.abort()
            msg = f"the corporate proxy broke off: {error.strerror or error}"
            raise UnavailableError(msg) from error
        except BaseException:
            line.abort()
            raise

    def _authorization(self) -> bytes:
        """Encode the credentials (RFC 7617); empty for none."""
        return base64.b64encode(b":".join(self.login)) if self.login is not None else b""


def corporate_proxy(
    url: str,
    *,
    credentials: str,
    excepted: str,
    tls: Callable[[Host, int], ssl.SSLContext],
) -> CorporateProxy | None:
    """Read the settings; None without a URL. ``credentials`` are ``user:password``.

    ``tls`` makes what an ``https`` proxy is verified with. Raises ``ConfigError``, which
    never shows the URL: it may hold a password.
    """
    index = _excepted(excepted)
    if not url:
        return None
    parts, port = _split(url)
    if parts.username is not None:
        if credentials:
            raise ConfigError(
                "credentials stand in the URL and in a file", where=_URL, remedy="keep the file"
            )
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    try:
        name = parts.hostname or ""
        host = parse_host(f"[{name}]" if ":" in name else name)
    except InputError as error:
        raise ConfigError("names no host", where=_URL, remedy=_REMEDY) from error
    return CorporateProxy(
        scheme=parts.scheme,
        host=host,
        port=port,
        login=_login(credentials, parts.scheme),
        tls=tls(host, port) if parts.scheme == "https" else None,
        excepted=index,
    )


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("is not a URL", where=_URL, remedy=_REMEDY) from None
    if parts.scheme not in _SCHEMES or not parts.hostname or not port:
        raise ConfigError("is not http://HOST:PORT", where=_URL, remedy=_REMEDY)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError("has a path", where=_URL, remedy=_REMEDY)
    return parts, port


def _login(credentials: str, scheme: str) -> tuple[bytes, bytes] | None:
    """Split ``user:password``; None for none."""
    if not credentials:
        return None
    user, colon, password = credentials.partition(":")
    if not (user and colon) or any(ord(c) < 32 or ord(c) == 127 for c in credentials):
        raise ConfigError("are not user:password", where=_WHOSE)
    pair = user.encode(), password.encode()
    if scheme.startswith("socks5") and not all(0 < len(each) <= LOGIN_BYTES_MAX for each in pair):
        raise ConfigError(f"are not of 1 to {LOGIN_BYTES_MAX} bytes each", where=_WHOSE)
    return pair


def _excepted(text: str) -> HostIndex:
    rules = [
        parse_host_rule(Sourced(entry, _EXCEPT))
        for entry in filter(None, map(str.strip, text.split(",")))
    ]
    return HostIndex(rules, ports_without=None, any_is_address=True)

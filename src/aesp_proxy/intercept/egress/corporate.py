"""A corporate proxy between this one and the internet: who is reached through it, and how.

CONNECT (RFC 9110 section 9.3.6) for everything, plain HTTP and other TCP too. It resolves
the names, so their addresses cannot be checked here; its own address is the operator's
and is not checked either. Credentials stand in no message, record or ``repr``.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from aesp_proxy.decide.policy.hosts import HostIndex, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.model.host import Host, parse_host

_URL: Final = "upstream.proxy"
_EXCEPT: Final = "upstream.proxy_except"
_REMEDY: Final = "write http://HOST:PORT; credentials in upstream.proxy_credentials_file"
_HEAD_BYTES_MAX: Final = 16_384
_INTERIM_MAX: Final = 8
_CANNOT_REACH: Final = frozenset({500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporateProxy:
    """Where it listens, what it is told of us, and who is dialled directly all the same."""

    host: Host
    port: int
    authorization: bytes = field(default=b"", repr=False)
    excepted: HostIndex

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

    async def tunnel(self, sock: socket.socket, host: Host, port: int) -> None:
        """Have a connected socket led to ``host``; ``UnavailableError`` says who failed at what."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(sock, self._connect(host, port))
            status = await _status(sock)
        except OSError as error:
            msg = f"the corporate proxy broke off: {error.strerror or error}"
            raise UnavailableError(msg) from error
        if not 200 <= status < 300:
            raise UnavailableError(self._refusal(status, f"{_authority(host, port)}"))

    def _connect(self, host: Host, port: int) -> bytes:
        authority = _authority(host, port).encode("ascii")
        lines = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority)
        if self.authorization:
            lines += b"Proxy-Authorization: Basic %b\r\n" % self.authorization
        return lines + b"\r\n"

    def _refusal(self, status: int, authority: str) -> str:
        if status == 407:
            what = "does not take the credentials" if self.authorization else "wants credentials"
            return f"the corporate proxy {what} (407)"
        if status in _CANNOT_REACH:
            return f"the corporate proxy cannot reach {authority} ({status})"
        if status == 403:
            return f"the corporate proxy forbids CONNECT to {authority} (403)"
        return f"the corporate proxy answered CONNECT to {authority} with {status}"


def corporate_proxy(url: str, *, credentials: str, excepted: str) -> CorporateProxy | None:
    """Read the settings; None without a URL. ``credentials`` are ``user:password``.

    Raises ``ConfigError``, which never shows the URL: it may hold a password.
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
    return CorporateProxy(host=host, port=port, authorization=_basic(credentials), excepted=index)


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("is not a URL", where=_URL, remedy=_REMEDY) from None
    if parts.scheme != "http" or not parts.hostname or not port:
        raise ConfigError("is not http://HOST:PORT", where=_URL, remedy=_REMEDY)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError("has a path", where=_URL, remedy=_REMEDY)
    return parts, port


def _basic(credentials: str) -> bytes:
    """Encode ``user:password`` (RFC 7617); empty for none."""
    if not credentials:
        return b""
    user, colon, _ = credentials.partition(":")
    if not (user and colon) or any(ord(c) < 32 or ord(c) == 127 for c in credentials):
        raise ConfigError("are not user:password", where="credentials of the corporate proxy")
    return base64.b64encode(credentials.encode())


def _excepted(text: str) -> HostIndex:
    rules = [
        parse_host_rule(Sourced(entry, _EXCEPT))
        for entry in filter(None, map(str.strip, text.split(",")))
    ]
    return HostIndex(rules, ports_without=None, any_is_address=True)


def _authority(host: Host, port: int) -> str:
    return f"{host}:{port}"


async def _status(sock: socket.socket) -> int:
    """Read the head of the answer, and not a byte more: what follows is the host's."""
    for _ in range(_INTERIM_MAX):
        status = _status_of(await _head(sock))
        if status >= 200:
            return status
    raise UnavailableError("the corporate proxy gave too many interim answers")


def _status_of(head: bytes) -> int:
    """Read a status line (RFC 9112 section 4): version, code, and words that are not looked at."""
    line = head.partition(b"\n")[0].rstrip(b"\r")
    version, _, rest = line.partition(b" ")
    code = rest.partition(b" ")[0]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit():
        raise UnavailableError("the corporate proxy did not answer in HTTP/1")
    return int(code)


async def _head(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    head = bytearray()
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            raise UnavailableError("the corporate proxy closed the connection without an answer")
        head += byte
        if len(head) > _HEAD_BYTES_MAX:
            raise UnavailableError("the corporate proxy's answer is too long")
    return bytes(head)

"""How a corporate proxy is asked to lead on: CONNECT (RFC 9110 section 9.3.6) and SOCKS5.

Its words are never shown: messages say its codes and names of schemes, from fixed sets.
"""

from __future__ import annotations

from typing import Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.egress.corporate_line import Line
from aesp_proxy.model.host import Host
from aesp_proxy.normalize import socks

_HEAD_BYTES_MAX: Final = 16_384
_INTERIM_MAX: Final = 8
_CANNOT_REACH: Final = frozenset({500, 502, 503, 504})
_BASIC: Final = b"basic"
_UNSPOKEN: Final = {
    b"ntlm": "NTLM",
    b"negotiate": "Negotiate",
    b"kerberos": "Kerberos",
    b"digest": "Digest",
}
_NTLM_REMEDY: Final = (
    "run a proxy on this machine that logs in there (cntlm, px) and name it in upstream.proxy"
)


class NotReachedError(UnavailableError):
    """The proxy cannot reach this address; it may reach another of the same host."""


async def ask_http(line: Line, host: Host, port: int, authorization: bytes) -> None:
    """Have an HTTP proxy lead on; ``UnavailableError`` says who failed at what."""
    authority = f"{host}:{port}".encode("ascii")
    lines = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority)
    if authorization:
        lines += b"Proxy-Authorization: Basic %b\r\n" % authorization
    await line.send(lines + b"\r\n")
    for _ in range(_INTERIM_MAX):
        head = await _head(line)
        status = _status_of(head)
        if status >= 200:
            break
    else:
        raise UnavailableError("the corporate proxy gave too many interim answers")
    if status == 407:
        raise UnavailableError(_wants(head, given=bool(authorization)))
    if not 200 <= status < 300:
        raise UnavailableError(_refusal(status, f"{host}:{port}"))


def _refusal(status: int, authority: str) -> str:
    if status in _CANNOT_REACH:
        return f"the corporate proxy cannot reach {authority} ({status})"
    if status == 403:
        return f"the corporate proxy forbids CONNECT to {authority} (403)"
    return f"the corporate proxy answered CONNECT to {authority} with {status}"


def _wants(head: bytes, *, given: bool) -> str:
    """Say what login it wants: one that is spoken here, or what to do where none is."""
    offers = [
        line.partition(b":")[2].lower()
        for line in head.split(b"\n")
        if line.lower().startswith(b"proxy-authenticate:")
    ]
    schemes = {
        word.strip(b" ,\t\r") for offer in offers for word in offer.replace(b",", b" ").split()
    }
    unspoken = [name for scheme, name in _UNSPOKEN.items() if scheme in schemes]
    if unspoken and _BASIC not in schemes:
        names = " or ".join(unspoken)
        return f"the corporate proxy wants {names}, which is not spoken here (407): {_NTLM_REMEDY}"
    what = "does not take the credentials" if given else "wants credentials"
    return f"the corporate proxy {what} (407)"


def _status_of(head: bytes) -> int:
    """Read a status line (RFC 9112 section 4): version, code, and words that are not looked at."""
    line = head.partition(b"\n")[0].rstrip(b"\r")
    version, _, rest = line.partition(b" ")
    code = rest.partition(b" ")[0]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit():
        raise UnavailableError("the corporate proxy did not answer in HTTP/1")
    return int(code)


async def _head(line: Line) -> bytes:
    head = bytearray()
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        head += await line.receive(1)
        if len(head) > _HEAD_BYTES_MAX:
            raise UnavailableError("the corporate proxy's answer is too long")
    return bytes(head)


async def ask_socks(line: Line, host: Host, port: int, login: tuple[bytes, bytes] | None) -> None:
    """Have a SOCKS5 proxy lead on (RFC 1928, RFC 1929); ``NotReachedError`` for this address."""
    await line.send(socks.greeting(with_login=login is not None))
    version, method = await line.receive(2)
    if version != socks.SOCKS5:
        raise UnavailableError("the corporate proxy does not speak SOCKS5")
    if method == socks.LOGIN and login is not None:
        await line.send(socks.login(*login))
        if (await line.receive(2))[1]:
            raise UnavailableError("the corporate proxy does not take the credentials (SOCKS5)")
    elif method:
        what = "takes no method that is spoken here" if login else "wants credentials"
        raise UnavailableError(f"the corporate proxy {what} (SOCKS5)")
    await line.send(socks.request(host, port))
    head = await line.receive(5)
    length = socks.reply_length(head)
    if head[0] != socks.SOCKS5 or length is None:
        raise UnavailableError("the corporate proxy does not speak SOCKS5")
    if head[1]:
        kind = NotReachedError if head[1] in socks.NOT_REACHED else UnavailableError
        why = socks.REPLY_WORDS.get(head[1], "failed")
        raise kind(f"the corporate proxy: {host}:{port} {why} (SOCKS5 reply {head[1]})")
    await line.receive(length - len(head))

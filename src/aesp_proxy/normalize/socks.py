"""SOCKS5 as a client speaks it: the greeting and the request; pure (RFC 1928).

Only CONNECT without authentication is spoken. Names go through the one strict parser of
hosts, so an address written as a name is an address here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from aesp_proxy.errors import InputError
from aesp_proxy.model.host import Host, parse_host, unwrap_address

SOCKS5 = 5
SOCKS4 = 4

_NO_AUTHENTICATION = 0
_CONNECT = 1
_IPV4, _NAME = 1, 3

METHOD_CHOSEN = b"\x05\x00"
NO_METHOD = b"\x05\xff"
SOCKS4_REJECTED = b"\x00\x5b" + bytes(6)  # SOCKS4: request rejected or failed

FAILED, REFUSED, BAD_COMMAND, BAD_ADDRESS = 1, 2, 7, 8
"""Replies: general failure; refused by the rules; command or kind of address not supported."""


class UnsupportedSocksError(InputError):
    """Good SOCKS that is not spoken here; ``reply`` is the code of the answer."""

    def __init__(self, message: str, reply: int) -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class SocksRequest:
    """A CONNECT: where to, and how many bytes of the input it took."""

    host: Host
    port: int
    length: int


def reply(code: int) -> bytes:
    """Give a reply without a bound address; 0 is success."""
    return bytes((SOCKS5, code, 0, _IPV4)) + bytes(6)


def read_greeting(data: bytes) -> int | None:
    """Return the length of the greeting (section 3), None while it is not whole.

    Raises ``InputError``, and ``UnsupportedSocksError`` where every method offered wants
    credentials.
    """
    if data[:1] not in (b"", b"\x05"):
        raise InputError("the greeting is not SOCKS5")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    if not data[1]:
        raise InputError("the SOCKS greeting offers no method")
    if _NO_AUTHENTICATION not in data[2 : 2 + data[1]]:
        text = "SOCKS with authentication is not spoken; offer the method without"
        raise UnsupportedSocksError(text, FAILED)
    return 2 + data[1]


def read_request(data: bytes) -> SocksRequest | None:
    """Read the request (section 4), None while it is not whole.

    Raises ``InputError`` for what is malformed, ``UnsupportedSocksError`` for BIND, UDP
    and unknown kinds of address.
    """
    head = data[:4]
    if head[:1] not in (b"", b"\x05") or head[2:3] not in (b"", b"\0"):
        raise InputError("the SOCKS request has a wrong version or reserved byte")
    if len(head) < 4:
        return None
    if head[1] != _CONNECT:
        raise UnsupportedSocksError("a SOCKS command other than CONNECT", BAD_COMMAND)
    start, end = _address_span(data)
    if end is None or len(data) < end + 2:
        return None
    port = int.from_bytes(data[end : end + 2])
    if not port:
        raise InputError("the SOCKS request names port 0")
    return SocksRequest(host=_host(head[3], data[start:end]), port=port, length=end + 2)


def _address_span(data: bytes) -> tuple[int, int | None]:
    match data[3]:
        case 1:
            return 4, 8
        case 4:
            return 4, 20
        case 3:
            return 5, 5 + data[4] if len(data) > 4 else None
        case _:
            raise UnsupportedSocksError("a kind of address that SOCKS5 has not", BAD_ADDRESS)


def _host(kind: int, raw: bytes) -> Host:
    if kind == _NAME:
        try:
            return parse_host(raw.decode("ascii"))
        except UnicodeDecodeError:
            raise InputError("the host of the SOCKS request is not ASCII") from None
    address = IPv4Address(raw) if kind == _IPV4 else unwrap_address(IPv6Address(raw))
    return Host(str(address), address)


# The other side: a client of somebody else's proxy.

LOGIN = 2
"""The method of RFC 1929: user name and password."""
LOGIN_BYTES_MAX = 255
NOT_REACHED = frozenset({1, 3, 4, 5, 6, 8})
"""Replies after which another address of the same host may be tried."""
REPLY_WORDS = {
    1: "failed",
    2: "is forbidden there",
    3: "is in a network that it cannot reach",
    4: "cannot be reached",
    5: "refused it",
    6: "did not answer in time",
    7: "cannot be had: it knows no CONNECT",
    8: "is a kind of address that it does not know",
}


def greeting(*, with_login: bool) -> bytes:
    """Offer the method without login, and with one where there are credentials."""
    return b"\x05\x02\x00\x02" if with_login else b"\x05\x01\x00"


def login(user: bytes, password: bytes) -> bytes:
    """Log in (RFC 1929 section 2); both have 1 to 255 bytes."""
    return b"\x01%c%b%c%b" % (len(user), user, len(password), password)


def request(host: Host, port: int) -> bytes:
    """Ask for a connection (section 4), by address where the host is one, else by name."""
    address = host.address
    if address is None:
        name = host.name.encode("ascii")
        where = b"%c%c%b" % (_NAME, len(name), name)
    else:
        where = b"%c%b" % (_IPV4 if address.version == 4 else 4, address.packed)
    return b"\x05\x01\x00" + where + port.to_bytes(2)


def reply_length(head: bytes) -> int | None:
    """Tell the length of a reply (section 6) by its first five bytes; None where it is none."""
    return {1: 10, 3: 7 + head[4], 4: 22}.get(head[3]) if head[2] == 0 else None

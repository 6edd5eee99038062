"""Netlink messages by hand: loopback up, and every address on earth local to it.

rtnetlink(7). The same as ``ip link set lo up; ip route add local default dev lo`` for
IPv4 and IPv6: a connection to any address then reaches a socket of this namespace, or
nobody, and where it was to go stands in the accepted socket's own name.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
_NLMSG_ERROR: Final = 2
_RTM_NEWLINK: Final = 16
_RTM_NEWROUTE: Final = 24
_IFF_UP: Final = 1
_LOOPBACK: Final = 1
_RT_TABLE_LOCAL: Final = 255
_RTPROT_BOOT: Final = 3
_RT_SCOPE_HOST: Final = 254
_RTN_LOCAL: Final = 2
_RTA_OIF: Final = 4
_HEADER: Final = struct.Struct("=IHHII")
_REPLY_BYTES: Final = 65536


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one message, padded to four bytes."""
    length = _HEADER.size + len(payload)
    return _HEADER.pack(length, kind, flags, sequence, 0) + payload + bytes(-length % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def loopback_up(sequence: int) -> bytes:
    """Return the request that sets the loopback device up."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LOOPBACK, _IFF_UP, _IFF_UP)
    return message(_RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def route_everything(family: int, sequence: int) -> bytes:
    """Return the request that makes every address of a family local to loopback."""
    body = struct.pack(
        "=BBBBBBBBI", family, 0, 0, 0, _RT_TABLE_LOCAL, _RTPROT_BOOT, _RT_SCOPE_HOST, _RTN_LOCAL, 0
    )
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return message(
        _RTM_NEWROUTE, flags, sequence, body + attribute(_RTA_OIF, struct.pack("=I", _LOOPBACK))
    )


def ask(protocol: int, requests: bytes, *, acknowledged: int) -> None:
    """Send requests and await so many acknowledgements; OSError for the first refusal."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as link:
        link.settimeout(5)
        link.sendto(requests, (0, 0))
        while acknowledged > 0:
            for number in _errors(link.recv(_REPLY_BYTES)):
                if number:
                    raise OSError(number, os.strerror(number))
                acknowledged -= 1


def _errors(data: bytes) -> list[int]:
    """Return the errno, 0 for success, of each acknowledgement in a datagram."""
    found = []
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            break
        if kind == _NLMSG_ERROR:
            found.append(-struct.unpack_from("=i", data, _HEADER.size)[0])
        data = data[(length + 3) & ~3 :]
    return found


def families() -> list[int]:
    """Return the address families of this namespace; a kernel may have no IPv6."""
    has_v6 = os.path.exists("/proc/self/net/if_inet6")  # noqa: PTH110 - no Path, to start fast
    return [socket.AF_INET, socket.AF_INET6] if has_v6 else [socket.AF_INET]


def bring_everything_home() -> None:
    """Set loopback up and make every address local to it, in this namespace."""
    requests = [loopback_up(1)]
    requests += [route_everything(each, n) for n, each in enumerate(families(), 2)]
    for request in requests:
        ask(socket.NETLINK_ROUTE, request, acknowledged=1)

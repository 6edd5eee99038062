"""Routes of the agent's network: loopback up, and every address on earth local to it.

rtnetlink(7). The same as ``ip link set lo up; ip route add local default dev lo`` for
IPv4 and IPv6: a connection to any address then reaches a socket of this namespace, or
nobody, and where it was to go stands in the accepted socket's own name.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from aesp_proxy.intercept.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    ask,
    attribute,
    message,
)

_RTM_NEWLINK: Final = 16
_RTM_NEWROUTE: Final = 24
_IFF_UP: Final = 1
_LOOPBACK: Final = 1
_RT_TABLE_LOCAL: Final = 255
_RTPROT_BOOT: Final = 3
_RT_SCOPE_HOST: Final = 254
_RTN_LOCAL: Final = 2
_RTA_OIF: Final = 4


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

"""One packet rule a family: TCP to any port and address arrives at one socket of ours.

nftables spoken by hand (linux/netfilter/nf_tables.h), so that no program has to be
installed: in each of the tables ``ip`` and ``ip6`` a chain on the output hook whose one
rule reads ``meta l4proto tcp, daddr not loopback, dport not 53, redirect to :PORT``. Where
a connection was to go is asked of the accepted socket (SO_ORIGINAL_DST). What the agent
serves to itself on loopback is left alone.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from aesp_proxy.launch.isolation.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    ask,
    attribute,
    message,
)

_NETLINK_NETFILTER: Final = 12
_NLM_F_APPEND: Final = 0x800
_NLA_F_NESTED: Final = 0x8000
_SUBSYSTEM: Final = 10
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NEW_TABLE: Final = 0
_NEW_CHAIN: Final = 3
_NEW_RULE: Final = 6
_HOOK_OUTPUT: Final = 3
_PRIORITY_DSTNAT: Final = -100
_REGISTER: Final = 1
_META_L4PROTO: Final = 16
_EQUAL: Final = 0
_NOT_EQUAL: Final = 1
_NETWORK_HEADER: Final = 1
_TRANSPORT_HEADER: Final = 2
_TABLE: Final = b"aesp_proxy\0"
_CHAIN: Final = b"out\0"
_DNS_PORT: Final = 53
# Family number, and the part of the destination that tells loopback: offset and value.
_NFPROTO: Final = {socket.AF_INET: 2, socket.AF_INET6: 10}
_LOOPBACK: Final = {socket.AF_INET: (16, b"\x7f"), socket.AF_INET6: (24, bytes(15) + b"\x01")}


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, b"".join(parts))


def _expression(name: str, *parts: bytes) -> bytes:
    return _nested(1, attribute(1, name.encode() + b"\0"), _nested(2, *parts))


def _compare(operator: int, value: bytes) -> bytes:
    data = _nested(3, attribute(1, value))
    return _expression("cmp", _number(1, _REGISTER), _number(2, operator), data)


def _load(header: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload",
        _number(1, _REGISTER),
        _number(2, header),
        _number(3, offset),
        _number(4, length),
    )


def _expressions(family: int, port: int) -> bytes:
    offset, loopback = _LOOPBACK[socket.AddressFamily(family)]
    return _nested(
        4,
        _expression("meta", _number(1, _REGISTER), _number(2, _META_L4PROTO)),
        _compare(_EQUAL, bytes([socket.IPPROTO_TCP])),
        _load(_NETWORK_HEADER, offset, len(loopback)),
        _compare(_NOT_EQUAL, loopback),
        _load(_TRANSPORT_HEADER, 2, 2),
        _compare(_NOT_EQUAL, struct.pack(">H", _DNS_PORT)),
        _expression(
            "immediate",
            _number(1, _REGISTER),
            _nested(2, attribute(1, struct.pack(">H", port))),
        ),
        _expression("redir", _number(1, _REGISTER)),
    )


def requests(family: int, port: int) -> bytes:
    """Return the batch that sends TCP of a family to ``port`` on loopback."""
    numbers = iter(range(1, 10))
    nfproto = _NFPROTO[socket.AddressFamily(family)]

    def edge(kind: int) -> bytes:
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)
        return message(kind, NLM_F_REQUEST, next(numbers), body)

    def command(kind: int, flags: int, *parts: bytes) -> bytes:
        body = struct.pack(">BBH", nfproto, 0, 0) + b"".join(parts)
        flags |= NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
        return message(_SUBSYSTEM << 8 | kind, flags, next(numbers), body)

    hook = _nested(4, _number(1, _HOOK_OUTPUT), _number(2, _PRIORITY_DSTNAT))
    chain = (attribute(1, _TABLE), attribute(3, _CHAIN), hook, attribute(7, b"nat\0"))
    rule = (attribute(1, _TABLE), attribute(2, _CHAIN), _expressions(family, port))
    return b"".join(
        [
            edge(_BATCH_BEGIN),
            command(_NEW_TABLE, 0, attribute(1, _TABLE)),
            command(_NEW_CHAIN, 0, *chain),
            command(_NEW_RULE, _NLM_F_APPEND, *rule),
            edge(_BATCH_END),
        ]
    )


def redirect_every_port(family: int, port: int) -> None:
    """Install the rule in this namespace; OSError where the kernel has no such rules."""
    ask(_NETLINK_NETFILTER, requests(family, port), acknowledged=3)

"""The few words of nftables that we speak, each as the kernel takes it and as ``nft`` writes it.

linux/netfilter/nf_tables.h. A term is a piece of a rule; its text is what ``nft list``
shows of it, so that an operator can read what is installed. Standard library only.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from aesp_proxy.intercept.netlink import attribute, attributes, nested

Tree = tuple[tuple[int, "bytes | Tree"], ...]
"""Attributes: kind, and a value or more attributes."""

_REGISTER: Final = 1
_VERDICT_REGISTER: Final = 0
_NAME, _DATA = 1, 2  # of an expression
_LIST_ELEMENT: Final = 1
_EQUAL, _NOT_EQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_OIF, _META_SKUID, _META_SKGID, _META_NFPROTO, _META_L4PROTO = 5, 10, 11, 15, 16
_CT_STATE, _CT_DIRECTION, _CT_STATUS = 0, 1, 2
_CT_DNAT: Final = 1 << 5
_CT_KNOWN: Final = 1 << 1 | 1 << 2  # established, related
_SOCKET_CGROUP: Final = 3
_LOOPBACK_INDEX: Final = 1  # net/loopback.h: in every network namespace
_ACCEPT, _DROP, _JUMP, _RETURN = 1, 0, -3, -5
_REJECT_RESET, _REJECT_UNREACHABLE = 1, 2
_PORT_UNREACHABLE: Final = 1
_NFPROTO: Final = {4: 2, 6: 10}
_PROTOCOL: Final = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "ipv6-icmp": 58}
_DESTINATION_OFFSET: Final = {4: 16, 6: 24}


class Expression(NamedTuple):
    """One step of the kernel's little machine."""

    name: str
    tree: Tree


class Term(NamedTuple):
    """A piece of a rule: nft's words for it, and what the kernel does."""

    text: str
    steps: tuple[Expression, ...]


class Network(NamedTuple):
    """A network that ends at a byte; ``ipaddress`` would take longer to load than all this."""

    version: int
    prefix: bytes
    text: str


LOOPBACK4: Final = Network(4, b"\x7f", "127.0.0.0/8")
LOOPBACK6: Final = Network(6, bytes(15) + b"\x01", "::1")


# how they are written -------------------------------------------------------------------


def encoded(tree: Tree) -> bytes:
    """Return attributes as the kernel reads them."""
    return b"".join(
        attribute(kind, value) if isinstance(value, bytes) else nested(kind, encoded(value))
        for kind, value in tree
    )


def encoded_rule(steps: tuple[Expression, ...]) -> bytes:
    """Return the list of a rule's expressions, without its own attribute."""
    named = (
        attribute(_NAME, step.name.encode() + b"\0") + nested(_DATA, encoded(step.tree))
        for step in steps
    )
    return b"".join(nested(_LIST_ELEMENT, each) for each in named)


def is_written(data: bytes, tree: Tree) -> bool:
    """Whether the kernel's word of something says all that ``tree`` says of it.

    It may say more: what it filled in by itself.
    """
    told = dict(attributes(data))
    return all(
        kind in told
        and (told[kind] == value if isinstance(value, bytes) else is_written(told[kind], value))
        for kind, value in tree
    )


def is_rule(data: bytes, steps: tuple[Expression, ...]) -> bool:
    """Whether the kernel's list of expressions is this rule, and nothing besides."""
    told = [dict(attributes(each)) for _, each in attributes(data)]
    return len(told) == len(steps) and all(
        each.get(_NAME) == step.name.encode() + b"\0"
        and is_written(each.get(_DATA, b""), step.tree)
        for each, step in zip(told, steps, strict=True)
    )


# what they are made of ------------------------------------------------------------------


def number(value: int) -> bytes:
    """Return 32 bits as netfilter has them in attributes: the most significant first."""
    return struct.pack(">I", value & 0xFFFFFFFF)


def _data(value: bytes) -> Tree:
    return ((1, value),)


def _compare(operator: int, value: bytes) -> Expression:
    return Expression("cmp", ((1, number(_REGISTER)), (2, number(operator)), (3, _data(value))))


def _meta(key: int) -> Expression:
    return Expression("meta", ((1, number(_REGISTER)), (2, number(key))))


def _tracked(key: int) -> Expression:
    return Expression("ct", ((1, number(_REGISTER)), (2, number(key))))


def _loaded(header: int, offset: int, length: int) -> Expression:
    parts = enumerate((_REGISTER, header, offset, length), 1)
    return Expression("payload", tuple((kind, number(value)) for kind, value in parts))


def _masked(mask: bytes) -> Expression:
    length = number(len(mask))
    parts: Tree = ((1, number(_REGISTER)), (2, number(_REGISTER)), (3, length))
    return Expression("bitwise", (*parts, (4, _data(mask)), (5, _data(bytes(len(mask))))))


def _has_bit(key: int, bits: int) -> tuple[Expression, ...]:
    # Conntrack's numbers are of this machine's byte order, unlike a packet's.
    mask = struct.pack("=I", bits)
    return (_tracked(key), _masked(mask), _compare(_NOT_EQUAL, bytes(4)))


def _between(key: int, first: int, last: int) -> tuple[Expression, ...]:
    swap: Tree = ((1, number(_REGISTER)), (2, number(_REGISTER)), (3, number(1)),
                  (4, number(4)), (5, number(4)))  # fmt: skip
    return (
        _meta(key),
        Expression("byteorder", swap),
        _compare(_AT_LEAST, number(first)),
        _compare(_AT_MOST, number(last)),
    )


def _verdict(code: int, chain: str = "") -> Expression:
    verdict: Tree = ((1, number(code)),)
    if chain:
        verdict = (*verdict, (2, chain.encode() + b"\0"))
    return Expression("immediate", ((1, number(_VERDICT_REGISTER)), (2, ((2, verdict),))))


# of whom --------------------------------------------------------------------------------


def of_users(first: int, last: int) -> Term:
    """Packets of a socket that was made with a user id of this range."""
    if first == last:
        steps = (_meta(_META_SKUID), _compare(_EQUAL, struct.pack("=I", first)))
        return Term(f"meta skuid {first}", steps)
    return Term(f"meta skuid {first}-{last}", _between(_META_SKUID, first, last))


def of_group(gid: int) -> Term:
    """Packets of a socket that was made with this group id."""
    steps = (_meta(_META_SKGID), _compare(_EQUAL, struct.pack("=I", gid)))
    return Term(f"meta skgid {gid}", steps)


def of_cgroup(path: str, identity: int) -> Term:
    """Packets of a socket that was made in this cgroup (version 2) or below it."""
    level = path.count("/") + 1
    steps = (
        Expression("socket", ((1, number(_SOCKET_CGROUP)), (2, number(_REGISTER)),
                              (3, number(level)))),
        _compare(_EQUAL, struct.pack("=Q", identity)),
    )  # fmt: skip
    return Term(f'socket cgroupv2 level {level} "{path}"', steps)


# which packets --------------------------------------------------------------------------


def protocol(name: str) -> Term:
    """Packets of a transport protocol, under an IPv6 extension header too."""
    return Term(
        f"meta l4proto {name}", (_meta(_META_L4PROTO), _compare(_EQUAL, bytes([_PROTOCOL[name]])))
    )


def to_port(transport: str, port: int, *, but: bool = False) -> Term:
    """Packets of a transport protocol to a port, or to all ports but this one."""
    operator, sign = (_NOT_EQUAL, "!= ") if but else (_EQUAL, "")
    steps = (_loaded(_TRANSPORT_HEADER, 2, 2), _compare(operator, struct.pack(">H", port)))
    return Term(f"{transport} dport {sign}{port}", protocol(transport).steps + steps)


def to_network(network: Network, *, but: bool = False) -> Term:
    """Packets of its family to a network, or to all others."""
    operator, sign = (_NOT_EQUAL, "!= ") if but else (_EQUAL, "")
    steps = (
        _meta(_META_NFPROTO),
        _compare(_EQUAL, bytes([_NFPROTO[network.version]])),
        _loaded(_NETWORK_HEADER, _DESTINATION_OFFSET[network.version], len(network.prefix)),
        _compare(operator, network.prefix),
    )
    word = "ip" if network.version == 4 else "ip6"
    return Term(f"{word} daddr {sign}{network.text}", steps)


def neighbour_discovery(first: int, last: int) -> Term:
    """ICMPv6 of types without which IPv6 does not work at all."""
    steps = (
        _meta(_META_NFPROTO),
        _compare(_EQUAL, bytes([_NFPROTO[6]])),
        *protocol("ipv6-icmp").steps,
        _loaded(_TRANSPORT_HEADER, 0, 1),
        _compare(_AT_LEAST, bytes([first])),
        _compare(_AT_MOST, bytes([last])),
    )
    return Term(f"icmpv6 type {first}-{last}", steps)


def by_loopback(*, but: bool = False) -> Term:
    """Packets that go out by the loopback device, to this machine; or by all others."""
    operator, sign = (_NOT_EQUAL, "!= ") if but else (_EQUAL, "")
    steps = (_meta(_META_OIF), _compare(operator, struct.pack("=I", _LOOPBACK_INDEX)))
    return Term(f'oif {sign}"lo"', steps)


def redirected() -> Term:
    """Packets whose destination was changed."""
    return Term("ct status dnat", _has_bit(_CT_STATUS, _CT_DNAT))


def answers() -> Term:
    """Packets of the side of a connection that did not begin it."""
    return Term("ct direction reply", (_tracked(_CT_DIRECTION), _compare(_EQUAL, b"\1")))


def known() -> Term:
    """Packets of a connection that was let begin, and what belongs to one."""
    return Term("ct state established,related", _has_bit(_CT_STATE, _CT_KNOWN))


# what becomes of them -------------------------------------------------------------------


def redirect(port: int) -> Term:
    """They go to a port of this machine's loopback address."""
    steps = (
        Expression("immediate", ((1, number(_REGISTER)), (2, _data(struct.pack(">H", port))))),
        Expression("redir", ((1, number(_REGISTER)),)),
    )
    return Term(f"redirect to :{port}", steps)


def accept() -> Term:
    """They pass."""
    return Term("accept", (_verdict(_ACCEPT),))


def drop() -> Term:
    """They are gone."""
    return Term("drop", (_verdict(_DROP),))


def jump(chain: str) -> Term:
    """Another chain says."""
    return Term(f"jump {chain}", (_verdict(_JUMP, chain),))


def go_back() -> Term:
    """This chain says nothing more of them."""
    return Term("return", (_verdict(_RETURN),))


def reset() -> Term:
    """A TCP connection is refused, and the program told."""
    return Term("reject with tcp reset", (Expression("reject", ((1, number(_REJECT_RESET)),)),))


def reject() -> Term:
    """Nobody is there, the program is told."""
    tree: Tree = ((1, number(_REJECT_UNREACHABLE)), (2, bytes([_PORT_UNREACHABLE])))
    return Term("reject", (Expression("reject", tree),))

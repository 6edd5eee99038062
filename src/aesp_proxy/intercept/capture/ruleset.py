"""The rules that bring what some users of a machine send to the proxy, and nowhere else.

Four chains, of which each says enough to be read with ``nft list``:

- ``nat_out`` picks who is captured, ``nat_captured`` turns new connections: names to the
  resolver, every other TCP to the transparent listener (SO_ORIGINAL_DST tells where it
  was to go). The explicit listener stays reachable as such.
- ``out``, ``captured``: what was turned, and answers, pass; all else is refused, and the
  program told at once: UDP, and with it QUIC, ICMP, raw packets, SCTP.
- ``left``: what is for loopback leaves by no other device, and of the captured nothing does
  (the kernel tells no cgroup there). A socket that is bound to another device
  (SO_BINDTODEVICE) ends here.

They stand before the rules of others (priority), and a refusal of ours is final whatever
those say. Standard library only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from aesp_proxy.intercept.capture.expressions import (
    LOOPBACK4,
    LOOPBACK6,
    Network,
    Term,
    accept,
    answers,
    by_loopback,
    drop,
    go_back,
    jump,
    known,
    neighbour_discovery,
    of_cgroup,
    of_group,
    of_users,
    protocol,
    redirect,
    redirected,
    reject,
    reset,
    to_network,
    to_port,
)
from aesp_proxy.intercept.capture.tables import Chain, Hook, Rule, Table

FAMILY: Final = "inet"
NAME: Final = "aesp_proxy"
UID_MAX: Final = 0xFFFF_FFFE
_DNS_PORT: Final = 53
# Before those of others on the same hooks, whose first word on a connection's way counts.
_NAT: Final = Hook("nat", "output", -110)
_OUT: Final = Hook("filter", "output", -10)
_LEFT: Final = Hook("filter", "postrouting", -10)
# RFC 4861 and 2710, 3810: finding routers and neighbours, and telling of groups.
_NEIGHBOURS: Final = ((130, 137), (143, 143))


class Cgroup(NamedTuple):
    """A cgroup (version 2): its path without the first slash, and the kernel's number of it."""

    path: str
    identity: int


class Selection(NamedTuple):
    """Who is captured: ranges of user ids, group ids, cgroups.

    With ``spared`` it is everybody but that user; then packets that are nobody's (sockets
    of the kernel's own making) may begin nothing either.
    """

    uids: tuple[tuple[int, int], ...] = ()
    gids: tuple[int, ...] = ()
    cgroups: tuple[Cgroup, ...] = ()
    spared: int | None = None


class Ways(NamedTuple):
    """Where the proxy listens, and what else is open to the captured.

    ``host`` and ``explicit`` are address and port that HTTPS_PROXY names; ``port`` and
    ``dns_port`` are listened on at 127.0.0.1 and ::1. ``loopback``: this machine's own
    services are open. ``inbound``: whoever connects from elsewhere is answered.
    """

    host: str = "127.0.0.1"
    explicit: int = 3128
    port: int = 3129
    dns_port: int = 3130
    loopback: bool = False
    inbound: bool = False


def everybody_but(uid: int) -> Selection:
    """Return the selection of all users but one, and of nobody."""
    ranges = ((0, uid - 1), (uid + 1, UID_MAX))
    return Selection(uids=tuple(each for each in ranges if each[0] <= each[1]), spared=uid)


def capturing(selection: Selection, ways: Ways) -> Table:
    """Return the table that captures a selection."""
    who = [*_ids(selection), *(of_cgroup(*each) for each in selection.cgroups)]
    chains = (
        Chain("nat_out", tuple((each, jump("nat_captured")) for each in who), _NAT),
        Chain("nat_captured", _turned(ways)),
        Chain("out", (*((each, jump("captured")) for each in who), *_nobodys(selection)), _OUT),
        Chain("captured", _passed(ways)),
        Chain("left", _left(selection), _LEFT),
        Chain("captured_left", _let_go(ways)),
    )
    # The kernel resolves a jump as it reads it: where to comes first.
    return Table(FAMILY, NAME, tuple(sorted(chains, key=lambda chain: chain.hook is not None)))


def _ids(selection: Selection) -> list[Term]:
    return [*(of_users(*each) for each in selection.uids), *map(of_group, selection.gids)]


def _explicit(ways: Ways) -> tuple[Term, ...]:
    return (to_network(_address(ways.host)), to_port("tcp", ways.explicit))


def _turned(ways: Ways) -> tuple[Rule, ...]:
    rules: list[Rule] = [
        (to_port("udp", _DNS_PORT), redirect(ways.dns_port)),
        (to_port("tcp", _DNS_PORT), redirect(ways.dns_port)),
        (*_explicit(ways), go_back()),
    ]
    if ways.loopback:
        rules.append((by_loopback(), go_back()))
    rules.append((protocol("tcp"), redirect(ways.port)))
    return tuple(rules)


def _passed(ways: Ways) -> tuple[Rule, ...]:
    rules: list[Rule] = [(*_explicit(ways), accept())]
    for network in (Network(4, b"\x7f\0\0\1", "127.0.0.1"), LOOPBACK6):
        for transport, port in (
            ("tcp", ways.port), ("tcp", ways.dns_port), ("udp", ways.dns_port),
        ):  # fmt: skip
            turned = (redirected(), to_network(network), to_port(transport, port))
            rules.append((*turned, accept()))
    # Answers are not turned: the device is the one that they will leave by.
    rules.append((answers(), accept()) if ways.inbound else (by_loopback(), answers(), accept()))
    if ways.loopback:
        rules.append((by_loopback(), accept()))
    rules += [(protocol("tcp"), reset()), (reject(),)]
    return tuple(rules)


def _left(selection: Selection) -> tuple[Rule, ...]:
    astray = ((to_network(each), by_loopback(but=True), drop()) for each in (LOOPBACK4, LOOPBACK6))
    return (*astray, *((each, jump("captured_left")) for each in _ids(selection)))


def _let_go(ways: Ways) -> tuple[Rule, ...]:
    rules: list[Rule] = [(by_loopback(), accept())]
    if ways.inbound:
        rules.append((answers(), accept()))
    rules.append((drop(),))
    return tuple(rules)


def _nobodys(selection: Selection) -> tuple[Rule, ...]:
    """Return what holds for packets of no user where everybody is captured but one."""
    if selection.spared is None:
        return ()
    return (
        (of_users(selection.spared, selection.spared), accept()),
        (by_loopback(), accept()),
        (known(), accept()),
        *((neighbour_discovery(first, last), accept()) for first, last in _NEIGHBOURS),
        (protocol("igmp"), accept()),
        (drop(),),
    )


def _address(host: str) -> Network:
    if ":" in host:
        return LOOPBACK6
    return Network(4, bytes(map(int, host.split("."))), host)

"""One packet rule a family: TCP to any port and address arrives at one socket of ours.

nftables spoken by hand, so that no program has to be installed: in each of the tables
``ip`` and ``ip6`` a chain on the output hook with one rule. Where a connection was to go
is asked of the accepted socket (SO_ORIGINAL_DST). What the agent serves to itself on
loopback is left alone.
"""

from __future__ import annotations

import socket
from typing import Final

from aesp_proxy.intercept.capture.expressions import (
    LOOPBACK4,
    LOOPBACK6,
    redirect,
    to_network,
    to_port,
)
from aesp_proxy.intercept.capture.tables import Chain, Hook, Table, create

_DNS_PORT: Final = 53
_HOOK: Final = Hook("nat", "output", -100)
_FAMILY: Final = {socket.AF_INET: "ip", socket.AF_INET6: "ip6"}
_LOOPBACK: Final = {socket.AF_INET: LOOPBACK4, socket.AF_INET6: LOOPBACK6}


def table(family: int, port: int) -> Table:
    """Return the table that sends TCP of a family to ``port`` on loopback."""
    known = socket.AddressFamily(family)
    elsewhere = to_network(_LOOPBACK[known], but=True)
    rule = (elsewhere, to_port("tcp", _DNS_PORT, but=True), redirect(port))
    return Table(_FAMILY[known], "aesp_proxy", (Chain("out", (rule,), _HOOK),))


def redirect_every_port(family: int, port: int) -> None:
    """Install the rule in this namespace; OSError where the kernel has no such rules."""
    create(table(family, port))

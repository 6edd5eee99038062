"""Addresses that stand for a name whose own would not lead to the proxy.

An agent in a network of its own that connects to a loopback address meets itself. So
where a name leads to a loopback address of the proxy's side, because the operator or the
policy says so, the agent is told an address that nobody has: of the range for benchmarks
(RFC 2544, 198.18.0.0/15; RFC 5180, 2001:2::/48). A connection to it is tied to the name,
and what is dialled is what the name leads to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aesp_proxy.normalize.dns_answer import Resolved

NAMES_MAX: Final = 8_192
_ROOM: Final = 131_000  # addresses of 198.18.0.0/15, a few less
_FIRST4: Final = int(IPv4Address("198.18.0.1"))
_FIRST6: Final = int(IPv6Address("2001:2::1"))


class StandIns:
    """One number for each name; the name asked for longest ago gives its number away.

    Each of ``places`` workers draws on numbers of its own, so that none means two names.
    """

    __slots__ = ("_first", "_names_max", "_numbers")

    def __init__(self, names_max: int = NAMES_MAX, *, place: int = 0, places: int = 1) -> None:
        self._names_max = min(names_max, _ROOM // places)
        self._first = place * self._names_max
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def told(self, name: str, found: Resolved) -> Resolved:
        """Return what the agent is told: loopback addresses replaced, all else as it is."""
        if not any(address.is_loopback for address in found.addresses):
            return found
        number = self._number(name)
        addresses = tuple(
            dict.fromkeys(
                _stand_in(address, number) if address.is_loopback else address
                for address in found.addresses
            )
        )
        rdatas = tuple(address.packed for address in addresses)
        return replace(found, addresses=addresses, rdatas=rdatas)

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._first + len(self._numbers)
            if len(self._numbers) >= self._names_max:
                _, number = self._numbers.popitem(last=False)
            self._numbers[name] = number
        self._numbers.move_to_end(name)
        return number


def _stand_in(address: IPv4Address | IPv6Address, number: int) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return IPv4Address(_FIRST4 + number)
    return IPv6Address(_FIRST6 + number)

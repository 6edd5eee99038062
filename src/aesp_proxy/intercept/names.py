"""Which names were answered with which address, so that a connection has a name.

An agent that connects to a bare address was, as a rule, given that address by the
resolver a moment ago. What is remembered here ties the two together again. It is never
an address to dial: the proxy resolves the name by itself (rows 5 and 6 of the threats).

An entry lives for the answer's time to live, and for ``keep_s_min`` at least, because
clients hold addresses longer than they should. Both numbers are bounded, and the oldest
goes first: a flood of answers makes connections nameless, and nameless is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

ADDRESSES_MAX: Final = 8_192
NAMES_PER_ADDRESS_MAX: Final = 32
KEEP_S_MIN: Final = 600.0
KEEP_S_MAX: Final = 86_400.0

_Address = IPv4Address | IPv6Address


class Names:
    """Names by address, bounded in number and in time.

    ``now`` is in seconds of any clock that only goes forward, the same for all calls.
    """

    __slots__ = ("_addresses_max", "_by_address", "_keep_s_min", "_names_max")

    def __init__(
        self,
        *,
        addresses_max: int = ADDRESSES_MAX,
        names_per_address_max: int = NAMES_PER_ADDRESS_MAX,
        keep_s_min: float = KEEP_S_MIN,
    ) -> None:
        self._addresses_max = addresses_max
        self._names_max = names_per_address_max
        self._keep_s_min = keep_s_min
        # Both orders are of the last answer: what was answered longest ago stands first.
        self._by_address: OrderedDict[_Address, OrderedDict[str, float]] = OrderedDict()

    def remember(
        self, name: str, addresses: Iterable[_Address], *, ttl_s: float, now: float
    ) -> None:
        """Note that ``name`` (canonical) was answered with ``addresses`` for ``ttl_s`` seconds."""
        until = now + min(max(ttl_s, self._keep_s_min), KEEP_S_MAX)
        for address in addresses:
            names = self._by_address.setdefault(address, OrderedDict())
            # An answer that ends sooner does not shorten what an earlier one promised.
            names[name] = max(until, names.get(name, until))
            names.move_to_end(name)
            self._by_address.move_to_end(address)
            while len(names) > self._names_max:
                names.popitem(last=False)
        while len(self._by_address) > self._addresses_max:
            self._by_address.popitem(last=False)

    def of(self, address: _Address, *, now: float) -> tuple[str, ...]:
        """Return the names that were answered with ``address``, the newest first."""
        names = self._by_address.get(address)
        if names is None:
            return ()
        for name in [name for name, until in names.items() if until <= now]:
            del names[name]
        if not names:
            del self._by_address[address]
        return tuple(reversed(names))

    def __len__(self) -> int:
        return len(self._by_address)

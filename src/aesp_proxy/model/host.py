"""Hosts and addresses: one strict parser, shared by policy, normalising and dialling.

Rows 8-10 of the threat list: everything an attacker can spell two ways has one
spelling here or is an ``InputError``. Sources: RFC 3986 section 3.2, RFC 5891
(IDNA 2008, UTS 46 mapping), the WHATWG URL standard's IPv4 parser, RFC 6761.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class Host:
    """A canonical host: ``name`` in lower-case A-labels without trailing dot, or an address.

    For an address ``name`` is its canonical text (IPv6 compressed, no
    brackets, no zone) and ``address`` the value; IPv4-mapped IPv6 has become IPv4.
    """

    name: str
    address: IPv4Address | IPv6Address | None = None

    def __str__(self) -> str:
        return f"[{self.name}]" if isinstance(self.address, IPv6Address) else self.name

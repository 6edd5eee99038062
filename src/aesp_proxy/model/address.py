"""Addresses: which class one belongs to, whatever it is wrapped in.

Rows 7 and 8 of the threat list. Only ``PUBLIC`` is reachable without an address
rule of the policy. An IPv6 form that carries an IPv4 address to be reached through
it (mapped, compatible, translated, NAT64, 6to4) has the class of that address.
Sources: the IANA special-purpose registries (RFC 6890 and updates), RFC 6052,
RFC 8215, RFC 3056, RFC 4380, RFC 9637, and the vendors' pages for metadata services.
Anything outside the listed and the global unicast ranges is ``RESERVED``.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


def host_port(host: str, port: int) -> str:
    """Write ``HOST:PORT``, an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AddressClass(StrEnum):
    """What kind of place an address is; everything but ``PUBLIC`` needs a rule."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    CGNAT = "cgnat"
    MULTICAST = "multicast"
    DOCUMENTATION = "documentation"
    BENCHMARKING = "benchmarking"
    RESERVED = "reserved"

    @property
    def words(self) -> str:
        """The class as it is put in a sentence."""
        return self.value.replace("_", "-")


_METADATA = frozenset(
    {
        IPv4Address("169.254.169.254"),  # AWS, Azure, GCP, Oracle, DigitalOcean, OpenStack
        IPv4Address("169.254.169.253"),  # AWS resolver
        IPv4Address("169.254.169.123"),  # AWS time
        IPv4Address("169.254.170.2"),  # AWS ECS task credentials
        IPv4Address("169.254.170.23"),  # AWS EKS pod identity
        IPv4Address("169.254.0.23"),  # Tencent Cloud
        IPv4Address("100.100.100.200"),  # Alibaba Cloud
        IPv4Address("168.63.129.16"),  # Azure platform
        IPv4Address("192.0.0.192"),  # Oracle Cloud classic
        IPv6Address("fd00:ec2::254"),  # AWS
        IPv6Address("fd00:ec2::253"),
        IPv6Address("fd00:ec2::123"),
        IPv6Address("fd00:ec2::23"),  # AWS EKS pod identity
        IPv6Address("fd20:ce::254"),  # GCP
        IPv6Address("fe80::a9fe:a9fe"),  # OpenStack
        IPv6Address("fd00:c1::a9fe:a9fe"),  # Oracle Cloud
        IPv6Address("fd00:42::42"),  # Scaleway
    }
)

_IPV4_RANGES = (
    ("0.0.0.0/8", AddressClass.RESERVED),
    ("10.0.0.0/8", AddressClass.PRIVATE),
    ("100.64.0.0/10", AddressClass.CGNAT),
    ("127.0.0.0/8", AddressClass.LOOPBACK),
    ("169.254.0.0/16", AddressClass.LINK_LOCAL),
    ("172.16.0.0/12", AddressClass.PRIVATE),
    ("192.0.0.0/24", AddressClass.RESERVED),
    ("192.0.2.0/24", AddressClass.DOCUMENTATION),
    ("192.88.99.0/24", AddressClass.RESERVED),
    ("192.168.0.0/16", AddressClass.PRIVATE),
    ("198.18.0.0/15", AddressClass.BENCHMARKING),
    ("198.51.100.0/24", AddressClass.DOCUMENTATION),
    ("203.0.113.0/24", AddressClass.DOCUMENTATION),
    ("224.0.0.0/4", AddressClass.MULTICAST),
    ("240.0.0.0/4", AddressClass.RESERVED),
)

# Inside 2000::/3 what is not listed is public; outside it, reserved.
_IPV6_RANGES = (
    ("::1/128", AddressClass.LOOPBACK),
    ("64:ff9b:1::/48", AddressClass.PRIVATE),
    ("2000::/3", AddressClass.PUBLIC),
    ("2001::/23", AddressClass.RESERVED),
    ("2001:2::/48", AddressClass.BENCHMARKING),
    ("2001:db8::/32", AddressClass.DOCUMENTATION),
    ("3fff::/20", AddressClass.DOCUMENTATION),
    ("fc00::/7", AddressClass.PRIVATE),
    ("fe80::/10", AddressClass.LINK_LOCAL),
    ("fec0::/10", AddressClass.PRIVATE),
    ("ff00::/8", AddressClass.MULTICAST),
)

_Boundaries = tuple[list[int], list[AddressClass]]


def _boundaries(
    networks: list[tuple[IPv4Network | IPv6Network, AddressClass]], outside: AddressClass
) -> _Boundaries:
    """Flatten nested networks into sorted starts, each with the class from there on."""
    starts = {0: outside}
    for network, _ in networks:
        first, after = int(network.network_address), int(network.broadcast_address) + 1
        starts[first] = outside
        starts[after] = outside
    for start in starts:
        best = -1
        for network, address_class in networks:
            inside = int(network.network_address) <= start <= int(network.broadcast_address)
            if inside and network.prefixlen > best:
                best, starts[start] = network.prefixlen, address_class
    ordered = sorted(starts)
    return ordered, [starts[start] for start in ordered]


_IPV4 = _boundaries([(IPv4Network(n), c) for n, c in _IPV4_RANGES], AddressClass.PUBLIC)
_IPV6 = _boundaries([(IPv6Network(n), c) for n, c in _IPV6_RANGES], AddressClass.RESERVED)


@lru_cache(maxsize=8192)
def classify(address: IPv4Address | IPv6Address) -> AddressClass:
    """Return the class of an address; forms that carry an IPv4 address have its class."""
    if isinstance(address, IPv6Address):
        inner = embedded_ipv4(address)
        if inner is not None:
            return classify(inner)
    if address in _METADATA:
        return AddressClass.METADATA
    starts, classes = _IPV4 if isinstance(address, IPv4Address) else _IPV6
    return classes[bisect_right(starts, int(address)) - 1]


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that traffic to this one ends at, None where there is none.

    Mapped (RFC 4291 2.5.5.2), compatible (2.5.5.1), translated (RFC 2765), NAT64 with
    the well-known prefix (RFC 6052), 6to4 (RFC 3056). Teredo is not unwrapped: it is
    reserved as a whole.
    """
    value = int(address)
    low = value & 0xFFFF_FFFF
    high = value >> 32
    if high in (0xFFFF, 0xFFFF_0000, 0x0064_FF9B << 64) or (high == 0 and low > 1):
        return IPv4Address(low)
    if value >> 112 == 0x2002:
        return IPv4Address((value >> 80) & 0xFFFF_FFFF)
    return None

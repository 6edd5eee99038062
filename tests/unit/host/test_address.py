"""Classes of addresses: only public is public, whatever it is wrapped in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.model.address import AddressClass, classify, embedded_ipv4

C = AddressClass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.8.8.8", C.PUBLIC),
        ("1.1.1.1", C.PUBLIC),
        ("9.255.255.255", C.PUBLIC),
        ("10.0.0.0", C.PRIVATE),
        ("10.255.255.255", C.PRIVATE),
        ("11.0.0.0", C.PUBLIC),
        ("172.15.255.255", C.PUBLIC),
        ("172.16.0.0", C.PRIVATE),
        ("172.31.255.255", C.PRIVATE),
        ("172.32.0.0", C.PUBLIC),
        ("192.168.1.1", C.PRIVATE),
        ("127.0.0.1", C.LOOPBACK),
        ("127.255.255.255", C.LOOPBACK),
        ("0.0.0.0", C.RESERVED),
        ("169.254.1.1", C.LINK_LOCAL),
        ("169.254.169.254", C.METADATA),
        ("169.254.170.2", C.METADATA),
        ("100.100.100.200", C.METADATA),
        ("168.63.129.16", C.METADATA),
        ("100.64.0.1", C.CGNAT),
        ("100.127.255.255", C.CGNAT),
        ("100.128.0.0", C.PUBLIC),
        ("192.0.2.1", C.DOCUMENTATION),
        ("198.51.100.1", C.DOCUMENTATION),
        ("203.0.113.1", C.DOCUMENTATION),
        ("198.18.0.1", C.BENCHMARKING),
        ("198.20.0.0", C.PUBLIC),
        ("224.0.0.1", C.MULTICAST),
        ("239.255.255.255", C.MULTICAST),
        ("240.0.0.1", C.RESERVED),
        ("255.255.255.255", C.RESERVED),
        ("2606:4700::1111", C.PUBLIC),
        ("::", C.RESERVED),
        ("::1", C.LOOPBACK),
        ("fc00::1", C.PRIVATE),
        ("fdff::1", C.PRIVATE),
        ("fe80::1", C.LINK_LOCAL),
        ("fec0::1", C.PRIVATE),
        ("ff02::1", C.MULTICAST),
        ("fd00:ec2::254", C.METADATA),
        ("2001:db8::1", C.DOCUMENTATION),
        ("3fff::1", C.DOCUMENTATION),
        ("2001:2::1", C.BENCHMARKING),
        ("2001::1", C.RESERVED),
        ("100::1", C.RESERVED),
        ("4000::1", C.RESERVED),
        ("64:ff9b:1::1", C.PRIVATE),
    ],
)
def test_an_address_has_the_class_of_its_range(text: str, expected: AddressClass) -> None:
    assert classify(ip_address(text)) is expected


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: IPv6Address((0xFFFF << 32) | inner),
        lambda inner: IPv6Address((0xFFFF_0000 << 32) | inner),
        lambda inner: IPv6Address((0x0064_FF9B << 96) | inner),
        lambda inner: IPv6Address((0x2002 << 112) | (inner << 80)),
    ],
    ids=["mapped", "translated", "nat64", "6to4"],
)
@pytest.mark.parametrize(
    "inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "8.8.8.8"]
)
def test_a_wrapped_ipv4_address_has_the_class_of_what_it_wraps(wrap: object, inner: str) -> None:
    address = IPv4Address(inner)
    wrapped = wrap(int(address))  # type: ignore[operator]
    assert embedded_ipv4(wrapped) == address
    assert classify(wrapped) is classify(address)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_public_that_the_standard_library_calls_special(
    address: IPv4Address,
) -> None:
    if not address.is_global:
        # The library lists two anycast addresses of 192.0.0.0/24 as global; we do not.
        assert classify(address) is not AddressClass.PUBLIC


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_public_outside_global_unicast(address: IPv6Address) -> None:
    if classify(address) is AddressClass.PUBLIC and embedded_ipv4(address) is None:
        assert int(address) >> 125 == 1
        assert address.is_global

"""What would lead an agent to itself is told as an address that leads to the proxy."""

from __future__ import annotations

from ipaddress import ip_address

from aesp_proxy.intercept.resolver.stand_ins import StandIns
from aesp_proxy.normalize.dns_answer import Resolved


def found(*texts: str) -> Resolved:
    addresses = tuple(map(ip_address, texts))
    rdatas = tuple(address.packed for address in addresses)
    return Resolved(exists=True, ttl_s=9, rdatas=rdatas, addresses=addresses)


def test_other_addresses_are_told_as_they_are():
    answer = found("192.0.2.1", "192.0.2.2")
    assert StandIns().told("a.example", answer) is answer


def test_each_name_has_one_address_of_its_own():
    stand_ins = StandIns()
    assert stand_ins.told("a.example", found("127.0.0.1", "127.8.8.8")) == found("198.18.0.1")
    assert stand_ins.told("b.example", found("127.0.0.1", "10.0.0.1")) == found(
        "198.18.0.2", "10.0.0.1"
    )
    assert stand_ins.told("a.example", found("::1")) == found("2001:2::1")


def test_the_name_asked_for_longest_ago_gives_its_address_away():
    stand_ins = StandIns(names_max=2)
    for name in ("a", "b", "a", "c"):
        told = stand_ins.told(name, found("127.0.0.1"))
    assert told == found("198.18.0.2")
    assert stand_ins.told("a", found("127.0.0.1")) == found("198.18.0.1")

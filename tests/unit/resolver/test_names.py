"""A connection to an address is tied to the names that were answered with it."""

from __future__ import annotations

from ipaddress import ip_address

from aesp_proxy.intercept.names import KEEP_S_MAX, Names

ONE, TWO, SIX = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1"))


def test_an_address_has_the_names_it_was_answered_for_newest_first():
    names = Names()
    names.remember("a.example", [ONE, SIX], ttl_s=60, now=0)
    names.remember("b.example", [ONE], ttl_s=60, now=1)
    assert names.of(ONE, now=2) == ("b.example", "a.example")
    assert names.of(SIX, now=2) == ("a.example",)
    assert names.of(TWO, now=2) == ()


def test_a_name_answered_again_is_the_newest():
    names = Names()
    for now, name in enumerate(("a.example", "b.example", "a.example")):
        names.remember(name, [ONE], ttl_s=60, now=now)
    assert names.of(ONE, now=3) == ("a.example", "b.example")


def test_a_name_is_kept_beyond_a_short_time_to_live_but_not_for_ever():
    names = Names(keep_s_min=100)
    names.remember("a.example", [ONE], ttl_s=1, now=0)
    assert names.of(ONE, now=99) == ("a.example",)
    assert names.of(ONE, now=100) == ()
    assert len(names) == 0


def test_a_time_to_live_is_kept_up_to_a_day():
    names = Names(keep_s_min=0)
    names.remember("a.example", [ONE], ttl_s=1_000, now=0)
    names.remember("a.example", [ONE], ttl_s=1, now=1)
    names.remember("b.example", [TWO], ttl_s=1e9, now=0)
    assert names.of(ONE, now=999) == ("a.example",)
    assert names.of(TWO, now=KEEP_S_MAX - 1) == ("b.example",)
    assert names.of(TWO, now=KEEP_S_MAX) == ()


def test_the_number_of_addresses_and_of_names_is_bounded_and_the_oldest_goes():
    names = Names(addresses_max=2, names_per_address_max=2)
    for label in "abc":
        names.remember(f"{label}.example", [ONE], ttl_s=60, now=0)
    assert names.of(ONE, now=1) == ("c.example", "b.example")
    names.remember("x.example", [TWO, SIX], ttl_s=60, now=1)
    assert len(names) == 2
    assert names.of(ONE, now=2) == ()

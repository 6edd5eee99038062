"""Terms of packet rules: what is sent is recognised when the kernel tells it back."""

from __future__ import annotations

import struct

import pytest

from aesp_proxy.intercept.capture import expressions as nft
from aesp_proxy.intercept.netlink import attribute, nested

TERMS = [
    nft.of_users(1000, 1000),
    nft.of_users(100_000, 165_535),
    nft.of_group(77),
    nft.of_cgroup("agents.slice/a", 44),
    nft.protocol("tcp"),
    nft.to_port("udp", 53),
    nft.to_port("tcp", 53, but=True),
    nft.to_network(nft.LOOPBACK4),
    nft.to_network(nft.LOOPBACK6, but=True),
    nft.neighbour_discovery(130, 137),
    nft.by_loopback(),
    nft.by_loopback(but=True),
    nft.redirected(),
    nft.answers(),
    nft.known(),
    nft.redirect(3129),
    nft.accept(),
    nft.drop(),
    nft.jump("captured"),
    nft.go_back(),
    nft.reset(),
    nft.reject(),
]


@pytest.mark.parametrize("place", range(len(TERMS)), ids=[term.text for term in TERMS])
def test_a_rule_is_recognised_and_no_other_is_taken_for_it(place):
    term = TERMS[place]
    told = nft.encoded_rule(term.steps)
    assert nft.is_rule(told, term.steps)
    for other in TERMS[:place] + TERMS[place + 1 :]:
        assert not nft.is_rule(told, other.steps), other.text
    assert not nft.is_rule(told, term.steps[:-1])
    assert not nft.is_rule(told + nft.encoded_rule(nft.accept().steps), term.steps)
    assert not nft.is_rule(b"", term.steps)


def test_what_the_kernel_adds_by_itself_is_no_difference():
    (step,) = nft.answers().steps[:1]
    more = nft.encoded(step.tree) + attribute(9, b"\0\0\0\1")
    told = nested(1, attribute(1, b"ct\0"), nested(2, more))
    assert nft.is_rule(told, (step,))


def test_ranges_of_users_are_compared_as_the_network_has_them():
    last = nft.of_users(100_000, 165_535).steps[-1]
    assert last == nft.Expression("cmp", ((1, nft.number(1)), (2, nft.number(3)),
                                          (3, ((1, struct.pack(">I", 165_535)),))))  # fmt: skip
    one = nft.of_users(7, 7).steps[-1]
    assert one.tree[2] == (3, ((1, struct.pack("=I", 7)),))


def test_the_level_of_a_cgroup_is_its_depth():
    assert nft.of_cgroup("a", 1).text == 'socket cgroupv2 level 1 "a"'
    assert nft.of_cgroup("a/b/c", 1).text == 'socket cgroupv2 level 3 "a/b/c"'

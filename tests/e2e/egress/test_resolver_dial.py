"""The dialler resolves by the same resolver: what it checks is what it dials."""

from __future__ import annotations

import socket
import time

import pytest
from dns_lab import PUBLIC, DnsLab

from aesp_proxy.daemon.name_budget import BudgetLimits, NameBudget

POLICY = """
version: "1.2.0"
name: test
guards:
  egress_allowlist:
    enabled: true
    allow: ["named.test:*", "127.0.0.1:*", "[::1]:*"]
    default_action: block
"""
GET = b"GET http://named.test:%d/ HTTP/1.1\r\nHost: named.test:%d\r\nConnection: close\r\n\r\n"


@pytest.fixture
def both(dns_lab, start):
    """A resolver's lab, and a proxy that resolves with another resolver of the same upstream."""
    lab: DnsLab = dns_lab()
    return lab, start(POLICY, lookup=lab.make_resolver().addresses)


def get(proxy, answer_of) -> bytes:
    port = proxy.origin.plain_port
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(GET % (port, port))
        return answer_of(sock)


def test_a_name_is_resolved_for_both_families_once_and_the_checked_address_is_dialled(
    both, answer_of
):
    lab, proxy = both
    lab.upstream.say("named.test", "A", ["named.test. 60 IN A 127.0.0.1"])
    for _ in range(2):
        assert get(proxy, answer_of).startswith(b"HTTP/1.1 200")
    assert sorted(lab.upstream.seen) == [("udp", "named.test", "A"), ("udp", "named.test", "AAAA")]
    proxy.wait_for(lambda: proxy.journal.records[-1].kind == "outcome", "the outcome")
    address = f"127.0.0.1:{proxy.origin.plain_port}"
    assert proxy.journal.records[-1].upstream_address == address


@pytest.mark.parametrize("records", [[PUBLIC, "127.0.0.9"], ["10.0.0.1"]])
def test_an_answer_with_a_forbidden_address_is_not_dialled(both, answer_of, records):
    lab, proxy = both
    lab.upstream.say("named.test", "A", [f"named.test. 60 IN A {each}" for each in records])
    answer = get(proxy, answer_of)
    assert b"AESP-Reason: address_forbidden\r\n" in answer
    assert proxy.origin.requests == []


def test_a_forbidden_address_of_the_other_family_refuses_too(both, answer_of):
    lab, proxy = both
    lab.upstream.say("named.test", "A", ["named.test. 60 IN A 127.0.0.1"])
    lab.upstream.say("named.test", "AAAA", ["named.test. 60 IN AAAA fd00::1"])
    assert b"AESP-Reason: address_forbidden\r\n" in get(proxy, answer_of)


@pytest.mark.parametrize("deed", ["NXDOMAIN", "SERVFAIL", []])
def test_a_name_that_does_not_resolve_is_a_failure_of_upstream(both, answer_of, deed):
    lab, proxy = both
    lab.upstream.say("named.test", "A", deed)
    answer = get(proxy, answer_of)
    assert answer.startswith(b"HTTP/1.1 502")
    assert b"AESP-Reason: upstream_failed\r\n" in answer


def test_one_family_that_fails_does_not_take_the_other_along(both, answer_of):
    lab, proxy = both
    lab.upstream.say("named.test", "A", ["named.test. 60 IN A 127.0.0.1"])
    lab.upstream.say("named.test", "AAAA", "SERVFAIL")
    assert get(proxy, answer_of).startswith(b"HTTP/1.1 200")


def test_an_address_that_refuses_does_not_take_the_other_along(both, answer_of):
    lab, proxy = both
    lab.upstream.say("named.test", "AAAA", ["named.test. 60 IN AAAA ::1"])
    lab.upstream.say("named.test", "A", ["named.test. 60 IN A 127.0.0.1"])
    assert get(proxy, answer_of).startswith(b"HTTP/1.1 200")
    proxy.wait_for(lambda: proxy.journal.records[-1].kind == "outcome", "the outcome")
    address = f"127.0.0.1:{proxy.origin.plain_port}"
    assert proxy.journal.records[-1].upstream_address == address


def test_names_of_connections_are_of_the_same_budget(dns_lab, start):
    lab: DnsLab = dns_lab()
    policy = POLICY.replace("named.test:*", "*.named.test:*")
    proxy = start(policy, lookup=lab.make_resolver().addresses)
    limits = BudgetLimits(names_per_minute_max=2)
    proxy.pipeline._names = NameBudget(limits, now=time.monotonic())
    for number in range(6):
        sock, answer = proxy.connect(f"part-{number}.named.test:443")
        sock.close()
        allowed = number < 2
        assert answer.startswith(b"HTTP/1.1 200" if allowed else b"HTTP/1.1 431"), answer
        assert allowed or b"AESP-Reason: limit_exceeded\r\n" in answer
    sock, answer = proxy.connect(f"{'4d5a' * 13}.named.test:443")
    sock.close()
    assert b"AESP-Reason: limit_exceeded\r\n" in answer
    assert lab.upstream.seen == []

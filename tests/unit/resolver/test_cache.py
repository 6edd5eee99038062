"""Answers are kept for their time and within bounds; what there is not, for less."""

from __future__ import annotations

from dataclasses import replace

from aesp_proxy.intercept.resolver.cache import Cache, CacheLimits
from aesp_proxy.intercept.resolver.rate import QueryRate
from aesp_proxy.normalize.dns_answer import Resolved

KEY = ("a.example", 1)
FOUND = Resolved(exists=True, ttl_s=60, rdatas=(b"1234",))


def test_an_answer_is_kept_for_its_time_and_told_with_what_is_left_of_it():
    cache = Cache(CacheLimits())
    cache.keep(KEY, FOUND, now=100)
    assert cache.find(KEY, now=130) == replace(FOUND, ttl_s=30)
    assert cache.find(KEY, now=159.5) == replace(FOUND, ttl_s=1)
    assert cache.find(KEY, now=160) is None
    assert len(cache) == 0
    assert cache.find(("a.example", 28), now=100) is None


def test_times_are_kept_within_bounds():
    cache = Cache(CacheLimits(ttl_s_min=5, ttl_s_max=300, negative_s_max=30))
    for given, kept in ((0, 5), (60, 60), (9_999, 300)):
        assert cache.keep(KEY, replace(FOUND, ttl_s=given), now=0).ttl_s == kept
    assert cache.keep(KEY, Resolved(exists=False, ttl_s=9_999), now=0).ttl_s == 30


def test_the_answer_that_was_used_longest_ago_goes_first():
    cache = Cache(CacheLimits(entries_max=2))
    for name in "ab":
        cache.keep((name, 1), FOUND, now=0)
    cache.find(("a", 1), now=1)
    cache.keep(("c", 1), FOUND, now=1)
    assert cache.find(("b", 1), now=2) is None
    assert cache.find(("a", 1), now=2) is not None


def test_a_burst_is_taken_then_the_rate_and_what_was_over_is_told_once_a_second():
    rate = QueryRate(10, burst_s=2, now=0)
    assert sum(rate.takes(0) for _ in range(50)) == 20
    assert rate.untold(0) == 30
    assert not rate.takes(0.05)
    rate.leave()
    assert rate.untold(0.5) == 0
    assert rate.takes(1)
    assert rate.untold(1) == 2
    assert sum(rate.takes(100) for _ in range(50)) == 20

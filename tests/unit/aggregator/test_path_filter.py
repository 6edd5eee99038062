"""The filter of paths never misses one, and seldom names one that is not there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.aggregator.store.path_filter import may_hold, path_bits


@given(st.sets(st.text(), max_size=200))
def test_a_path_that_is_there_is_never_missed(paths: set[str]):
    bits = path_bits(paths)
    assert all(may_hold(bits, path) for path in paths)
    assert len(bits) <= max(8, 2 * len(paths))


def test_few_that_are_not_there_are_looked_for():
    bits = path_bits({f"/srv/{number}" for number in range(2000)})
    false = sum(may_hold(bits, f"/home/{number}") for number in range(2000))
    assert false < 200
    assert not may_hold(path_bits(set()), "/srv/1")

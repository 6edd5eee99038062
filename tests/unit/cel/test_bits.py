"""The numbers of the bits of an int, few or many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy.cel.bits import numbers_of


@given(st.sets(st.integers(0, 3_000), max_size=60))
def test_the_numbers_of_bits_are_those_that_were_set_lowest_first(numbers: set[int]) -> None:
    bits = sum(1 << number for number in numbers)
    assert numbers_of(bits) == sorted(numbers)

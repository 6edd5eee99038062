"""Say of what a view shows where it stands in what was sent, and whether it is to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aesp_proxy.decide.secrets.hyperscan_gates import promise_traits
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.views.packed import MAGICS
from aesp_proxy.decide.secrets.views.table import View


def outside(through: list[Candidate], clear: Sequence[Candidate]) -> list[Candidate]:
    """Return what was seen through views without what stands in ``clear`` at the same place.

    A view that mends a text may show a longer value of a secret that needs no mending.
    """
    if not through or not clear:
        return through
    return [
        one
        for one in through
        if not any(
            one.rule is other.rule and one.start < end_of(other) and other.start < end_of(one)
            for other in clear
        )
    ]


def end_of(one: Candidate) -> int:
    """Return where a candidate's value ends; its match may end before."""
    return max(one.end, one.start + len(one.value))


def is_believed(view: View, one: Candidate) -> bool:
    """Tell whether what a mending view shows is a token: joined words have no digit, one case."""
    return not view.mends or looks_drawn(one.value)


def looks_drawn(value: bytes) -> bool:
    """Tell whether what was put together has a digit or both cases, as no joined words have."""
    if any(byte in b"0123456789" for byte in value):
        return True
    upper = sum(65 <= byte <= 90 for byte in value)
    return upper >= _MIXED_MIN and sum(97 <= byte <= 122 for byte in value) >= _MIXED_MIN


_MIXED_MIN = 4


def outward(view: View, region: bytes, base: int, one: Candidate, shown: bytes) -> Candidate:
    """Return a candidate of what a view has ``shown`` as one of what ``region`` is a part of."""
    begin = one.begin if one.begin >= 0 else one.start
    start, end = _place(view, region, shown[begin : one.end if one.via else end_of(one)])
    via = f"{view.name} > {one.via}" if one.via else view.name
    return replace(one, start=base + start, end=base + end, begin=base + start, via=via)


def _place(view: View, region: bytes, text: bytes) -> tuple[int, int]:
    """Return the shortest part of ``region`` that shows ``text``, by bisection from both ends."""
    low, high = 0, len(region)
    while low < high:
        middle = (low + high) // 2
        if text in view.show(region[:middle]):
            high = middle
        else:
            low = middle + 1
    end = low
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        if text in view.show(region[middle:end]):
            low = middle
        else:
            high = middle - 1
    return low, end


def is_promising(text: bytes) -> bool:
    """Tell whether a token can stand in what a view shows: most of what is no digits is noise."""
    return promise_traits().first(text) >= 0


def holds_packed(text: bytes) -> bool:
    """Tell whether something packed may begin in what a view shows."""
    return any(magic.start in text for magic in MAGICS)

"""Numbers of the bits of an int, which may be thousands of bits long."""

from __future__ import annotations

_FEW = 6


def numbers_of(bits: int) -> list[int]:
    """Return which bits are set, the lowest first.

    A few are split off one by one, each of which copies the whole int; many are found in
    its digits.
    """
    found: list[int] = []
    if bits.bit_count() <= _FEW:
        while bits:
            rest = bits & (bits - 1)
            found.append((bits ^ rest).bit_length() - 1)
            bits = rest
        return found
    at = 0
    for gap in bin(bits).split("1")[:0:-1]:  # the zeros below each bit, the last first
        at += len(gap)
        found.append(at)
        at += 1
    return found

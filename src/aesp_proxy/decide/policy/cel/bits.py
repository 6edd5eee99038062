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
    digits = bin(bits)
    last = len(digits) - 1
    at = digits.rfind("1")
    while at > 0:  # the sign of the base stands before, and has no 1
        found.append(last - at)
        at = digits.rfind("1", 0, at)
    return found

"""Measure a candidate: how random it looks, and whether its check digit holds."""

from __future__ import annotations

import math

LUHN_DIGITS_MIN = 2
_DIGITS = b"0123456789"
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def entropy(value: bytes) -> float:
    """Return Shannon's entropy of the bytes of ``value`` in bits a byte, 0 when empty."""
    total = len(value)
    if not total:
        return 0.0
    repeated = [count for count in map(value.count, set(value)) if count > 1]
    return math.log2(total) - sum(count * math.log2(count) for count in repeated) / total


def luhn_holds(value: bytes) -> bool:
    """Digits that end in a Luhn digit (ISO/IEC 7812-1).

    Bytes that are not ASCII digits are passed over; fewer than two digits do not hold.
    """
    digits = [byte - 0x30 for byte in value if byte in b"0123456789"]
    if len(digits) < LUHN_DIGITS_MIN:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_mixed(value: bytes) -> bool:
    """Letters and digits together, as made by chance and rarely by people."""
    return any(byte in _DIGITS for byte in value) and any(byte in _LETTERS for byte in value)

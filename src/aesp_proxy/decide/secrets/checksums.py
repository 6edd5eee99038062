"""Check sums that issuers put into tokens, so that a token can be told from noise.

Each function takes the whole secret and says whether its check sum holds.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = b"0123456789abcdefghijklmnopqrstuvwxyz"
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_FACTORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_SUMS = (1, 0x2BC830A3)
"""The constants of BIP 173 and of BIP 350 (bech32m)."""

_CRC62_CHARS = 6
_CRC36_CHARS = 7
_BECH32_CHARS = 6
_BASE58_SUM_BYTES = 4
_STRKEY_BYTES = 35


def crc32_base62(value: bytes) -> bool:
    """CRC-32 of what follows the last ``_``, in base 62 at its end (GitHub, npm, Polar).

    Source: github.blog, "Behind GitHub's new authentication token formats".
    """
    body = value[:-_CRC62_CHARS].rpartition(b"_")[2]
    return bool(body) and value[-_CRC62_CHARS:] == _digits(zlib.crc32(body), _BASE62, _CRC62_CHARS)


def crc32_base62_all(value: bytes) -> bool:
    """CRC-32 of everything before the last ``_``, in base 62 behind it (Matrix: Synapse)."""
    body, _, check = value.rpartition(b"_")
    return bool(body) and check == _digits(zlib.crc32(body), _BASE62, _CRC62_CHARS)


def crc32_base36(value: bytes) -> bool:
    """CRC-32 of all before its last seven characters, which are it in base 36 (GitLab, routable).

    Source: GitLab's handbook, "Cells: Routable Tokens".
    """
    body, check = value[:-_CRC36_CHARS], value[-_CRC36_CHARS:]
    return bool(body) and check == _digits(zlib.crc32(body), _BASE36, _CRC36_CHARS)


def base58check(value: bytes) -> bool:
    """Base 58 that ends in four bytes of a double SHA-256 (Bitcoin: WIF, BIP 32)."""
    number = _number(value, _BASE58)
    if number is None:
        return False
    zeros = len(value) - len(value.lstrip(b"1"))
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    body, check = raw[:-_BASE58_SUM_BYTES], raw[-_BASE58_SUM_BYTES:]
    once = hashlib.sha256(body).digest()
    return bool(body) and hashlib.sha256(once).digest()[:_BASE58_SUM_BYTES] == check


def bech32(value: bytes) -> bool:
    """Six characters of a BCH code at the end (age, nostr; BIP 173 and 350)."""
    if value.lower() != value and value.upper() != value:
        return False
    human, one, data = value.lower().rpartition(b"1")
    numbers = [_BECH32.find(byte) for byte in data]
    if not one or not human or len(data) < _BECH32_CHARS or min(numbers) < 0:
        return False
    head = [byte >> 5 for byte in human] + [0] + [byte & 31 for byte in human]
    return _bech32_sum([*head, *numbers]) in _BECH32_SUMS


def strkey(value: bytes) -> bool:
    """Base 32 that ends in a CRC-16/XMODEM, low byte first (Stellar: SEP 23)."""
    number = _number(value, _BASE32)
    if number is None or len(value) * 5 != _STRKEY_BYTES * 8:
        return False
    raw = number.to_bytes(_STRKEY_BYTES, "big")
    return _crc16(raw[:-2]) == int.from_bytes(raw[-2:], "little")


def _digits(number: int, alphabet: bytes, width: int) -> bytes:
    digits = bytearray()
    while number:
        number, rest = divmod(number, len(alphabet))
        digits.append(alphabet[rest])
    return bytes(reversed(digits)).rjust(width, alphabet[:1])


def _number(value: bytes, alphabet: bytes) -> int | None:
    """Return the number that ``value`` spells, None for a character of another alphabet."""
    if len(value) > 256:
        return None
    number = 0
    for byte in value:
        digit = alphabet.find(byte)
        if digit < 0:
            return None
        number = number * len(alphabet) + digit
    return number


def _bech32_sum(numbers: Iterable[int]) -> int:
    total = 1
    for number in numbers:
        top = total >> 25
        total = (total & 0x1FFFFFF) << 5 ^ number
        for bit, factor in enumerate(_BECH32_FACTORS):
            total ^= factor if top >> bit & 1 else 0
    return total


def _crc16(data: bytes) -> int:
    total = 0
    for byte in data:
        total ^= byte << 8
        for _ in range(8):
            total = (total << 1 ^ 0x1021 if total & 0x8000 else total << 1) & 0xFFFF
    return total

"""Read a text in two further ways in which a registered value may stand in it.

Rules look for a wrapping where a literal of theirs shows in it. A registered value has no
literal, so what takes it apart is undone everywhere: letters and digits alone, whatever
stands between them; and lists of numbers as the bytes they are. Linear in the text; nothing
here fails on any input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aesp_proxy.decide.secrets.reference import compile_re2

SPREAD: Final = "spread"
NUMBERS: Final = "numbers"
_DECIMAL: Final = b"0123456789"
_NO_ALNUM: Final = bytes(
    byte for byte in range(256) if not (byte < 128 and bytes((byte,)).isalnum())
)
_LIST: Final = compile_re2(
    rb"(?:[0-9]{1,8}(?:[^0-9A-Za-z]{1,4}(?:chr[(])?)){7,}[0-9]{1,8}"
    rb"|(?:0x[0-9a-fA-F]{2}[^0-9A-Za-z]{1,4}){7,}0x[0-9a-fA-F]{2}"
)
_DIGITS: Final = bytes(
    byte if chr(byte) in "0123456789abcdefABCDEF" else 0x20 for byte in range(256)
)
_BINARY_DIGITS: Final = 7
_SHORT_DIGITS: Final = 3
_SPREAD_BYTES_MIN: Final = 16
_LISTS_MAX: Final = 256


def readings(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each further reading of ``text`` with its name."""
    letters = text.translate(None, _NO_ALNUM)
    if len(letters) < _SPREAD_BYTES_MIN:
        return
    yield SPREAD, letters
    if len(text) - len(text.translate(None, _DECIMAL)) < _SPREAD_BYTES_MIN:
        return
    at = 0
    for _ in range(_LISTS_MAX):
        match = _LIST.search(text, at)
        if match is None:
            return
        at = match.end()
        yield from ((NUMBERS, values) for values in _numbers(match.group() or b""))


def _numbers(text: bytes) -> Iterator[bytes]:
    """Yield the bytes that a list of numbers is, in each base that it may be written in."""
    words = text.replace(b"0x", b"").replace(b"chr", b"").translate(_DIGITS).split()
    if text.startswith(b"0x"):
        yield bytes(int(word, 16) for word in words)
        return
    yield bytes(int(word) & 0xFF for word in words if len(word) <= _SHORT_DIGITS)
    yield bytes(
        int(word, 8) & 0xFF
        for word in words
        if len(word) == _SHORT_DIGITS and not word.strip(b"01234567")
    )
    yield bytes(
        int(word, 2) & 0xFF
        for word in words
        if len(word) >= _BINARY_DIGITS and not word.strip(b"01")
    )

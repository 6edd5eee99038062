"""Undo what is done to letters: turned round, shifted, spread, hidden, replaced, numbered.

Rules:

- Nothing here fails on any input. Time is linear in the region.
- Look-alikes are Unicode's own compatibility forms (NFKC) and a short list of letters of
  other scripts that look like Latin ones (a part of UTS 39's confusables).
"""

from __future__ import annotations

import unicodedata

from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.views.forms import quoted
from aesp_proxy.decide.secrets.views.radix import SEAM

_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = _UPPER.lower()
_ROT13 = bytes.maketrans(_UPPER + _LOWER, _UPPER[13:] + _UPPER[:13] + _LOWER[13:] + _LOWER[:13])
_SPACES = (b" ", b".", b"-", b",", b'","', b'", "', b"\n", b"\\n")
_LOOK_ALIKE = dict(
    zip(
        "АВЕКМНОРСТХҮЅІЈԁԚԜаеорсухѕіјһԛԝк"
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοανικρτυ"
        "ՕՍոսօꓐꓑꓔꓖꓗꓙꓚꓜꓝꓡꓢꓣꓪꓬ"  # noqa: RUF001
        "‐‑‒–—―−﹘﹣－",  # noqa: RUF001
        "ABEKMHOPCTXYSIJdQWaeopcyxsijhqwkABEZHIKMNOPTYXoavikptuOUnuoBPTGKJCZFLSRWY----------",
        strict=True,
    )
)
_UNSEEN = frozenset(("Cf", "Mn", "Me"))
_SPREAD = tuple(
    (space, compile_re2(b"(?:[A-Za-z0-9_-]" + quoted(space) + b"){6}")) for space in _SPACES
)
_NOT_CONTROLS = bytes(byte for byte in range(256) if byte >= 32 or byte in b"\t\n\r")
_IN_LISTS = bytes(
    byte if byte in b"0123456789" else 32 if byte in b", \t\r\n" else 124 for byte in range(256)
)
_BYTE_DIGITS = 3
_LINE_MARKS = tuple(bytes((mark,)) for mark in b" \t>#+*|/")
_SIGNS = {first + code: code for first in (0x2800, 0xE0000) for code in range(32, 127)}
_LOST_PART = 16
"""Of so many bytes one may belong to no character of UTF-8: else it is no text."""


def turned_round(region: bytes) -> bytes:
    """Return ``region`` from its end to its beginning."""
    return region[::-1]


def rot13(region: bytes) -> bytes:
    """Return ``region`` with letters thirteen places on."""
    return region.translate(_ROT13)


def unspaced(region: bytes) -> bytes:
    """Return ``region`` without what may stand between its letters, each of such in turn."""
    return SEAM.join(
        region.replace(space, b"") for space, spread in _SPREAD if spread.search(region) is not None
    )


def unwrapped(region: bytes) -> bytes:
    """Return ``region`` without ends of lines, also where they are written as escapes.

    And without what lines that go on begin with, as folded, quoted and commented text has it.
    """
    plain = region.replace(b"\\r", b"").replace(b"\\n", b"\n").replace(b"\r", b"")
    first, *others = plain.split(b"\n")
    if not any(line[:1] in _LINE_MARKS for line in others):
        return first + b"".join(others)
    bare = b"".join(map(_unmarked, others))
    return SEAM.join((first + b"".join(others), first + bare))


def _unmarked(line: bytes) -> bytes:
    line = line.lstrip(b" \t")
    marks = 2 if line.startswith(b"//") else line[:1] in _LINE_MARKS
    return line[marks:].lstrip(b" \t")


def narrow(region: bytes) -> bytes:
    """Return ``region`` without NUL: UTF-16 and UTF-32 of ASCII, either byte order."""
    return region.replace(b"\0", b"")


def from_numbers(region: bytes) -> bytes:
    """Return the bytes that lists of decimal numbers are; what stands between is a new line."""
    lists = region.translate(_IN_LISTS).split(b"|")
    return b"\n".join(
        bytes(int(word) & 0xFF for word in one.split() if len(word) <= _BYTE_DIGITS)
        for one in lists
    )


def from_signs(region: bytes) -> bytes:
    """Return ``region`` with tag characters and signs of Braille as the bytes they number."""
    return region.decode("utf-8", "ignore").translate(_SIGNS).encode("utf-8", "replace")


def is_text(around: bytes) -> bool:
    """Tell whether there is no control character."""
    return not around.translate(None, _NOT_CONTROLS)


def skeleton(region: bytes) -> bytes:
    """Return ``region`` as it looks: without invisible characters, look-alikes as Latin letters."""
    if region.isascii():
        return b""
    text = region.decode("utf-8", "ignore")
    if len(region) - len(text.encode()) > len(region) // _LOST_PART:
        return b""
    text = _without_unseen(text)
    text = unicodedata.normalize("NFKC", text)
    for char in set(text) & _LOOK_ALIKE.keys():
        text = text.replace(char, _LOOK_ALIKE[char])
    return text.encode("utf-8", "replace")


def _without_unseen(text: str) -> str:
    """Return ``text`` without what leaves no mark: formats, joiners, combining marks."""
    for char in set(text):
        if not char.isascii() and unicodedata.category(char) in _UNSEEN:
            text = text.replace(char, "")
    return text

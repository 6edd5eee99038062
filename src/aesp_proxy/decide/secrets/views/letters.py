"""Undo what is done to letters: turned round, shifted, spread, widened, hidden, replaced.

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
    """Return ``region`` without ends of lines, also where they are written as escapes."""
    return region.replace(b"\\r", b"").replace(b"\\n", b"").translate(None, b"\r\n")


def narrow(region: bytes) -> bytes:
    """Return ``region`` without NUL: UTF-16 and UTF-32 of ASCII, either byte order."""
    return region.replace(b"\0", b"")


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

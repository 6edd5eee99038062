"""Undo what is done to letters: turned round, shifted, spread, widened, hidden, replaced.

Rules:

- Nothing here fails on any input. Time is linear in the region.
- Look-alikes are Unicode's own compatibility forms (NFKC) and a short list of letters of
  other scripts that look like Latin ones (a part of UTS 39's confusables).
"""

from __future__ import annotations

import unicodedata

from aesp_proxy.decide.secrets.views.radix import SEAM

_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = _UPPER.lower()
_ROT13 = bytes.maketrans(_UPPER + _LOWER, _UPPER[13:] + _UPPER[:13] + _LOWER[13:] + _LOWER[:13])
_SPACES = (b" ", b".", b"-", b",", b'","', b'", "', b"\n", b"\\n")
_LOOK_ALIKE = str.maketrans(
    "АВЕКМНОРСТХҮЅІЈԁԚԜаеорсухѕіјһԛԝкΑΒΕΖΗΙΚΜΝΟΡΤΥΧοανικρτυՕՍոսօꓐꓑꓔꓖꓗꓙꓚꓜꓝꓡꓢꓣꓪꓬ",
    "ABEKMHOPCTXYSIJdQWaeopcyxsijhqwkABEZHIKMNOPTYXoavikptuOUnuoBPTGKJCZFLSRWY",
)
_DASHES = str.maketrans("‐‑‒–—―−﹘﹣－", "-" * 10)  # noqa: RUF001

_UNSEEN_RANGES = (
    (0xAD, 0xAD), (0x300, 0x36F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0x1D173, 0x1D17A), (0xE0000, 0xE01EF),
)  # fmt: skip
"""Characters that leave no mark: formats, joiners, variation selectors, combining marks."""
_UNSEEN = {point: None for first, last in _UNSEEN_RANGES for point in range(first, last + 1)}


def turned_round(region: bytes) -> bytes:
    """Return ``region`` from its end to its beginning."""
    return region[::-1]


def rot13(region: bytes) -> bytes:
    """Return ``region`` with letters thirteen places on."""
    return region.translate(_ROT13)


def unspaced(region: bytes) -> bytes:
    """Return ``region`` without what may stand between its letters, each of such in turn."""
    return SEAM.join(region.replace(space, b"") for space in _SPACES if space in region)


def narrow(region: bytes) -> bytes:
    """Return ``region`` without NUL: UTF-16 and UTF-32 of ASCII, either byte order."""
    return region.replace(b"\0", b"")


def skeleton(region: bytes) -> bytes:
    """Return ``region`` as it looks: without invisible characters, look-alikes as Latin letters."""
    seen = region.decode("utf-8", "ignore").translate(_UNSEEN)
    plain = unicodedata.normalize("NFKC", seen).translate(_DASHES).translate(_LOOK_ALIKE)
    return plain.encode("utf-8", "replace")

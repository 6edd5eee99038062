"""Split what leaves into slots, and read a slot: what of it changes, what it says decoded."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Final

from aesp_proxy.decide.secrets.views import radix

UNIT_BYTES_MAX: Final = 4_096
"""A longer unit is no piece, but carries one among other things."""

_SPLITS_TARGET: Final = b"/?&=;,:+ \t\r\n\"'`()[]{}<>|\\"
_SPLITS_TEXT: Final = b"?&=;,: \t\r\n\"'`()[]{}<>|\\"
_SPLITS_PART: Final = b"-.~@!*# "
_ALNUM: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_HEX: Final = b"0123456789abcdefABCDEF"
_BASE32: Final = _ALNUM[:52] + b"234567"
_BASE64: Final = _ALNUM + b"+/-_"
_TO_BASE64: Final = bytes.maketrans(b"-_", b"+/")
_WORD_BYTES_MIN: Final = 5
_DECODED_BYTES_MIN: Final = 2
_SHOWN_BYTES_MIN: Final = 16


def _blanks(splits: bytes) -> bytes:
    return bytes(0x20 if byte in splits else byte for byte in range(256))


_TARGET_TABLE: Final = _blanks(_SPLITS_TARGET)
_TEXT_TABLE: Final = _blanks(_SPLITS_TEXT)
_PART_TABLE: Final = _blanks(_SPLITS_PART)


def target_slots(target: bytes) -> tuple[bytes, ...]:
    """Split a target, percent-decoded, into segments, names and values of its query."""
    return tuple(target[:UNIT_BYTES_MAX].translate(_TARGET_TABLE).split())


def text_slots(text: bytes) -> tuple[bytes, ...]:
    """Split a body, a message or a field's value into what stands between its marks."""
    return tuple(text[:UNIT_BYTES_MAX].translate(_TEXT_TABLE).split())


def is_word(piece: bytes) -> bool:
    """Tell whether a piece is written as words are: letters, all but the first of one case."""
    return len(piece) >= _WORD_BYTES_MIN and piece.isalpha() and piece[1:].islower()


def inner(before: bytes, piece: bytes) -> tuple[bytes, bytes]:
    """Return what changes in a slot that has parts: of ``part-17-x.txt`` the ``x``.

    Numbers that change are counted and left out.
    """
    if not piece.translate(None, _ALNUM):
        return before, piece
    parts, olds = (text.translate(_PART_TABLE).split() for text in (piece, before))
    if len(parts) == len(olds) > 1:
        changed = [
            (old, new)
            for old, new in zip(olds, parts, strict=True)
            if old != new and not (old.isdigit() and new.isdigit())
        ]
        return b"".join(old for old, _ in changed), b"".join(new for _, new in changed)
    start, stop = _shared(before, piece)
    return before[start : len(before) - stop], piece[start : len(piece) - stop]


def _shared(one: bytes, two: bytes) -> tuple[int, int]:
    """Return how long a beginning and an end both have, up to a mark: ``part-``, ``.txt``."""
    most = min(len(one), len(two))
    start = next((at for at in range(most) if one[at] != two[at]), most)
    while start and two[start - 1] in _ALNUM:
        start -= 1
    most -= start
    stop = next((at for at in range(most) if one[-1 - at] != two[-1 - at]), most)
    while stop and two[-stop] in _ALNUM:
        stop -= 1
    return start, stop


def from_base64(piece: bytes) -> bytes:
    """Return what a piece is in base64, empty when it is none or shows no plain text."""
    if len(piece) < _DECODED_BYTES_MIN or piece.translate(None, _BASE64):
        return b""
    text = _base64(piece)
    return text if text.isascii() and text.decode().isprintable() else b""


def shown(text: bytes) -> Iterator[bytes]:
    """Yield what ``text`` says, read as one number from its first digit on, in each base."""
    if len(text) < _SHOWN_BYTES_MIN or text.translate(None, _BASE64):
        return
    if not text.translate(None, _HEX):
        yield binascii.unhexlify(text[: len(text) & ~1])
        return
    if not text.translate(None, _BASE32):
        yield radix.base32_text(text)
    yield _base64(text)


def _base64(text: bytes) -> bytes:
    whole = len(text) - (len(text) % 4 == 1)
    return binascii.a2b_base64(text[:whole].translate(_TO_BASE64) + b"==")

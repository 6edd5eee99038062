"""Spell a piece of a value in the ways in which it may be sent, each as the bytes that show.

Rules:

- Base64 is cut to the characters that do not depend on what stands around the piece, for
  each of its three alignments (RFC 4648 section 4 and 5).
- A spelling that equals another, or is too short to be told from chance, is left out.
"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_from_bytes

SPELLING_BYTES_MIN: Final = 8
SPELLING_BYTES_MAX: Final = 800
PLAIN: Final = ""


def spellings(piece: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return (name of the wrapping, bytes) for ``piece``; the plain one is first, named empty."""
    seen: set[bytes] = set()
    kept = []
    for name, text in _all(piece):
        if text not in seen and SPELLING_BYTES_MIN <= len(text) <= SPELLING_BYTES_MAX:
            seen.add(text)
            kept.append((name, text))
    return tuple(kept)


def _all(piece: bytes) -> Iterator[tuple[str, bytes]]:
    yield PLAIN, piece
    yield "lowercase", piece.lower()  # what a name of a host becomes
    yield "uppercase", piece.upper()
    yield "swapped case", piece.swapcase()
    yield "spread", bytes(byte for byte in piece if byte < 128 and chr(byte).isalnum())
    yield "reversed", piece[::-1]
    yield "hex", piece.hex().encode("ascii")
    yield "hex", piece.hex().upper().encode("ascii")
    for shift in range(3):
        yield from _base64(piece, shift)
    yield "reversed base64", base64.b64encode(piece).rstrip(b"=")[-2::-1]
    yield "rot13", codecs.encode(piece.decode("latin-1"), "rot13").encode("latin-1")
    yield "percent", quote_from_bytes(piece, safe="").encode("ascii")
    yield "percent", quote_from_bytes(piece, safe="/:@").encode("ascii")
    every = [f"%{byte:02x}" for byte in piece]
    yield "percent", "".join(every).encode("ascii")
    yield "percent", "".join(every).upper().encode("ascii")
    yield "form", quote_from_bytes(piece, safe=" ").replace(" ", "+").encode("ascii")
    escaped = _json_string(piece)
    yield "json", escaped
    yield "json", escaped.replace(b"/", b"\\/")
    yield "json+json", _json_string(escaped)
    yield "utf-16", piece.decode("latin-1").encode("utf-16-le")


def _base64(piece: bytes, shift: int) -> Iterator[tuple[str, bytes]]:
    """Encode ``piece`` behind ``shift`` bytes that are not known."""
    skip = (shift * 4 + 2) // 3  # characters that hold bits of those bytes
    stable = (shift + len(piece)) * 4 // 3  # and from here on bits of those behind
    for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
        yield name, encode(b"\0" * shift + piece)[skip:stable]


def _json_string(text: bytes) -> bytes:
    """Return what stands between the quotes of a JSON string (RFC 8259 section 7)."""
    decoded = text.decode("utf-8", "surrogateescape")
    return json.dumps(decoded, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")

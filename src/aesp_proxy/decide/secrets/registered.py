"""Turn a value into what is kept of it: keyed hashes by which it is known again.

Rules:

- Nothing here holds the value once ``entry`` has returned, and no byte of it stands in an
  ``Entry``. What stands there are digests, and hashes of eight bytes (of five, in spellings
  under 23) cut to 40 bits, all by a key that is never written; and which of these are of small
  letters only, and where in a window are bytes that no token has (see ``gram_shapes``).
- A long value is known by pieces of ``PIECE_BYTES``, each of which alone is a leak: half
  of a token is found too. Pieces that read like text, and the parts of keys and tokens
  that all of them share (PEM and DER heads, JWT heads), are not taken.
- Any ``Window`` of a spelling holds one gram at each position modulo the stride of its
  tier, so a scan of every stride-th position meets one, wherever the spelling begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack
from typing import Final

from aesp_proxy.decide.secrets.gram_shapes import first_token_window, shapes_of
from aesp_proxy.decide.secrets.measure import entropy
from aesp_proxy.decide.secrets.redact import fingerprint
from aesp_proxy.decide.secrets.worth import unworthy
from aesp_proxy.decide.secrets.wrappings import spellings
from aesp_proxy.errors import ConfigError

PIECE_BYTES: Final = 24
PIECE_STEP: Final = 12
PIECES_MAX: Final = 16
WHOLE_BYTES_MAX: Final = 256
PIECE_ENTROPY_MIN: Final = 3.0
DIGEST_BYTES: Final = 16
NAME_CHARS_MAX: Final = 120
RULE_PREFIX: Final = "registered:"

_PEM: Final = b"-----BEGIN"
_PEM_LINES_SHARED: Final = 2
_PEM_LINES_MIN: Final = 5


KEPT_BITS: Final = 40
"""Of the hash of a gram so many bits are kept."""
_WORD_MASK: Final = (1 << 64) - 1
_SPACE: Final = b" "


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """How spellings of ``length_min`` bytes and more are found.

    Every ``stride``-th position of the data is read as a gram of ``gram_bytes``, at most 8.
    """

    length_min: int
    gram_bytes: int
    stride: int

    @property
    def window_bytes(self) -> int:
        """Bytes of a spelling that hold a gram at each position modulo the stride."""
        return self.gram_bytes + self.stride - 1

    def hashes(self, text: bytes, multiplier: int) -> bytes:
        """Return the hash of each gram in ``text``, a number of eight bytes each.

        The upper bits of a product (see ``Hasher``).
        """
        width = self.gram_bytes
        count = len(text) - width + 1
        whole, mask = int.from_bytes(text, "little"), (1 << 8 * width) - 1
        kept = [
            ((whole >> at & mask) * multiplier & _WORD_MASK) >> 64 - KEPT_BITS
            for at in range(0, 8 * count, 8)
        ]
        return pack(f"<{count}Q", *kept)


TIERS: Final = (
    Tier(length_min=23, gram_bytes=8, stride=16),
    Tier(length_min=8, gram_bytes=5, stride=4),
)


PARTS: Final = Tier(length_min=16, gram_bytes=8, stride=1)
"""How parts of a value are found that are no spelling: each eight bytes of it, anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """One way in which one piece of a value shows.

    ``window`` is where its grams begin, ``grams`` are their hashes (see ``Tier.hashes``),
    ``shapes`` how they are looked up, ``digest`` is that of all its ``length`` bytes.
    """

    wrapping: str
    length: int
    window: int
    grams: bytes
    digest: bytes
    shapes: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One registered value, without it.

    ``fingerprint`` is the one that a finding of a rule has for the same value. ``parts`` are
    the hashes of each eight bytes of it, in order; none where such could stand in a text.
    """

    name: str
    source: str
    fingerprint: str
    spellings: tuple[Spelling, ...]
    parts: bytes = b""

    @property
    def rule_id(self) -> str:
        """The rule that its findings name."""
        return RULE_PREFIX + self.name


class Hasher:
    """The keyed hashes of one process; ``key`` is 16 to 64 bytes of chance."""

    __slots__ = ("_key", "multiplier")

    def __init__(self, key: bytes) -> None:
        self._key = key
        drawn = hashlib.blake2b(b"multiplier", digest_size=8, key=key).digest()
        # An odd factor drawn at random: multiply-shift hashing is universal
        # (Dietzfelbinger and others, 1997), and one machine instruction.
        self.multiplier = int.from_bytes(drawn, "little") | 1

    def digest(self, data: bytes) -> bytes:
        """Return the digest by which a whole spelling is confirmed (RFC 7693)."""
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self._key).digest()

    def parts(self, value: bytes) -> bytes:
        """Return the hashes of a value's parts, none of one that is short, long or like text."""
        if not PARTS.length_min <= len(value) <= WHOLE_BYTES_MAX or not _is_strong(value):
            return b""
        return PARTS.hashes(value, self.multiplier)

    def spelling(self, wrapping: str, text: bytes) -> Spelling:
        """Return what is kept of one spelling."""
        tier = TIERS[0] if len(text) >= TIERS[0].length_min else TIERS[1]
        window = _window(text, tier)
        shown = text[window : window + tier.window_bytes]
        return Spelling(
            wrapping=wrapping,
            length=len(text),
            window=window,
            grams=tier.hashes(shown, self.multiplier),
            digest=self.digest(text),
            shapes=shapes_of(shown, tier.gram_bytes),
        )


def entry(name: str, source: str, value: bytes, *, hasher: Hasher, fingerprint_key: bytes) -> Entry:
    """Return what is kept of ``value``; ConfigError, without it, when it is not worth it."""
    value = value.strip()
    reason = unworthy(value)
    pieces = () if reason else _pieces(value)
    if not pieces:
        raise ConfigError(reason or "a long text without a part that only a secret has")
    kept = [hasher.spelling(*one) for one in spellings(pieces[len(pieces) // 2])]
    kept += [hasher.spelling("", piece) for piece in pieces]
    unlike = {spelling.digest: spelling for spelling in kept}
    return Entry(
        name=plain_name(name),
        source=source,
        fingerprint=fingerprint(fingerprint_key, value),
        spellings=tuple(unlike.values()),
        parts=hasher.parts(value),
    )


def plain_name(name: str) -> str:
    """Return ``name`` as it may stand in a rule's id: no blanks, no control characters."""
    kept = [
        char if char.isascii() and (char.isalnum() or char in "._-/@") else "_" for char in name
    ]
    return "".join(kept)[:NAME_CHARS_MAX] or "value"


def _pieces(value: bytes) -> Sequence[bytes]:
    """Return the pieces of a value, each enough to tell it; none when it is a long text."""
    lines = value.split()
    if value.startswith(_PEM):
        lines = _pem_lines(value)
    elif value.startswith(b"eyJ") and value.count(b".") == 2:
        lines = [value.rpartition(b".")[2]]  # of a JWT: head and claims may be public
    elif len(lines) == 1 and len(value) < PIECE_BYTES + PIECE_STEP:
        return (value,)
    found = [piece for line in lines for piece in _cut(line)]
    strong = [piece for piece in found if _is_strong(piece)]
    if strong:
        step = -(-len(strong) // PIECES_MAX)
        return strong[::step]
    return (value,) if len(value) <= WHOLE_BYTES_MAX else ()


def _pem_lines(value: bytes) -> list[bytes]:
    """Return the lines of a PEM body (RFC 7468) that are the key's own."""
    body = [line for line in value.split() if line[:1] != b"-" and len(line) > PIECE_BYTES]
    return body[_PEM_LINES_SHARED:] if len(body) >= _PEM_LINES_MIN else body[1:] or body


def _cut(line: bytes) -> list[bytes]:
    last = len(line) - PIECE_BYTES
    if last < 0:
        return []
    return [line[at : at + PIECE_BYTES] for at in (*range(0, last, PIECE_STEP), last)]


def _is_strong(piece: bytes) -> bool:
    """Tell whether a piece looks drawn by chance: nothing that a text would say."""
    kinds = (
        any(0x61 <= byte <= 0x7A for byte in piece),
        any(0x41 <= byte <= 0x5A for byte in piece),
        any(0x30 <= byte <= 0x39 for byte in piece),
    )
    digits = sum(0x30 <= byte <= 0x39 for byte in piece)
    mixed = all(kinds) or digits >= 4
    return mixed and entropy(piece) >= PIECE_ENTROPY_MIN


def _window(text: bytes, tier: Tier) -> int:
    """Return where the window begins that is least like text.

    One of token bytes only, if there is one. Of a long spelling, of a few the one with the most
    different bytes; of a short one, see ``_unlike_text``.
    """
    size, last = tier.window_bytes, len(text) - tier.window_bytes
    if tier is TIERS[0]:
        tried = sorted({0, last // 3, 2 * last // 3, last})
        plain = [at for at in tried if first_token_window(text[at : at + size], size) == 0]
        plain = plain or [at for at in (first_token_window(text, size),) if at >= 0]
        if plain or _SPACE not in text:
            return max(plain or tried, key=lambda at: len(set(text[at : at + size])))
    return max(range(last + 1), key=lambda at: _unlike_text(text[at : at + size], tier.gram_bytes))


def _unlike_text(window: bytes, width: int) -> tuple[bool, bool, int, int]:
    """Return what orders windows: without other bytes, spaces, small words, words."""
    grams = [window[at : at + width] for at in range(len(window) - width + 1)]
    return (
        first_token_window(window, len(window)) == 0,
        _SPACE not in window,
        sum(not (gram.isalpha() and gram.islower()) for gram in grams),
        sum(not gram.isalpha() for gram in grams),
    )

"""Tell by what stands around a gram how it is looked up, so that most data need no look at all.

Rules:

- What can be told without the key is told before a hash is made: a gram is looked up only
  where data of its shape stand. So a shape never depends on more than the window says, and
  what is around a window in the data can only bring further shapes into question.
- Of a value is kept with its hashes: which grams are words, and where in a window the bytes
  stand that tokens do not have.
"""

from __future__ import annotations

from typing import Final

TOKEN: Final = 0
"""Of a window of token bytes only, and not a word."""
WORD: Final = 1
"""Of a window of token bytes only; the gram itself is of small letters only."""
SHORT: Final = 2
"""Of token bytes only, in a window that has others."""
MIXED: Final = 3
"""With a byte that is no token's, and no space."""
SPACED: Final = 4
"""With a space."""
SHAPES: Final = 5
MASKS: Final = 256

_WORD_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_TOKEN_BYTES: Final = _WORD_BYTES | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+,-./_")
"""What base64 and most tokens are of, and what costs nothing more to tell: a range of signs."""
_SPACE: Final = b" "
_IS_OTHER: Final = bytes(byte not in _TOKEN_BYTES for byte in range(256))
_IS_WORD: Final = bytes(byte in _WORD_BYTES for byte in range(256))
_YES: Final = b"\x01"


def shapes_of(window: bytes, width: int) -> bytes:
    """Return two bytes for each gram of ``window``, its shape and its mask; empty: all tokens.

    The mask has a bit for each byte that is no token's, the lowest for the first.
    """
    other, word = window.translate(_IS_OTHER), _YES * width
    if _YES not in other:
        low = window.translate(_IS_WORD)
        if word not in low:
            return b""
        kinds = [(WORD if low.startswith(word, at) else TOKEN, 0) for at in _grams(window, width)]
    else:
        kinds = [_kind(window[at : at + width], other[at : at + width])
                 for at in _grams(window, width)]  # fmt: skip
    return bytes(one for kind in kinds for one in kind)


def _grams(window: bytes, width: int) -> range:
    return range(len(window) - width + 1)


def _kind(gram: bytes, other: bytes) -> tuple[int, int]:
    mask = sum(one << at for at, one in enumerate(other))
    return (SPACED if _SPACE in gram else MIXED) if mask else SHORT, mask


def first_token_window(text: bytes, size: int) -> int:
    """Return where the first ``size`` token bytes in a row begin, -1 when there are none."""
    return text.translate(_IS_OTHER).find(bytes(size))


def in_question(near: bytes, at: int, width: int, window: int, masks: bytes) -> int:
    """Return as bits the shapes that the gram at ``at`` may be known as, as far as any is held.

    ``masks`` tells for each mask which shapes are held. Token bytes only: as a short one; where
    they are ``window`` in a row, as a word or a token too. With others: as its mask says.
    """
    gram = near[at : at + width]
    other = gram.translate(_IS_OTHER)
    if _YES in other:
        shape, mask = _kind(gram, other)
        return masks[mask] & 1 << shape
    run = near[max(0, at - window) : at + window].translate(_IS_OTHER)
    begin = run.rfind(_YES, 0, min(at, window)) + 1
    end = run.find(_YES, min(at, window))
    is_long = (len(run) if end < 0 else end) - begin >= window
    whole = WORD if _YES * width in gram.translate(_IS_WORD) else TOKEN
    return masks[0] & (1 << SHORT | is_long << whole)

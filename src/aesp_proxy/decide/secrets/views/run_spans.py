"""Find long runs of letters by Hyperscan: what ``_runs.c`` does, where nothing was compiled.

Both find the same in the same order. A run is the most letters, digits, ``+``, ``/``, ``-`` and
``_`` that stand together, ``RUN_BYTES_MIN`` of them or more. What is compiled leaves out of them
what Hyperscan would find to hold nothing.
"""

from __future__ import annotations

from typing import Final

from aesp_proxy.decide.secrets.hyperscan_gates import run_end_traits, run_traits
from aesp_proxy.decide.secrets.views.text_forms import RUN_BYTES_MIN

_RESCANS_MAX: Final = 3
"""So many runs of a piece are searched one after the other, more of them at once."""
_IS_LETTER: Final = bytes(
    int(chr(byte).isalnum() or byte in b"+/-_") if byte < 128 else 0 for byte in range(256)
)
_LETTERS: Final = b"\1" * RUN_BYTES_MIN
_STEP_BYTES: Final = 128


def end(text: bytes, at: int, /) -> int:
    """Return where the run that goes on at offset ``at`` ends."""
    found = text[at : at + _STEP_BYTES].translate(_IS_LETTER).find(b"\0")
    if found >= 0:
        return at + found
    found = run_end_traits().first(memoryview(text)[at:])
    return len(text) if found < 0 else at + found - 1


def spans(text: bytes, at: int, low: int, whole: int, /) -> list[tuple[int, int]]:
    """Return where runs that end after ``low`` begin and end in ``text``, from offset ``at`` on.

    What ends before ``whole`` is there to its end (what is compiled asks those what they hold).
    """
    del whole
    return [span for span in _all_spans(text, at) if span[1] > low]


def may_hold(_text: bytes, /) -> bool:
    """Tell whether digits of base64 may be those of text: here nothing is known of it."""
    return True


def high(text: bytes | memoryview, most: int, /) -> list[tuple[int, int]]:
    """Return what holds all bytes above 0x7f; where that is more than ``most`` places, all as one.

    Here it always is.
    """
    del most
    return [] if bytes(text).isascii() else [(0, len(text))]


def _all_spans(text: bytes, at: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    first, rest = run_traits().first, memoryview(text)
    for _ in range(_RESCANS_MAX):
        seen = first(rest[at:])
        if seen < 0:
            return found
        start = at + seen - RUN_BYTES_MIN
        at = end(text, start + RUN_BYTES_MIN)
        found.append((start, at))
    find = text[at:].translate(_IS_LETTER).find
    start, last = find(_LETTERS), len(text) - at
    while start >= 0:
        until = find(b"\0", start)
        if until < 0:
            until = last
        found.append((at + start, at + until))
        start = find(_LETTERS, until)
    return found

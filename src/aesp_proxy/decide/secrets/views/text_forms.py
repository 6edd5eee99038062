r"""Say what any printable text looks like in base64, base32 and hex, whatever it says.

A byte of ASCII has its upper bit clear, and above the control characters one of the next
two set. So digits that hold such bytes are few: of random base64 one place in half a
million looks like fifteen bytes of text, of random hex like fourteen. What is decoded for
its own sake need not be: its digits tell.
"""

from __future__ import annotations

from collections.abc import Callable

RUN_BYTES_MIN = 48
PROMISE_BYTES = 12
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BASE64 = (_LETTERS + b"+/", _LETTERS + b"-_")
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BASE64_GROUPS = 5
_WIDE_GROUPS = 3
_BASE32_GROUPS = 2
_HEX_BYTES = 14


def _digits(alphabets: tuple[bytes, ...], fits: Callable[[int], bool]) -> bytes:
    """Return the class of the digits whose value fits, in any of the alphabets."""
    chosen = {
        letters[value] for letters in alphabets for value in range(len(letters)) if fits(value)
    }
    return b"[" + b"".join(b"\\x%02x" % letter for letter in sorted(chosen)) + b"]"


def _of_64(fits: Callable[[int], bool]) -> bytes:
    return _digits(_BASE64, fits)


def _group_32(letters: bytes) -> bytes:
    """Return eight digits of base32 that are five printable bytes."""

    def of(fits: Callable[[int], bool]) -> bytes:
        return _digits((letters,), fits)

    return (
        of(lambda one: 4 <= one < 16)
        + of(lambda two: two & 2 == 0)
        + of(lambda _: True)
        + of(lambda four: 2 <= four & 15 <= 7)
        + of(lambda five: five & 1 == 0)
        + of(lambda six: six >= 8)
        + of(lambda seven: 1 <= seven & 7 <= 3)
        + of(lambda _: True)
    )


def _times(group: bytes, count: int) -> bytes:
    return b"(?:%s){%d}" % (group, count)


_GROUP_64 = (
    _of_64(lambda one: 8 <= one < 32)
    + _of_64(lambda two: 2 <= two & 15 <= 7)
    + _of_64(lambda three: three & 2 == 0)
    + _of_64(lambda _: True)
)
"""Four digits of base64 that are three printable bytes."""

_GROUP_64_WIDE = (
    _of_64(lambda one: 8 <= one < 32)
    + _of_64(lambda two: two & 15 == 0)
    + _of_64(lambda three: three < 2)
    + _of_64(lambda _: True)
    + b"A"
    + _of_64(lambda six: 2 <= six < 8)
    + _of_64(lambda seven: seven & 3 == 0)
    + b"A"
)
"""Eight digits that are three printable bytes with a NUL behind each."""

RUN = rb"[A-Za-z0-9+/_\-]{%d}" % RUN_BYTES_MIN
RUN_END = rb"[^A-Za-z0-9+/_\-]"

IN_MIXED_RUNS = (
    _times(_GROUP_64, _BASE64_GROUPS) + b"|" + _times(_GROUP_64_WIDE, _WIDE_GROUPS),
    rb"\n(?:H4sI|KLUv|UEsD|Qlpo|/Td6|e(?:J[w-z]|N[o-r]|A[E-H]|F[4-7]))",
)
"""What runs of letters of both cases look like that hold text, or begin as something packed.

Here and below a newline stands before each run.
"""

IN_EVEN_RUNS = (
    rb"\n" + _times(_group_32(_BASE32), _BASE32_GROUPS),
    rb"\n" + _times(_group_32(_BASE32.lower()), _BASE32_GROUPS),
    _times(b"[2-7][0-9a-fA-F](?:00)?", _HEX_BYTES),
    rb"\n(?:1[fF]8[bB]08|28[bB]52[fF]{2}[dD]|504[bB]0304|425[aA]68|[fF][dD]377[aA]58)",
)
"""The same for runs of one case."""

PROMISES = (
    rb"[\x20-\x7e]{%d}" % PROMISE_BYTES,
    rb"(?:[\x20-\x7e]\x00){10}",
    rb"(?:[!-~]\xe2\x80[\x80-\xbf]){4}",
    rb"(?:\xef[\xbc\xbd][\x80-\xbf]){6}",
    rb"(?:\xe2[\xa0\xa1][\x80-\xbf]){8}",
    rb"(?:\xf3\xa0[\x80\x81][\x80-\xbf]){8}",
)
"""Where a token can stand in what a view shows: most of what is no digits is noise."""

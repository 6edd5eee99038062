"""The views by name: what each shows of a region, and how far around a gate it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aesp_proxy.decide.secrets.hyperscan_gates import promise_traits
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.views import escapes, events, letters, radix
from aesp_proxy.decide.secrets.views.forms import BROKEN

BACK_BYTES = 2_048
AHEAD_BYTES = 4_096
FITS_BYTES = 64
Fits = Callable[[bytes, int], bool]
"""Whether what surrounds a gate, which ends at an offset of it, is worth opening a view for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way of reading a region.

    ``show`` never fails; ``show_at`` does less where it is known that a digit or group of
    the value ends at an offset. A view is only opened where the ``near_bytes`` on both
    sides of that offset fit. The region reaches ``back_bytes`` before it and
    ``ahead_bytes`` behind. A view that ``mends`` puts together what stands apart: what it
    shows is only believed where it does not look like words.
    """

    name: str
    show: Callable[[bytes], bytes]
    fits: Fits
    show_at: Callable[[bytes, int], bytes] | None = None
    near_bytes: int = FITS_BYTES
    mends: bool = False
    back_bytes: int = BACK_BYTES
    ahead_bytes: int = AHEAD_BYTES


def interruptions(text: bytes, at: int) -> tuple[str, ...]:
    """Return the views that may mend a literal which ends at ``at`` of ``text``.

    What stands before it or behind its token must look like one of the joints that the
    views undo; else nothing is interrupted and no view is opened.
    """
    behind = text[at : at + _PIECE_BYTES_MAX]
    rest = behind.lstrip(_PIECE)
    piece = behind[: len(behind) - len(rest)]
    if len(piece) >= _ROW_BYTES_MIN and len(set(piece)) == 1:
        return ()  # what manuals print: a row of one letter or of points
    names = _AFTER.get(rest[:1], ())
    if len(piece) >= _PIECE_BYTES_MIN:
        names += _AFTER_PIECE.get(rest[:1], ())
    if rest[:1] == b")" and _DRAWN_ON.search(rest) is not None:
        names += ("joined",)
    before = text[max(0, at - _BEFORE_BYTES) : at]
    for mark, name, escape in _BEFORE:
        if mark in before and escape.search(before) is not None:
            names += (name,)
    return names


_BEFORE_BYTES = 16
_PIECE = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+/-"
_PIECE_BYTES_MAX = 161
_ROW_BYTES_MIN = 3
_AFTER = {
    b"\\": ("escapes", "joined", "fields"),
    b'"': ("joined", "fields"),
    b"'": ("joined",),
    b"`": ("joined",),
    b"&": ("fields", "entities"),
    b";": ("fields",),
    b"%": ("percent",),
    b"=": ("quoted-printable",),
    b"\n": ("fields",),
    b"\r": ("fields",),
    b"\0": ("utf-16",),
    b"<": ("marked-up",),
}
_DRAWN_ON = compile_re2(rb"\A\)[ \t\r\n]{0,3}-?[0-9.]{0,8}[ \t\r\n]{0,3}\(")
"""How a page of a PDF goes on with a word that it has begun to draw."""
_PIECE_BYTES_MIN = 8
"""So much of a token must stand before the end of a line that it may go on in the next."""
_AFTER_PIECE = {b"\\": ("lines",), b"\n": ("lines",), b"\r": ("lines",)}
_TAGS = (b"\x0a", b"\x12", b"\x1a")
"""The first fields of a protobuf message (the fourth looks like a quote), behind which a length
stands that may be a letter."""
_BEFORE = (
    (b"+", "form", compile_re2(rb"[+][^+]{3,8}\z")),
    (b"\\", "escapes", compile_re2(rb"\\(?:[a-z]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}).{3,8}\z")),
    (b"%", "percent", compile_re2(rb"%[0-9a-fA-F]{2}.{3,8}\z")),
    (b"=", "quoted-printable", compile_re2(rb"=(?:[0-9A-F]{2}|\r?\n).{3,8}\z")),
    *((tag, "message", compile_re2(b"[" + tag + rb"][0-9A-Za-z_].{3,8}\z")) for tag in _TAGS),
)


_TOKEN_BYTES_MIN = 16
_VALUE_BYTES_MIN = 8
_MIXED_BYTES_MIN = 12
_MIXED_MIN = 3
_DIGITS = b"0123456789"
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = _UPPER.lower()
_IN_TOKEN = bytes(
    byte if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_.+/=~:-") else 32
    for byte in range(256)
)
_IN_VALUE = bytes(
    byte if 33 <= byte < 127 and byte not in b"\"'`\\<>{}$" else 32 for byte in range(256)
)
_BARE_EQUALS = compile_re2(rb"=(?:[^0-9A-Fa-f\r\n]|[0-9A-Fa-f][^0-9A-Fa-f])")
_FORM_BYTES = 40
_QUOTED_BYTES = 32
_BASE64_BYTES = 40
_BASE64_LETTERS = _UPPER + _LOWER + _DIGITS + b"+/"
_RUN_LETTERS = _UPPER + _LOWER + _DIGITS + b"+/=_-"
_UUID = b"hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh"
_UUID_BYTES = len(_UUID)
_AS_UUIDS = tuple(
    bytes(ord("h") if byte in digits else byte if byte == ord("-") else 0 for byte in range(256))
    for digits in (b"0123456789abcdef", b"0123456789ABCDEF")
)
_HAS_WORDS = compile_re2(b"(?:[a-z]{3,8}[ ,]){8}")


def _holds_token(text: bytes) -> bool:
    """Tell whether a word of a token's length stands there, with a digit in it."""
    return any(
        word.translate(None, _DIGITS) != word
        for word in text.translate(_IN_TOKEN).split()
        if len(word) >= _TOKEN_BYTES_MIN
    )


def _is_amid_digits(around: bytes, at: int) -> bool:
    """Tell whether ``at`` is far from both ends of a run of base64: no token begins there."""
    left, right = around[:at], around[at:]
    before = left[len(left.rstrip(_RUN_LETTERS)) :]
    behind = right[: len(right) - len(right.lstrip(_RUN_LETTERS))]
    return min(len(before), len(behind)) > _TOKEN_BYTES_MIN and (
        (before + behind).translate(None, b"+/") != before + behind
    )


def _holds_value(text: bytes) -> bool:
    """Tell whether something stands there that may be a value: names in programs are none."""
    return (
        any(
            _is_value(word)
            for word in text.translate(_IN_VALUE).split()
            if len(word) >= _VALUE_BYTES_MIN
        )
        or _HAS_WORDS.search(text) is not None
    )


def _is_value(word: bytes) -> bool:
    size = len(word)
    if word.translate(None, _DIGITS) != word:
        return True
    upper, lower = (size - len(word.translate(None, letters)) for letters in (_UPPER, _LOWER))
    return size >= _MIXED_BYTES_MIN and min(upper, lower) >= _MIXED_MIN


def _digits_of(show: Callable[[bytes], bytes]) -> Fits:
    """Fit where digits show what may be text."""
    return lambda around, _: promise_traits().first(show(around)) >= 0


def _digits_at(show_at: Callable[[bytes, int], bytes]) -> Fits:
    return lambda around, at: promise_traits().first(show_at(around, at)) >= 0


def _value_in(show: Callable[[bytes], bytes]) -> Fits:
    """Fit where a view shows a value; names and words of a program have no digits."""
    return lambda around, _: _holds_value(show(around))


def _escaped(around: bytes, _: int) -> bool:
    """Tell whether escapes show a value, or signs that are one."""
    shown = escapes.unescaped(around)
    return _holds_value(shown) or (
        not shown.isascii()
        and (_holds_value(letters.from_signs(shown)) or _holds_value(letters.skeleton(shown)))
    )


def _token_in_text(around: bytes, at: int) -> bool:
    """Tell whether a token stands in text; names in programs are turned round by chance."""
    return (
        not _is_in_uuid(around, at)
        and letters.is_text(around)
        and _holds_token(around)
        and not _is_amid_digits(around, at)
    )


def _is_in_uuid(around: bytes, at: int) -> bool:
    """Tell whether a gate ends in a UUID: its groups are no token, whichever way they are read."""
    start = max(0, at - _UUID_BYTES)
    near = around[start : at + _UUID_BYTES - 1]
    found = (near.translate(digits).find(_UUID) for digits in _AS_UUIDS)
    return any(0 <= one < at - start for one in found)


def _form(around: bytes, at: int) -> bool:
    """Tell whether this is a form: blanks are ``+`` and slashes are escaped, unlike in base64."""
    near = around[max(0, at - _FORM_BYTES) : at + _FORM_BYTES // 2]
    return b"/" not in near and b" " not in near and _holds_value(escapes.form_decoded(around))


def _quoted_printable(around: bytes, at: int) -> bool:
    """Tell whether every ``=`` is one of quoted-printable: else it is code, or a list of hashes."""
    if _ends_base64(around[: max(0, at - 1)].rstrip(b"\r\n")) or around[at - 1 : at + 1] == b"--":
        return False
    near = around[max(0, at - _QUOTED_BYTES) :]  # not the head of a part, which has a name=
    if b'="' in near or b"= " in near or _BARE_EQUALS.search(near) is not None:
        return False
    return _holds_value(escapes.quoted_printable_decoded(around))


def _ends_base64(line: bytes) -> bool:
    """Tell whether a line ends in the padding of base64, as those of certificates and lists do.

    A token that goes on in the next line would have shown so many of its letters in this one.
    """
    run = line[:-1]
    size = len(run) - len(run.rstrip(_BASE64_LETTERS))
    return line[-1:] == b"=" and size >= _BASE64_BYTES and (size % 4 == 3 or size == len(run))


def _always(_around: bytes, _at: int) -> bool:
    return True


def _unspaced_token(around: bytes, _: int) -> bool:
    return bool(letters.unspaced(around))


def _look_alike(around: bytes, _: int) -> bool:
    return letters.is_text(around) and _holds_value(letters.skeleton(around))


_ALL = (
    View(
        name="base64",
        show=radix.base64_texts,
        fits=_digits_of(radix.base64_texts),
        back_bytes=1_000,
        ahead_bytes=2_600,
    ),
    View(
        name="base32",
        show=radix.base32_texts,
        fits=_digits_of(radix.base32_texts),
        back_bytes=800,
        ahead_bytes=2_000,
    ),
    View(name="hex", show=radix.hex_texts, fits=_digits_of(radix.hex_texts), near_bytes=96),
    View(
        name="ascii85",
        show=radix.ascii85_texts,
        show_at=radix.ascii85_text,
        fits=_digits_at(radix.ascii85_text),
        back_bytes=200,
        ahead_bytes=500,
    ),
    View(
        name="base85",
        show=radix.base85_texts,
        show_at=radix.base85_text,
        fits=_digits_at(radix.base85_text),
        back_bytes=200,
        ahead_bytes=500,
    ),
    View(
        name="z85",
        show=radix.z85_texts,
        show_at=radix.z85_text,
        fits=_digits_at(radix.z85_text),
        back_bytes=200,
        ahead_bytes=500,
    ),
    View(
        name="percent",
        show=escapes.percent_decoded,
        fits=_value_in(escapes.percent_decoded),
        near_bytes=128,
        back_bytes=800,
    ),
    View(
        name="form",
        show=escapes.form_decoded,
        fits=_form,
        near_bytes=128,
        back_bytes=400,
        ahead_bytes=1_600,
    ),
    View(
        name="escapes",
        show=escapes.unescaped,
        fits=_escaped,
        near_bytes=128,
        back_bytes=800,
        ahead_bytes=3_000,
    ),
    View(
        name="entities",
        show=escapes.entities_decoded,
        fits=_value_in(escapes.entities_decoded),
        near_bytes=160,
    ),
    View(
        name="quoted-printable",
        show=escapes.quoted_printable_decoded,
        fits=_quoted_printable,
        near_bytes=128,
    ),
    View(
        name="joined",
        show=escapes.strings_joined,
        fits=_value_in(escapes.strings_joined),
        mends=True,
        back_bytes=400,
        ahead_bytes=1_400,
    ),
    View(
        name="fields",
        show=escapes.fields_joined,
        fits=_value_in(escapes.fields_joined),
        near_bytes=128,
        mends=True,
    ),
    View(
        name="events",
        show=events.events_joined,
        fits=events.are_events,
        near_bytes=512,
        mends=True,
        ahead_bytes=6_144,
    ),
    View(name="utf-16", show=letters.narrow, fits=_value_in(letters.narrow)),
    View(
        name="reversed",
        show=letters.turned_round,
        fits=_token_in_text,
        back_bytes=1_200,
        ahead_bytes=1_200,
    ),
    View(
        name="rot13", show=letters.rot13, fits=_token_in_text, back_bytes=1_200, ahead_bytes=1_200
    ),
    View(
        name="spaced",
        show=letters.unspaced,
        fits=_unspaced_token,
        mends=True,
        back_bytes=400,
        ahead_bytes=1_600,
    ),
    View(
        name="numbers",
        show=letters.from_numbers,
        fits=_value_in(letters.from_numbers),
        near_bytes=128,
        back_bytes=64,
        ahead_bytes=1_200,
    ),
    View(
        name="signs",
        show=letters.from_signs,
        fits=_value_in(letters.from_signs),
        near_bytes=128,
        back_bytes=400,
        ahead_bytes=1_200,
    ),
    View(
        name="message",
        show=escapes.fields_parted,
        fits=_value_in(escapes.fields_parted),
        back_bytes=64,
        ahead_bytes=1_200,
    ),
    View(name="lines", show=letters.unwrapped, fits=_value_in(letters.unwrapped), mends=True),
    View(name="marked-up", show=escapes.unmarked, fits=_value_in(escapes.unmarked), mends=True),
    View(
        name="look-alikes",
        show=letters.skeleton,
        fits=_look_alike,
        near_bytes=128,
        back_bytes=400,
        ahead_bytes=2_000,
    ),
)
BROKEN_VIEW = View(name=BROKEN, show=bytes, fits=_always, back_bytes=64, ahead_bytes=1_200)
VIEWS = {view.name: view for view in (*_ALL, BROKEN_VIEW)}

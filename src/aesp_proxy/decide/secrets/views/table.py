"""The views by name: what each shows of a region, and how far around a gate it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.views import escapes, letters, radix
from aesp_proxy.decide.secrets.views.forms import BROKEN

BACK_BYTES = 2_048
AHEAD_BYTES = 4_096
FITS_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way of reading a region.

    ``show`` never fails; ``show_at`` does less where it is known that a digit or group of
    the value ends at an offset. A view is only opened where the ``FITS_BYTES`` on both
    sides of that offset fit. The region reaches ``back_bytes`` before it and
    ``ahead_bytes`` behind. A view that ``mends`` puts together what stands apart: what it
    shows is only believed where it does not look like words.
    """

    name: str
    show: Callable[[bytes], bytes]
    show_at: Callable[[bytes, int], bytes] | None = None
    fits: Callable[[bytes], bool] | None = None
    mends: bool = False
    back_bytes: int = BACK_BYTES
    ahead_bytes: int = AHEAD_BYTES


def interruptions(text: bytes, at: int) -> tuple[str, ...]:
    """Return the views that may mend a literal which ends at ``at`` of ``text``.

    What stands before it or behind its token must look like one of the joints that the
    views undo; else nothing is interrupted and no view is opened.
    """
    match = _JOINTS.match(text, at)
    names: tuple[str, ...] = ()
    if match is not None:
        end = match.end()
        names = _AFTER.get(text[end - 1 : end], ())
        if end - at > _PIECE_BYTES_MIN:
            names += _AFTER_PIECE.get(text[end - 1 : end], ())
    before = text[max(0, at - _BEFORE_BYTES) : at]
    for mark, name, escape in _BEFORE:
        if mark in before and escape.search(before) is not None:
            names += (name,)
    return names


_BEFORE_BYTES = 16
_JOINTS = compile_re2(rb"[A-Za-z0-9_.+/-]{0,160}[^A-Za-z0-9_.+/-]")
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
_PIECE_BYTES_MIN = 8
"""So much of a token must stand before the end of a line that it may go on in the next."""
_AFTER_PIECE = {b"\\": ("lines",), b"\n": ("lines",), b"\r": ("lines",)}
_BEFORE = (
    (b"\\", "escapes", compile_re2(rb"\\(?:[a-z]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}).{3,8}\z")),
    (b"%", "percent", compile_re2(rb"%[0-9a-fA-F]{2}.{3,8}\z")),
    (b"=", "quoted-printable", compile_re2(rb"=(?:[0-9A-F]{2}|\r?\n).{3,8}\z")),
)


def _has(expression: bytes) -> Callable[[bytes], bool]:
    pattern = compile_re2(expression)
    return lambda around: pattern.search(around) is not None


_HAS_TOKEN = _has(rb"[A-Za-z0-9_.-]{14}")


def _token_in_text(around: bytes) -> bool:
    """Tell whether a token stands in text; names in programs are turned round by chance."""
    return letters.is_text(around) and _HAS_TOKEN(around)


_ALL = (
    View(
        name="base64",
        show=radix.base64_texts,
        fits=_has(rb"[A-Za-z0-9+/_-]{14}"),
        back_bytes=1_000,
        ahead_bytes=2_600,
    ),
    View(
        name="base32",
        show=radix.base32_texts,
        fits=_has(b"[A-Z2-7]{14}|[a-z2-7]{14}"),
        back_bytes=800,
        ahead_bytes=2_000,
    ),
    View(name="hex", show=radix.hex_texts),
    View(
        name="ascii85",
        show=radix.ascii85_texts,
        show_at=radix.ascii85_text,
        back_bytes=200,
        ahead_bytes=500,
    ),
    View(
        name="base85",
        show=radix.base85_texts,
        show_at=radix.base85_text,
        back_bytes=200,
        ahead_bytes=500,
    ),
    View(
        name="z85",
        show=radix.z85_texts,
        show_at=radix.z85_text,
        back_bytes=200,
        ahead_bytes=500,
    ),
    View(name="percent", show=escapes.percent_decoded),
    View(name="escapes", show=escapes.unescaped, back_bytes=800, ahead_bytes=3_000),
    View(name="entities", show=escapes.entities_decoded),
    View(name="quoted-printable", show=escapes.quoted_printable_decoded),
    View(name="joined", show=escapes.strings_joined, mends=True, back_bytes=400, ahead_bytes=1_400),
    View(name="fields", show=escapes.fields_joined, mends=True),
    View(name="utf-16", show=letters.narrow),
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
    View(name="spaced", show=letters.unspaced, mends=True, back_bytes=400, ahead_bytes=1_600),
    View(name="message", show=escapes.fields_parted, back_bytes=64, ahead_bytes=1_200),
    View(name="lines", show=letters.unwrapped, mends=True),
    View(name="marked-up", show=escapes.unmarked, mends=True),
    View(
        name="look-alikes",
        show=letters.skeleton,
        fits=letters.is_text,
        back_bytes=400,
        ahead_bytes=2_000,
    ),
)
BROKEN_VIEW = View(name=BROKEN, show=bytes, back_bytes=64, ahead_bytes=1_200)
VIEWS = {view.name: view for view in (*_ALL, BROKEN_VIEW)}

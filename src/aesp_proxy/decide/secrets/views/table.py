"""The views by name: what each shows of a region, and how far around a gate it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.views import escapes, letters, radix
from aesp_proxy.decide.secrets.views.forms import BROKEN

BACK_BYTES = 2_048
AHEAD_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way of reading a region.

    ``show`` never fails. The region reaches ``back_bytes`` before the end of what opened
    it and ``ahead_bytes`` behind. A view that ``mends`` puts together what stands apart:
    what it shows is only believed where it does not look like words.
    """

    name: str
    show: Callable[[bytes], bytes]
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
    before = text[max(0, at - 2 * _LITERAL_BYTES) : at]
    return names + tuple(name for mark, name in _BEFORE if mark in before)


_LITERAL_BYTES = 8
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
_AFTER_PIECE = {b"\\": ("spaced",), b"\n": ("spaced",), b"\r": ("spaced",)}
_BEFORE = ((b"\\", "escapes"), (b"%", "percent"), (b"=", "quoted-printable"))

_ALL = (
    View(name="base64", show=radix.base64_texts),
    View(name="base32", show=radix.base32_texts),
    View(name="hex", show=radix.hex_texts),
    View(name="base85", show=radix.base85_texts, back_bytes=400, ahead_bytes=800),
    View(name="percent", show=escapes.percent_decoded),
    View(name="escapes", show=escapes.unescaped),
    View(name="entities", show=escapes.entities_decoded),
    View(name="quoted-printable", show=escapes.quoted_printable_decoded),
    View(name="joined", show=escapes.strings_joined, mends=True),
    View(name="fields", show=escapes.fields_joined, mends=True),
    View(name="utf-16", show=letters.narrow),
    View(name="reversed", show=letters.turned_round, back_bytes=1_200, ahead_bytes=1_200),
    View(name="rot13", show=letters.rot13, back_bytes=1_200, ahead_bytes=1_200),
    View(name="spaced", show=letters.unspaced, mends=True),
    View(name="message", show=escapes.fields_parted, back_bytes=64, ahead_bytes=1_200),
    View(name="marked-up", show=escapes.unmarked, mends=True),
    View(name="look-alikes", show=letters.skeleton, back_bytes=400, ahead_bytes=2_000),
)
BROKEN_VIEW = View(name=BROKEN, show=bytes, back_bytes=64, ahead_bytes=1_600)
VIEWS = {view.name: view for view in (*_ALL, BROKEN_VIEW)}

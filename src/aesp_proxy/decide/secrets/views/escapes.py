r"""Undo what formats do to text: percent, JSON and C escapes, entities, joined strings.

Rules:

- One step is undone at a time; what is written twice is seen through twice.
- Nothing here fails on any input: what is no escape stays as it is.
- Time is linear in the region. RE2 does the searching.
"""

from __future__ import annotations

import binascii

from aesp_proxy.decide.secrets.reference import Pattern, compile_re2

_HEX = {b"%02x" % value: bytes((value,)) for value in range(256)}
_HEX |= (
    {key.upper(): value for key, value in _HEX.items()}
    | {key[:1] + key[1:].upper(): value for key, value in _HEX.items()}
    | {key[:1].upper() + key[1:]: value for key, value in _HEX.items()}
)
_SIMPLE = {
    b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"a": b"\a",
    b"/": b"/", b'"': b'"', b"'": b"'", b"`": b"`", b"\n": b"",
}  # fmt: skip
_NAMED = {
    b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'", b"nbsp": b" ",
    b"lowbar": b"_", b"hyphen": b"-", b"dash": b"-", b"period": b".", b"colon": b":",
    b"sol": b"/", b"plus": b"+", b"equals": b"=", b"num": b"#", b"percnt": b"%",
    b"commat": b"@", b"dollar": b"$", b"shy": b"", b"zwnj": b"", b"zwj": b"", b"newline": b"\n",
    b"tab": b"\t",
}  # fmt: skip
_ENTITY_CHARS_MAX = 10


def percent_decoded(text: bytes) -> bytes:
    """Return ``text`` with each valid ``%HH`` as its byte, decoded once (RFC 3986 section 2.1)."""
    first, *rest = text.split(b"%")
    decoded = [first]
    for part in rest:
        byte = _HEX.get(part[:2])
        decoded.append(b"%" + part if byte is None else byte + part[2:])
    return b"".join(decoded)


def form_decoded(text: bytes) -> bytes:
    """Return ``text`` as a form has it (URL Standard, application/x-www-form-urlencoded)."""
    return percent_decoded(text.replace(b"+", b" "))


_UNCOMMON = compile_re2(
    rb"""\x00|\\(?:x|[0-7]|U|[abefv'`\n]|u(?:\{|00|0[34]|20[026]|28|[fF]|d835|D835|[dD][bB]40))"""
)
_COMMON = (
    (rb"\\", b"\0"), (rb"\"", b'"'), (rb"\n", b"\n"), (rb"\t", b"\t"), (rb"\r", b"\r"),
    (rb"\/", b"/"), (b"\0", b"\\"),
)  # fmt: skip
"""What nearly all escapes are, each undone in one call; NUL stands for a backslash meanwhile."""


def unescaped(text: bytes) -> bytes:
    r"""Return ``text`` with JSON's, JavaScript's and C's escapes undone once.

    ``\n``, ``\"``, ``\/``, ``\\``, ``\uHHHH`` and ``\u{H}`` (surrogates joined), ``\xHH``,
    ``\NNN`` in octal. A character above U+00FF becomes UTF-8.
    """
    if _UNCOMMON.search(text) is None:
        for escape, plain in _COMMON:
            text = text.replace(escape, plain)
        return text
    out: list[bytes] = []
    pieces = text.split(b"\\")
    out.append(pieces[0])
    at = 1
    high = 0
    while at < len(pieces):
        piece = pieces[at]
        at += 1
        if not piece:
            # Two backslashes are one, and the piece behind them is plain.
            out.append(b"\\" + (pieces[at] if at < len(pieces) else b""))
            at += 1
            continue
        value, used = _escape(piece)
        if value is None:
            out.append(b"\\" + piece)
        elif isinstance(value, bytes):
            out.append(value + piece[used:])
        elif 0xD800 <= value < 0xDC00 and used == len(piece):
            high = value
            continue
        else:
            if high and 0xDC00 <= value < 0xE000:
                value = 0x10000 + ((high - 0xD800) << 10) + (value - 0xDC00)
            out.append(_character(value) + piece[used:])
        high = 0
    return b"".join(out)


def _escape(piece: bytes) -> tuple[bytes | int | None, int]:
    """Read what stands behind a backslash: bytes or a code point, and how long it is written."""
    kind = piece[:1]
    if kind in (b"u", b"U"):
        if piece[1:2] == b"{":
            end = piece.find(b"}", 2, 10)
            return (_number(piece[2:end]), end + 1) if end > 0 else (None, 0)
        size = 5 if kind == b"u" else 9
        return _number(piece[1:size], size - 1), size
    if kind == b"x":
        return _HEX.get(piece[1:3]), 3
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple, 1
    if kind in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"):
        length = next((n for n in (1, 2) if piece[n : n + 1] not in _OCTAL), 3)
        return bytes((int(piece[:length], 8) & 0xFF,)), length
    return None, 0


_OCTAL = frozenset((b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"))


def _number(digits: bytes, length: int = 0) -> int | None:
    if not digits or (length and len(digits) != length) or digits.strip(b"0123456789abcdefABCDEF"):
        return None
    value = int(digits, 16)
    return value if value <= 0x10FFFF else None


def _character(point: int) -> bytes:
    if point < 0x100:
        return bytes((point,))
    return b"?" if 0xD800 <= point < 0xE000 else chr(point).encode()


def entities_decoded(text: bytes) -> bytes:
    """Return ``text`` with HTML's character references undone once, numeric and some named."""
    first, *rest = text.split(b"&")
    decoded = [first]
    for part in rest:
        value, used = _entity(part)
        decoded.append(b"&" + part if value is None else value + part[used:])
    return b"".join(decoded)


def _entity(part: bytes) -> tuple[bytes | None, int]:
    if part[:1] != b"#":
        end = part.find(b";", 0, _ENTITY_CHARS_MAX)
        named = _NAMED.get(part[:end].lower()) if end > 0 else None
        return named, end + 1
    is_hex = part[1:2] in (b"x", b"X")
    start = 2 if is_hex else 1
    body = part[start : start + _ENTITY_CHARS_MAX]
    digits = body[: len(body) - len(body.lstrip(_HEX_DIGITS if is_hex else _DECIMALS))]
    if not digits:
        return None, 0
    value = int(digits, 16 if is_hex else 10)
    used = start + len(digits)
    used += part[used : used + 1] == b";"
    return (_character(value), used) if value <= 0x10FFFF else (None, 0)


_HEX_DIGITS = b"0123456789abcdefABCDEF"
_DECIMALS = b"0123456789"


def quoted_printable_decoded(text: bytes) -> bytes:
    """Return ``text`` with quoted-printable undone (RFC 2045 section 6.7)."""
    return binascii.a2b_qp(text)


_JOINT = compile_re2(
    rb"""[A-Za-z0-9_+/=.-]\\{0,7}["'`][ \t]*(?:\\{0,3}[\\rnt]|[\r\n \t])*"""
    rb"""(?:\+|\.\.?|&|\|\||<>|,)?"""
    rb"""(?:\\{1,3}[rnt]|\\?[\r\n \t])*[fFbBrRuU]?\\{0,7}["'`][A-Za-z0-9_+/=.-]"""
)
_FIELDS = compile_re2(
    rb"""[^\s]\\{0,7}"[ \t\r\n]*[,}\]][^"]{0,8}\\{0,7}"[^"\\]{0,80}"""
    rb"""\\{0,7}"[ \t]*:[ \t\r\n\[{]*\\{0,7}"?."""
    rb"""|."?[&;?] ?[A-Za-z0-9_.*%\[\]-]{1,80}="?.|.\r?\n[A-Za-z0-9_-]{1,80}:[ \t]?."""
    rb"""|.\r?\n--[^\r\n]{1,70}\r?\n(?:[A-Za-z-]{1,40}:[^\r\n]{0,200}\r?\n){1,4}\r?\n."""
)
_MARKUP = compile_re2(rb"[^\s](?:<[^<>]{0,200}>\s{0,8})*<[^<>]{0,200}>[^\s<]")
_DRAWN = compile_re2(
    rb"[A-Za-z0-9_+/=.-]\)[ \t\r\n]{0,3}-?[0-9.]{0,8}[ \t\r\n]{0,3}\([A-Za-z0-9_+/=.-]"
)
_PART = compile_re2(rb"[\x0a\x12\x1a\x22\x2a\x32\x3a\x42\x4a\x52][0-9A-Za-z]")


def strings_joined(text: bytes) -> bytes:
    """Return ``text`` with strings that follow each other as one: ``"a" + "b"``, ``"a", "b"``.

    Those of a page of a PDF, too: ``[(a) -12 (b)] TJ``.
    """
    return _closed(_DRAWN, _closed(_JOINT, text))


def fields_joined(text: bytes) -> bytes:
    """Return ``text`` with the values of fields that follow each other as one.

    Members of a JSON object, parameters of a form, of a field or a cookie, lines of a head,
    parts of a multipart body, segments of a path.
    """
    return _closed(_FIELDS, text).translate(None, b"\r\n/")


def unmarked(text: bytes) -> bytes:
    """Return ``text`` without HTML and XML tags."""
    return _closed(_MARKUP, text)


def fields_parted(text: bytes) -> bytes:
    """Return the short strings among the fields of a protobuf message, one a line.

    Their length is a letter or digit, and would belong to the word behind it.
    """
    parts = []
    match = _PART.search(text)
    while match is not None:
        at = match.end()
        parts.append(text[at : at + text[at - 1]])
        match = _PART.search(text, at - 1)
    return b"\n".join(parts)


def _closed(joint: Pattern, text: bytes) -> bytes:
    """Return ``text`` without what ``joint`` matches between its first and its last byte."""
    parts = []
    last = 0
    match = joint.search(text)
    while match is not None:
        start, end = match.span()
        parts.append(text[last : start + 1])
        last = end - 1
        match = joint.search(text, last)
    parts.append(text[last:])
    return b"".join(parts)

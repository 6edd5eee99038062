"""Literals of CEL to values: integers in 64 bits, strings with their escapes.

Source: google/cel-spec ``doc/langdef.md``, section "String and Bytes Values".
"""

from __future__ import annotations

from typing import Final

from aesp_proxy.decide.policy.cel.errors import ExpressionError
from aesp_proxy.decide.policy.cel.nodes import Literal, Place

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
UINT_MAX: Final = 2**64 - 1
_DIGITS_MAX: Final = 64
_SIMPLE: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_COUNTED: Final = {"x": 2, "X": 2, "u": 4, "U": 8}
_OCTAL_DIGITS: Final = 3


def literal(token: str, text: str, place: Place) -> Literal:
    """Make the literal of a token of cel-python's grammar; raises ``ExpressionError``."""
    match token:
        case "INT_LIT":
            return Literal(kind="int", value=_int(text, INT_MIN, INT_MAX, place), place=place)
        case "UINT_LIT":
            return Literal(kind="uint", value=_int(text[:-1], 0, UINT_MAX, place), place=place)
        case "FLOAT_LIT":
            return Literal(kind="double", value=_double(text, place), place=place)
        case "STRING_LIT" | "MLSTRING_LIT":
            return Literal(kind="string", value=_string(text, place, as_bytes=False), place=place)
        case "BYTES_LIT":
            value = _string(text[1:], place, as_bytes=True)
            return Literal(kind="bytes", value=value.encode("latin-1"), place=place)
        case "BOOL_LIT":
            return Literal(kind="bool", value=text == "true", place=place)
        case "NULL_LIT":
            return Literal(kind="null", value=None, place=place)
        case _:
            raise _refused(place, "a literal that conditions do not have")


def _int(text: str, least: int, most: int, place: Place) -> int:
    if len(text) > _DIGITS_MAX:
        raise _refused(place, "a number that does not fit 64 bits")
    negative, digits = text.startswith("-"), text.lstrip("-")
    value = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits)
    value = -value if negative else value
    if not least <= value <= most:
        raise _refused(place, "a number that does not fit 64 bits")
    return value


def _double(text: str, place: Place) -> float:
    value = float(text[:1_000])
    if value in (float("inf"), float("-inf")) or len(text) > 1_000:
        raise _refused(place, "a number that a double cannot hold")
    return value


def _string(text: str, place: Place, *, as_bytes: bool) -> str:
    """Decode a quoted token; of bytes, the text holds one character a byte."""
    raw = text[:1] in "rR"
    body = text[2:-1] if raw else text[1:-1]
    if raw or "\\" not in body:
        return _utf8_as_latin1(body) if as_bytes else body
    decoded, at = [], 0
    while at < len(body):
        character = body[at]
        if character != "\\":
            decoded.append(_utf8_as_latin1(character) if as_bytes else character)
            at += 1
            continue
        value, at = _escape(body, at + 1, place, as_bytes=as_bytes)
        decoded.append(value)
    return "".join(decoded)


def _escape(body: str, at: int, place: Place, *, as_bytes: bool) -> tuple[str, int]:
    character = body[at]
    if character in _SIMPLE:
        return _SIMPLE[character], at + 1
    if character in _COUNTED and not (as_bytes and character in "uU"):
        count = _COUNTED[character]
        digits, base, at = body[at + 1 : at + 1 + count], 16, at + 1
    elif character in "0123":
        count, digits, base = _OCTAL_DIGITS, body[at : at + _OCTAL_DIGITS], 8
    else:
        raise _refused(place, f"the escape \\{character} does not exist")
    good = len(digits) == count and digits.isalnum() and digits.isascii()
    try:
        code = int(digits, base) if good else -1
    except ValueError:
        code = -1
    surrogate = 0xD800 <= code <= 0xDFFF
    if code < 0 or surrogate or code > 0x10FFFF:
        raise _refused(place, f"the escape \\{character} does not name a character")
    return chr(code), at + count


def _utf8_as_latin1(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


def _refused(place: Place, why: str) -> ExpressionError:
    return ExpressionError(why, line=place.line, column=place.column)

"""Conversions between types, and operations on values whose type is known when evaluated.

A ``dyn`` value is what JSON holds. Total or raising ``EvaluationError``.
"""

from __future__ import annotations

from typing import Final

from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.literals import INT_MAX, INT_MIN, UINT_MAX

_DIGITS_MAX: Final = 40
_TRUE: Final = frozenset({"1", "t", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "false", "FALSE", "False"})
_NUMBER: Final = frozenset("0123456789+-.eE")


def to_int(value: int) -> int:
    """Hold a whole number to 64 bits."""
    if not INT_MIN <= value <= INT_MAX:
        raise EvaluationError("a number that an int cannot hold")
    return value


def to_uint(value: int) -> int:
    """Hold a whole number to 64 bits without a sign."""
    if not 0 <= value <= UINT_MAX:
        raise EvaluationError("a number that a uint cannot hold")
    return value


def int_of_double(value: float) -> int:
    """Truncate towards zero; the ends of the range are outside, as no double is next to them."""
    if not -(2.0**63) < value < 2.0**63:
        raise EvaluationError("a number that an int cannot hold")
    return int(value)


def uint_of_double(value: float) -> int:
    """Truncate towards zero; what is under zero by any fraction is outside."""
    if not 0 <= value < 2.0**64:
        raise EvaluationError("a number that a uint cannot hold")
    return int(value)


def int_of_text(text: str) -> int:
    """Read decimal digits with a sign."""
    return to_int(_decimal(text, signed=True))


def uint_of_text(text: str) -> int:
    """Read decimal digits."""
    return to_uint(_decimal(text, signed=False))


def _decimal(text: str, *, signed: bool) -> int:
    digits = text[1:] if signed and text[:1] in ("-", "+") else text
    if not digits or len(digits) > _DIGITS_MAX or not (digits.isascii() and digits.isdigit()):
        raise EvaluationError("a text that is no whole number")
    return int(text)


def double_of_text(text: str) -> float:
    """Read a decimal number, or ``inf``, ``-inf``, ``nan`` in any case."""
    plain = text.lower().lstrip("+-")
    named = plain in ("inf", "infinity", "nan") and len(text) - len(plain) <= 1
    if not named and (not text or len(text) > 400 or not _NUMBER.issuperset(text)):
        raise EvaluationError("a text that is no number")
    try:
        return float(text)
    except ValueError:
        raise EvaluationError("a text that is no number") from None


def bool_of_text(text: str) -> bool:
    """Read a truth value, in the spellings that CEL takes."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise EvaluationError("a text that is no bool")


def text_of_double(value: float) -> str:
    """Write the shortest text that reads back."""
    if value != value:  # noqa: PLR0124 - how a NaN is told
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    text = repr(value)
    return text.removesuffix(".0")


def text_of_bytes(value: bytes) -> str:
    """Decode UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise EvaluationError("bytes that are not UTF-8") from None


def bytes_of_text(text: str) -> bytes:
    """Encode UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise EvaluationError("a text that UTF-8 cannot hold") from None


# values known when evaluated --------------------------------------------------------------


def as_bool(value: object) -> bool:
    """Hold a value to its type."""
    if isinstance(value, bool):
        return value
    raise EvaluationError("a value that is no bool")


def as_int(value: object) -> int:
    """Hold a value to its type and to 64 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and INT_MIN <= value <= INT_MAX:
        return value
    raise EvaluationError("a value that is no int")


def as_double(value: object) -> float:
    """Hold a value to its type."""
    if isinstance(value, float):
        return value
    raise EvaluationError("a value that is no double")


def as_string(value: object) -> str:
    """Hold a value to its type."""
    if isinstance(value, str):
        return value
    raise EvaluationError("a value that is no string")


def as_items(value: object) -> list[object]:
    """Return what a loop runs over: the items of a list, the keys of a map."""
    if isinstance(value, list | tuple | dict):
        return list(value)
    raise EvaluationError("a value that is neither list nor map")


def dyn_size(value: object) -> int:
    """Return the size of a text, list or map."""
    if isinstance(value, str | list | tuple | dict):
        return len(value)
    raise EvaluationError("a value that has no size")


def dyn_field(value: object, name: str) -> object:
    """Return a field of a map."""
    if isinstance(value, dict) and name in value:
        return value[name]
    raise EvaluationError("a field that is not there")


def dyn_has(value: object, name: str) -> bool:
    """Tell whether a map has a field."""
    if isinstance(value, dict):
        return name in value
    raise EvaluationError("a value that has no fields")


def dyn_item(value: object, index: object) -> object:
    """Return an item of a list by its place, a value of a map by its key."""
    if isinstance(value, dict):
        if isinstance(index, str) and index in value:
            return value[index]
    elif isinstance(value, list | tuple):
        whole = isinstance(index, int) and not isinstance(index, bool)
        if whole and isinstance(index, int) and 0 <= index < len(value):
            return value[index]
    raise EvaluationError("nothing stands at this place")


def dyn_in(value: object, items: object) -> bool:
    """Tell whether a list holds a value or a map a key."""
    if isinstance(items, dict):
        return isinstance(value, str) and value in items
    if isinstance(items, list | tuple):
        return any(equal(value, item) for item in items)
    raise EvaluationError("a value that is neither list nor map")


def equal(a: object, b: object) -> bool:
    """Compare any two values: numbers by value, everything else only within its type."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


_ORDER: Final = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def dyn_order(sign: str, a: object, b: object) -> bool:
    """Order two numbers, two texts or two bools."""
    for kind in (bool, str):
        if isinstance(a, kind) and isinstance(b, kind):
            return bool(_ORDER[sign](a, b))
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    if not numbers:
        raise EvaluationError("two values that have no order")
    return bool(_ORDER[sign](a, b))


def dyn_int(value: object) -> int:
    """Convert a number or a text."""
    if isinstance(value, str):
        return int_of_text(value)
    if isinstance(value, float):
        return int_of_double(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return to_int(value)
    raise EvaluationError("a value that an int cannot be made of")


def dyn_double(value: object) -> float:
    """Convert a number or a text."""
    if isinstance(value, str):
        return double_of_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise EvaluationError("a number that a double cannot hold") from None
    raise EvaluationError("a value that a double cannot be made of")


def dyn_string(value: object) -> str:
    """Convert a number, a bool or a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(as_int(value))
    if isinstance(value, float):
        return text_of_double(value)
    raise EvaluationError("a value that a string cannot be made of")

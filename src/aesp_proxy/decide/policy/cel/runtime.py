"""What compiled conditions call: the operations that Python does not have as CEL does.

Total or raising ``EvaluationError``, nothing else; no text of an error holds a value.
Integers are 64 bits, overflow is an error; division truncates towards zero. Timestamps and
durations are int nanoseconds; timestamps lie in the years 0001 to 9999.
Source: google/cel-spec ``doc/langdef.md``, section "List of Standard Definitions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.literals import INT_MAX, INT_MIN, UINT_MAX

STEPS_MAX: Final = 20_000
"""Steps that one evaluation may take in loops."""

TEXT_MAX: Final = 262_144
"""Characters or bytes that a text made in an evaluation may have."""

_STEP_CHARS: Final = 64
_LUHN_DIGITS_MAX: Final = 64
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}

Steps = list[int]
"""What is left of the steps, one number, counted down by the loops of one evaluation."""


def fail(why: str) -> NoReturn:
    """Raise, where an expression stands."""
    raise EvaluationError(why)


def absent(fact: str) -> NoReturn:
    """Raise for a fact that is not known."""
    raise EvaluationError(f"{fact} is not known")


# logic ----------------------------------------------------------------------------------


def every(*parts: Callable[[], object]) -> bool:
    """``&&``: false wins over an error, an error over true."""
    error: EvaluationError | None = None
    for part in parts:
        try:
            if not part():
                return False
        except EvaluationError as failure:
            error = error or failure
    if error is not None:
        raise error
    return True


def some(*parts: Callable[[], object]) -> bool:
    """``||``: true wins over an error, an error over false."""
    error: EvaluationError | None = None
    for part in parts:
        try:
            if part():
                return True
        except EvaluationError as failure:
            error = error or failure
    if error is not None:
        raise error
    return False


# loops ----------------------------------------------------------------------------------


def _spend(steps: Steps, count: int) -> None:
    steps[0] -= count
    if steps[0] < 0:
        raise EvaluationError("more steps than an evaluation may take")


def loop_all(items: Iterable[object], body: Callable[[object], object], steps: Steps) -> bool:
    """``all``: as ``&&`` over the items."""
    error: EvaluationError | None = None
    for item in items:
        _spend(steps, 1)
        try:
            if not body(item):
                return False
        except EvaluationError as failure:
            error = error or failure
    if error is not None:
        raise error
    return True


def loop_exists(items: Iterable[object], body: Callable[[object], object], steps: Steps) -> bool:
    """``exists``: as ``||`` over the items."""
    error: EvaluationError | None = None
    for item in items:
        _spend(steps, 1)
        try:
            if body(item):
                return True
        except EvaluationError as failure:
            error = error or failure
    if error is not None:
        raise error
    return False


def loop_one(items: Iterable[object], body: Callable[[object], object], steps: Steps) -> bool:
    """``exists_one``: exactly one item; an error of any is an error."""
    count = 0
    for item in items:
        _spend(steps, 1)
        count += bool(body(item))
    return count == 1


def loop_filter(
    items: Iterable[object], body: Callable[[object], object], steps: Steps
) -> list[object]:
    """``filter``."""
    kept = []
    for item in items:
        _spend(steps, 1)
        if body(item):
            kept.append(item)
    return kept


def loop_map(
    items: Iterable[object],
    wanted: Callable[[object], object] | None,
    body: Callable[[object], object],
    steps: Steps,
) -> list[object]:
    """``map``, with or without a condition; long texts cost steps by their length."""
    made = []
    for item in items:
        _spend(steps, 1)
        if wanted is None or wanted(item):
            value = body(item)
            if isinstance(value, str | bytes | list | tuple):
                _spend(steps, len(value) // _STEP_CHARS)
            made.append(value)
    return made


# integers and doubles -------------------------------------------------------------------


def _int(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise EvaluationError("an integer over 64 bits")
    return value


def _uint(value: int) -> int:
    if not 0 <= value <= UINT_MAX:
        raise EvaluationError("an unsigned integer over 64 bits or under zero")
    return value


def add_int(a: int, b: int) -> int:
    """Add."""
    return _int(a + b)


def add_uint(a: int, b: int) -> int:
    """Add."""
    return _uint(a + b)


def subtract_int(a: int, b: int) -> int:
    """Subtract."""
    return _int(a - b)


def subtract_uint(a: int, b: int) -> int:
    """Subtract."""
    return _uint(a - b)


def multiply_int(a: int, b: int) -> int:
    """Multiply."""
    return _int(a * b)


def multiply_uint(a: int, b: int) -> int:
    """Multiply."""
    return _uint(a * b)


def divide_int(a: int, b: int) -> int:
    """Divide, truncating towards zero."""
    if b == 0:
        raise EvaluationError("a division by zero")
    return _int(whole(a, b))


def divide_uint(a: int, b: int) -> int:
    """Divide."""
    if b == 0:
        raise EvaluationError("a division by zero")
    return a // b


def divide_double(a: float, b: float) -> float:
    """Divide as IEEE 754 does: by zero it is an infinity or no number."""
    if b != 0:
        return a / b
    if a == 0 or a != a:  # noqa: PLR0124 - how a NaN is told
        return float("nan")
    negative = (a < 0) != (str(b) == "-0.0")
    return float("-inf") if negative else float("inf")


def remainder_int(a: int, b: int) -> int:
    """Return the remainder, with the sign of the dividend; no value where there is no quotient."""
    return a - b * divide_int(a, b)


def remainder_uint(a: int, b: int) -> int:
    """Return the remainder."""
    if b == 0:
        raise EvaluationError("a division by zero")
    return a % b


def negate_int(a: int) -> int:
    """Negate."""
    return _int(-a)


def whole(a: int, b: int) -> int:
    """Divide towards zero; ``b`` is not zero."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


# texts, lists, maps ---------------------------------------------------------------------


def concat[T: (str, bytes)](a: T, b: T) -> T:
    """Join two texts; the result is bounded."""
    if len(a) + len(b) > TEXT_MAX:
        raise EvaluationError("a text over the limit")
    return a + b


def concat_lists(a: Iterable[object], b: Iterable[object], steps: Steps) -> list[object]:
    """Join two lists; each item is a step."""
    joined = [*a, *b]
    _spend(steps, len(joined))
    return joined


def lower_ascii(text: str) -> str:
    """Lower the letters A to Z."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def upper_ascii(text: str) -> str:
    """Raise the letters a to z."""
    return text.upper() if text.isascii() else text.translate(_UPPER)


def item_at(items: list[object] | tuple[object, ...], index: int) -> object:
    """Return an item of a list; outside it, and below zero, there is none."""
    if not 0 <= index < len(items):
        raise EvaluationError("no item at this place of a list")
    return items[index]


def value_of(mapping: dict[object, object], key: object) -> object:
    """Return a value of a map."""
    try:
        return mapping[key]
    except KeyError:
        raise EvaluationError("no such key in a map") from None


def map_of_pairs(*pairs: tuple[object, object]) -> dict[object, object]:
    """Make a map; a key stands once."""
    made: dict[object, object] = {}
    for key, value in pairs:
        if key in made:
            raise EvaluationError("a key stands twice in a map")
        made[key] = value
    return made


def luhn(text: str) -> bool:
    """Tell whether digits (spaces and hyphens aside) pass the Luhn check, ISO/IEC 7812-1."""
    digits = text.replace(" ", "").replace("-", "")
    if not 2 <= len(digits) <= _LUHN_DIGITS_MAX or not (digits.isascii() and digits.isdigit()):
        return False
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = ord(character) - 48
        doubled = value * 2 if place % 2 else value
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0

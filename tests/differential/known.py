"""Where the engines differ by design or by a fault of an oracle, each with its reason.

What is on no line here fails the test. A predicate sees the expression and the three outcomes;
where it asks that two engines agree, the odd one out is the one the reason names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from oracles import Outcome


@dataclass(frozen=True, slots=True)
class Known:
    """One reason to differ. ``holds`` takes text, ours, theirs and, of the other, theirs."""

    reason: str
    holds: Callable[[str, Outcome, Outcome], bool]


def _why(ours: Outcome, words: str) -> bool:
    return ours.value is None and words in ours.why


_METHOD = re.compile(r"[-+].*\)\.(contains|get\w+)\(")
_BETWEEN = re.compile(r"(time>>|at>>|'\)+) - |- \(*(<<request\.time|<<session\.st|timestamp)")
_LOOP = re.compile(r"\.(exists_one|map|filter)\(")
_MADE = re.compile(r"[\[{]")
_TWO_ERRORS = re.compile(r"_(&&|\|\|)_ applied to .*CELEvalError'>, <class .*CELEvalError'>")
_ROUNDED = re.compile(r"(~\(|dyn|tool\.arg).*(9223372036854775808\.0|double\()"
                      r"|(9223372036854775808\.0|double\().*(~\(|dyn|tool\.arg)")  # fmt: skip
_ZONE = re.compile(r"\.get\w+\('")

GOOGLE = (
    Known(
        "cel-cpp ends the whole evaluation at a key that stands twice in a map; by the language "
        "it is an error as any other, which && and || may absorb",
        lambda text, ours, theirs: theirs.value is None and "duplicate key" in theirs.why,
    ),
    Known(
        "a clock on the wall that shows a year before 0001 or after 9999 has no value here; "
        "cel-cpp counts on",
        lambda text, ours, theirs: ours.value is None and bool(_ZONE.search(text)),
    ),
    Known(
        "an int near 2^63 and a double are compared as they are; cel-cpp rounds the int first",
        lambda text, ours, theirs: bool(_ROUNDED.search(text)),
    ),
)
"""Differences to Google's engine."""

PYTHON = (
    Known(
        "cel-python's + and - make plain Python texts and durations, which its methods do not take",
        lambda text, ours, theirs: "no such overload" in theirs.why and bool(_METHOD.search(text)),
    ),
    Known(
        "an error inside exists_one, map or filter leaves cel-python's evaluation at once; by the "
        "language && and || around it may absorb it",
        lambda text, ours, theirs: theirs.value is None and bool(_LOOP.search(text)),
    ),
    Known(
        "durations are 64 bits of nanoseconds, as Google has them; cel-python's are longer",
        lambda text, ours, theirs: ours.value is None and bool(_BETWEEN.search(text)),
    ),
    Known(
        "has() of a field of something unknown is an error; cel-python says false",
        lambda text, ours, theirs: _why(ours, "is not known") and "has(<<" in text,
    ),
    Known(
        "cel-python puts an error into a list or map as if it were a value, and may never meet it",
        lambda text, ours, theirs: ours.value is None and bool(_MADE.search(text)),
    ),
    Known(
        "an infinity cannot be converted: an error as any other, which leaves cel-python raw",
        lambda text, ours, theirs: theirs.why.startswith(("OverflowError", "ValueError")),
    ),
    Known(
        "cel-python finds no && or || of two errors, and that error is not absorbed",
        lambda text, ours, theirs: bool(_TWO_ERRORS.search(theirs.why)),
    ),
)
"""Differences to cel-python, where Google's engine gives what ours does. In none of them does
cel-python give one bool and the others the other: what it gets wrong so (``string(true)`` is
True, ``1.0 / -0.0`` is above zero, ``int()`` of a moment before 1970 rounds up, dyn values that
are null or of two types) is left out of the plain expressions that it is asked."""


def reason(known: tuple[Known, ...], text: str, ours: Outcome, theirs: Outcome) -> str | None:
    """Return why a difference is expected, None where it is not."""
    return next((each.reason for each in known if each.holds(text, ours, theirs)), None)

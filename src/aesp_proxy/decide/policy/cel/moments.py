"""Timestamps and durations of conditions: int nanoseconds, UTC, years 0001 to 9999.

Parts of a moment are told in UTC or in a zone that the expression names as a constant: an
offset (``+02:00``) or a name of the tz database (``Europe/Berlin``), read at load.
Source: google/cel-spec ``doc/langdef.md`` "Timestamps", RFC 3339, Go's ``time.ParseDuration``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from aesp_proxy.decide.policy.cel.errors import EvaluationError, ExpressionError

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOMENT_MIN: Final = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * _SECOND
MOMENT_MAX: Final = (
    int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds()) + 1
) * _SECOND - 1
_UNITS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": _SECOND,
                 "m": 60 * _SECOND, "h": 3_600 * _SECOND}  # fmt: skip
_TEXT_MAX: Final = 64
_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/")

Zone = Callable[[int], int]
"""Takes UTC nanoseconds to those of a clock on the wall in the zone."""


def zone(text: str) -> Zone:
    """Prepare a time zone; raises ``ExpressionError`` for one that does not exist."""
    fixed = _offset(text)
    if fixed is not None:
        return lambda ns: moment(ns + fixed)
    if not text or not _NAME_CHARS.issuperset(text) or text.startswith(("/", "-", "+")):
        raise ExpressionError(f"no time zone is named {text[:40]!a}")
    try:
        named = ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise ExpressionError(
            f"no time zone is named {text[:40]!a}", remedy="write +02:00 or Europe/Berlin"
        ) from None

    def on_the_wall(ns: int) -> int:
        try:
            at = _EPOCH + timedelta(seconds=ns // _SECOND)
            offset = at.astimezone(named).utcoffset()
        except (OverflowError, ValueError):
            raise EvaluationError("a moment outside the calendar") from None
        return ns if offset is None else moment(ns + int(offset.total_seconds()) * _SECOND)

    return on_the_wall


def _offset(text: str) -> int | None:
    """Read ``+02:00``, ``-02:00``, ``02:00`` or ``UTC``."""
    if text in ("UTC", "Z", ""):
        return 0 if text else None
    sign = -1 if text.startswith("-") else 1
    hours, colon, minutes = text.lstrip("+-").partition(":")
    digits = hours + minutes
    good = colon and len(hours) == 2 and len(minutes) == 2 and digits.isascii()
    if not good or not digits.isdigit() or int(hours) > 23 or int(minutes) > 59:
        return None
    return sign * (int(hours) * 3_600 + int(minutes) * 60) * _SECOND


def moment(ns: int) -> int:
    """Hold a moment to the calendar."""
    if not MOMENT_MIN <= ns <= MOMENT_MAX:
        raise EvaluationError("a moment outside the calendar")
    return ns


def span(ns: int) -> int:
    """Hold a duration to its range, about 10,000 years; in int nanoseconds of 64 bits."""
    if not -(2**63) <= ns < 2**63:
        raise EvaluationError("a duration over its range")
    return ns


def hours(ns: int) -> int:
    """Return the hour, 0 to 23."""
    return ns // (3_600 * _SECOND) % 24


def minutes(ns: int) -> int:
    """Return the minute, 0 to 59."""
    return ns // (60 * _SECOND) % 60


def seconds(ns: int) -> int:
    """Return the second, 0 to 59."""
    return ns // _SECOND % 60


def milliseconds(ns: int) -> int:
    """Return the millisecond of the second."""
    return ns // 1_000_000 % 1_000


def day_of_week(ns: int) -> int:
    """Return the day of the week, 0 for Sunday."""
    return (ns // _DAY + 4) % 7


def _date(ns: int) -> datetime:
    day = max(min(ns // _DAY, 2_932_896), -719_162)
    return _EPOCH + timedelta(days=day)


def year(ns: int) -> int:
    """Return the year."""
    return _date(ns).year


def month(ns: int) -> int:
    """Return the month, 0 for January."""
    return _date(ns).month - 1


def date(ns: int) -> int:
    """Return the day of the month, 1 for the first."""
    return _date(ns).day


def day_of_month(ns: int) -> int:
    """Return the day of the month, 0 for the first."""
    return _date(ns).day - 1


def day_of_year(ns: int) -> int:
    """Return the day of the year, 0 for the first."""
    return _date(ns).timetuple().tm_yday - 1


def moment_of_text(text: str) -> int:
    """Read RFC 3339 with an offset, up to nanoseconds."""
    why = "a text that is no RFC 3339 moment with an offset"
    if len(text) > _TEXT_MAX or not text.isascii() or len(text) < 20 or text[10] not in "Tt":
        raise EvaluationError(why)
    body, fraction, offset = text[:19], "", text[19:]
    if offset.startswith("."):
        digits = offset[1:]
        count = next((i for i, c in enumerate(digits) if not c.isdigit()), len(digits))
        fraction, offset = digits[:count], digits[count:]
        if not 1 <= count <= 9:
            raise EvaluationError(why)
    shift = 0 if offset in ("Z", "z") else _offset(offset) if offset[:1] in ("+", "-") else None
    try:
        parsed = datetime.strptime(body.upper(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise EvaluationError(why) from None
    if shift is None:
        raise EvaluationError(why)
    whole = (parsed - _EPOCH).days * _DAY + (parsed - _EPOCH).seconds * _SECOND
    return moment(whole + int(fraction.ljust(9, "0") or "0") - shift)


def text_of_moment(ns: int) -> str:
    """Write RFC 3339 in UTC, without needless digits."""
    parsed = _EPOCH + timedelta(seconds=ns // _SECOND)
    fraction = f".{ns % _SECOND:09d}".rstrip("0").rstrip(".")
    return f"{parsed:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f"{fraction}Z"


def span_of_text(text: str) -> int:
    """Read a duration as Go writes it: ``1h30m``, ``-1.5s``, ``100ms``."""
    why = "a text that is no duration"
    body = text.lstrip("+-")
    if not body or len(text) > _TEXT_MAX or len(text) - len(body) > 1:
        raise EvaluationError(why)
    if body == "0":
        return 0
    total, at = 0, 0
    while at < len(body):
        number, at = _number(body, at)
        unit, at = _unit(body, at)
        if number is None or unit not in _UNITS:
            raise EvaluationError(why)
        digits, scale = number
        total += digits * _UNITS[unit] // scale
    return span(-total if text.startswith("-") else total)


def _number(text: str, at: int) -> tuple[tuple[int, int] | None, int]:
    begin = at
    while at < len(text) and (text[at] == "." or "0" <= text[at] <= "9"):
        at += 1
    whole, _, fraction = text[begin:at].partition(".")
    digits = whole + fraction
    if not digits or "." in fraction:
        return None, at
    return (int(digits), 10 ** len(fraction)), at


def _unit(text: str, at: int) -> tuple[str, int]:
    begin = at
    while at < len(text) and text[at] != "." and not "0" <= text[at] <= "9":
        at += 1
    return text[begin:at], at


def text_of_span(ns: int) -> str:
    """Write a duration as CEL does: seconds with their fraction."""
    sign, rest = ("-", -ns) if ns < 0 else ("", ns)
    fraction = f".{rest % _SECOND:09d}".rstrip("0").rstrip(".")
    return f"{sign}{rest // _SECOND}{fraction}s"

"""Questions to the index as people and programs write them, and the answers as they read them.

Rules: pure, the time is passed in; what cannot be read without doubt is an
``InputError`` that names the parameter; a cursor is a place in the order of
events and nothing else, so one that was made up can only ask for less.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.ports import EventCount, EventCursor, EventQuery, EventRow
from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import Verdict
from aesp_proxy.model.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aesp_proxy.model.record import Record

LIMIT_MAX: Final = 1000
BY_MAX: Final = 4
DEFAULT_BY: Final = "reason,guard"
COUNTED_BY: Final = (
    "hour",
    "day",
    "verdict",
    "reason",
    "guard",
    "action",
    "outcome",
    "kind",
    "host",
    "agent",
    "session",
    "tenant",
    "origin",
)
TEXT_CHARS_MAX: Final = 1024
CURSOR_CHARS_MAX: Final = 512
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TEXTS: Final = (
    "origin",
    "agent",
    "host",
    "verdict",
    "reason",
    "session",
    "tenant",
    "kind",
    "path",
    "rule",
)
PARAMETERS: Final = frozenset({*_TEXTS, "since", "until", "limit", "cursor", "full"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT63_MAX: Final = (1 << 63) - 1


def parse_query(parameters: Mapping[str, str], *, now_ns: int) -> EventQuery:
    """Read the parameters of a query; InputError for one that is unknown or unreadable.

    ``since`` and ``until`` are ISO 8601 (UTC unless said) or ``15m``, ``1h``,
    ``7d`` before ``now_ns``; ``limit`` is 1 to 1000.
    """
    unknown = parameters.keys() - PARAMETERS
    if unknown:
        raise InputError("is not a parameter", where=min(unknown))
    texts: dict[str, Any] = {}
    for name in _TEXTS:
        text = parameters.get(name, "")
        if len(text) > TEXT_CHARS_MAX:
            raise InputError(f"is longer than {TEXT_CHARS_MAX} characters", where=name)
        texts[name] = text
    query = EventQuery(**texts)
    _one_of("verdict", query.verdict, Verdict)
    _one_of("kind", query.kind, RecordKind)
    since, until = parameters.get("since", ""), parameters.get("until", "")
    cursor = parameters.get("cursor", "")
    return replace(
        query,
        since_ns=parse_time(since, now_ns=now_ns, where="since") if since else None,
        until_ns=parse_time(until, now_ns=now_ns, where="until") if until else None,
        limit=_parse_limit(parameters.get("limit", "100")),
        cursor=parse_cursor(cursor) if cursor else None,
    )


def parse_count(
    parameters: Mapping[str, str], *, now_ns: int
) -> tuple[EventQuery, tuple[str, ...]]:
    """Read the parameters of a count: those of a query, ``by`` (words, with commas) and ``top``.

    InputError for what cannot be counted by: paths and rules stand in records only.
    """
    rest = {name: text for name, text in parameters.items() if name not in {"by", "top"}}
    by = tuple(word for word in parameters.get("by", DEFAULT_BY).split(",") if word)
    for word in by:
        if word not in COUNTED_BY or len(by) > BY_MAX:
            known = ", ".join(COUNTED_BY)
            raise InputError(f"{word[:40]!r} is not one of {known}, {BY_MAX} at most", where="by")
    for name in ("path", "rule", "cursor", "limit", "full"):
        if rest.get(name):
            raise InputError("cannot be part of a count", where=name)
    query = parse_query(rest, now_ns=now_ns)
    return replace(query, limit=_parse_limit(parameters.get("top", "20"))), by


def count_json(count: EventCount, by: tuple[str, ...]) -> dict[str, Any]:
    """Return one line of a count as JSON values; hours and days as ISO 8601."""
    shown: dict[str, Any] = {}
    for name, text in zip(by, count.values, strict=True):
        shown[name] = format_time(int(text)) if name in {"hour", "day"} else text
    return {**shown, "count": count.count}


def parse_time(text: str, *, now_ns: int, where: str) -> int:
    """Read a time as UTC nanoseconds; InputError when it is neither ISO 8601 nor relative."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS_S and number.isascii() and number.isdigit() and len(number) <= 9:
        return max(0, now_ns - int(number) * _UNITS_S[unit] * 1_000_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{text[:40]!r} is not a time", where=where, remedy="write 2026-01-31T12:00:00Z or 1h"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        passed = moment - _EPOCH
    except OverflowError as error:
        raise InputError(f"{text[:40]!r} is out of range", where=where) from error
    time_ns = (passed.days * 86_400 + passed.seconds) * 1_000_000_000 + passed.microseconds * 1000
    if not 0 <= time_ns <= _INT63_MAX:
        raise InputError(f"{text[:40]!r} is out of range", where=where)
    return time_ns


def format_time(time_ns: int) -> str:
    """Write UTC nanoseconds as ISO 8601 with nine decimals; what no calendar holds as a number."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{time_ns}ns"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def parse_cursor(text: str) -> EventCursor:
    """Read a cursor of :func:`format_cursor`; InputError for anything else."""
    try:
        plain = urlsafe_b64decode(text[:CURSOR_CHARS_MAX].encode("ascii")).decode("utf-8")
        time_ns, epoch, seq, origin = plain.split(",", 3)
        numbers = [_parse_int(number) for number in (time_ns, epoch, seq)]
    except (ValueError, UnicodeError, Base64Error) as error:
        raise InputError("is not a cursor of an earlier page", where="cursor") from error
    return EventCursor(time_ns=numbers[0], epoch=numbers[1], seq=numbers[2], origin=origin)


def format_cursor(row: EventRow) -> str:
    """Name the place after ``row`` for the next page."""
    plain = f"{row.time_ns},{row.epoch},{row.seq},{row.origin}"
    return urlsafe_b64encode(plain.encode()).decode("ascii")


def next_cursor(query: EventQuery, rows: list[EventRow]) -> str | None:
    """Return the cursor of the next page, None when this one was not full."""
    return format_cursor(rows[-1]) if rows and len(rows) == query.limit else None


def event_json(row: EventRow, record: Record | None = None) -> dict[str, Any]:
    """Return one event as JSON values; with ``record`` all its fields under ``record``."""
    shown: dict[str, Any] = {
        "id": f"{row.origin}/{row.epoch}/{row.seq}",
        "time": format_time(row.time_ns),
        **asdict(row),
    }
    if record is not None:
        shown["record"] = asdict(record)
    return shown


def _one_of(name: str, text: str, words: type[Verdict | RecordKind]) -> None:
    known = [word.value for word in words]
    if text and text not in known:
        raise InputError(f"{text[:40]!r} is not one of {', '.join(known)}", where=name)


def _parse_limit(text: str) -> int:
    try:
        limit = _parse_int(text)
    except ValueError:
        limit = 0
    if not 1 <= limit <= LIMIT_MAX:
        raise InputError(f"must be 1 to {LIMIT_MAX}", where="limit")
    return limit


def _parse_int(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ValueError(text)
    number = int(text)
    if number > _INT63_MAX:
        raise ValueError(text)
    return number

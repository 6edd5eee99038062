"""A mapping of plain values read by declared names and types; what does not fit is refused.

Text is text, a flag a bool, a number an int or a float: nothing is converted, so what a
person wrote and what a rule sees are the same. Null is no value. Errors name the dotted
fact in ``where`` and never repeat a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import NoReturn

from aesp_proxy.errors import InputError

_TEXT_CHARS_MAX = 65_536
_ITEMS_MAX = 10_000
_COUNT_MAX = 2**53
_STAMP_CHARS_MAX = 64
_SHOWN_CHARS_MAX = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FactTable:
    """One level of facts. ``path`` is its dotted name, empty at the top."""

    __slots__ = ("_values", "path")

    def __init__(self, values: Mapping[str, object], path: str = "") -> None:
        self._values = values
        self.path = path

    def only(self, *names: str, why: str = "") -> None:
        """Refuse every fact but these; ``why`` follows the name of the one that is not."""
        for name in self._values:
            if name in names:
                continue
            shown = f"{self._dotted(ascii(name[:_SHOWN_CHARS_MAX])[1:-1])}"
            near = get_close_matches(name[:_SHOWN_CHARS_MAX], names, n=1, cutoff=0.6)
            known = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
            refuse(f"{why or 'is no fact'}", shown, remedy="" if why else known)

    def has(self, name: str) -> bool:
        """Tell whether a fact is stated."""
        return name in self._values

    def where(self, name: str) -> str:
        """Return the dotted name of a fact, for errors."""
        return self._dotted(name)

    def table(self, name: str) -> FactTable:
        """Read the facts below a name; none where it is not stated."""
        return FactTable(self.mapping(name), self._dotted(name))

    def mapping(self, name: str) -> Mapping[str, object]:
        """Read a mapping of names that are the caller's own."""
        found = self._values.get(name, {})
        if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
            refuse("is not a mapping of facts", self._dotted(name))
        return found

    def value(self, name: str) -> object:
        """Read whatever stands there; None where it is not stated."""
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """Read a text; None where it is not stated."""
        if name not in self._values:
            return None
        return _text(self._values[name], self._dotted(name))

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Read a list of texts; None where it is not stated."""
        if name not in self._values:
            return None
        found = self._values[name]
        where = self._dotted(name)
        if not isinstance(found, list | tuple) or len(found) > _ITEMS_MAX:
            refuse(f"is not a list of at most {_ITEMS_MAX} texts", where)
        return tuple(_text(item, where) for item in found)

    def flag(self, name: str) -> bool | None:
        """Read true or false; None where it is not stated."""
        if name not in self._values:
            return None
        found = self._values[name]
        if not isinstance(found, bool):
            refuse("is not true or false", self._dotted(name))
        return found

    def count(self, name: str, most: int = _COUNT_MAX, least: int = 0) -> int | None:
        """Read a whole number from ``least`` to ``most``; None where it is not stated."""
        if name not in self._values:
            return None
        found = self._values[name]
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            refuse(f"is not a whole number from {least} to {most}", self._dotted(name))
        return found

    def number(self, name: str) -> float | None:
        """Read a finite number, 0 or more; None where it is not stated."""
        if name not in self._values:
            return None
        found = self._values[name]
        if isinstance(found, bool) or not isinstance(found, int | float):
            refuse("is not a number", self._dotted(name))
        if not 0 <= found <= _COUNT_MAX:  # NaN and infinity are in no range
            refuse(f"is not a number from 0 to {_COUNT_MAX}", self._dotted(name))
        return float(found)

    def moment_ns(self, name: str) -> int | None:
        """Read an RFC 3339 time with an offset as UTC nanoseconds; None where not stated."""
        text = self.text(name)
        return None if text is None else moment_ns(text, self._dotted(name))

    def _dotted(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def moment_ns(text: str, where: str) -> int:
    """Read RFC 3339 text with an offset as UTC nanoseconds; ``InputError`` else."""
    why = "is not RFC 3339 with an offset (2026-01-31T12:00:00Z)"
    if len(text) > _STAMP_CHARS_MAX or "T" not in text.upper():
        refuse(why, where)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            refuse(why, where)
        delta = moment.astimezone(UTC) - _EPOCH
    except (ValueError, OverflowError):
        refuse(why, where)
    return (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000


def refuse(why: str, where: str, *, remedy: str = "") -> NoReturn:
    """Raise ``InputError`` for the fact at ``where``."""
    raise InputError(why, where=where, remedy=remedy)


def _text(found: object, where: str) -> str:
    if not isinstance(found, str):
        refuse("is not a text", where)
    if len(found) > _TEXT_CHARS_MAX:
        refuse(f"is longer than {_TEXT_CHARS_MAX} characters", where)
    return found

"""Tell which record an event in a SIEM is of, in whatever format and wrapping it is shown there.

Rules: only the places that our formats and sinks write are believed, never a value that merely
looks like an identity; an event that names two records names none. Nothing here proves anything:
the proof that is fetched by the identity does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from aesp_proxy.errors import InputError
from aesp_proxy.record.header import is_origin

EVENT_CHARS_MAX: Final = 1 << 20
_DEPTH_MAX: Final = 6
# What receivers and their searches wrap an event in: HEC, Elastic, Splunk's results, OTLP.
_WRAPPINGS: Final = ("event", "_source", "result", "_raw", "body", "stringValue", "value")
_SYSLOG: Final = " [aesp@"
_CEF: Final = "CEF:0|AESP|"
_NUMBER_DIGITS_MAX: Final = 18


@dataclass(slots=True)
class _Named:
    ids: set[str] = field(default_factory=set)
    batches: set[int] = field(default_factory=set)

    def add(self, event_id: object, batch: object = None) -> None:
        if isinstance(event_id, str) and _is_id(event_id):
            self.ids.add(event_id)
            digits = str(batch)
            if digits.isascii() and digits.isdigit() and len(digits) <= _NUMBER_DIGITS_MAX:
                self.batches.add(int(digits))


def identify(text: str) -> tuple[str, int | None]:
    """Return the identity ``ORIGIN/EPOCH/SEQ`` of an event, and its batch where it says one.

    ``text`` is OCSF, ECS, ``SiemEvent``, CEF, or an RFC 5424 message. InputError for another.
    """
    if len(text) > EVENT_CHARS_MAX:
        raise InputError(f"the event has {len(text)} characters")
    named = _Named()
    _look(text.strip(), named, 0)
    if len(named.ids) != 1 or len(named.batches) > 1:
        what = "names several records" if named.ids else "names no record of ours"
        raise InputError(what, where="the event", remedy="give one event as the SIEM shows it")
    return named.ids.pop(), next(iter(named.batches), None)


def _look(value: Any, named: _Named, depth: int) -> None:  # noqa: ANN401 - JSON
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, str):
        _look_in_text(value, named, depth)
    if not isinstance(value, dict):
        return
    for holder in (value.get("raw_event"), value.get("aesp"), _at(value, "unmapped", "aesp")):
        named.add(_at(holder, "id"), _at(holder, "batch"))
    named.add(_at(value, "metadata", "uid"))
    named.add(_at(value, "event", "id"))
    named.add(_at(value, "fields", "aesp_id"), _at(value, "fields", "aesp_batch"))
    for name in _WRAPPINGS:
        _look(value.get(name), named, depth + 1)


def _look_in_text(text: str, named: _Named, depth: int) -> None:
    if text.startswith("{"):
        try:
            _look(json.loads(text), named, depth + 1)
        except (ValueError, RecursionError) as error:
            if depth == 0:  # deeper it is a value that only begins so
                raise InputError("is no whole JSON", where="the event") from error
        return
    if _SYSLOG in text and not text.startswith(_CEF):
        # No field before the structured data holds a space, and none of ours in it a quote.
        parts = text.split(_SYSLOG)
        first = next((n for n, part in enumerate(parts) if n and _is_ours(part)), len(parts))
        told, _, rest = _SYSLOG.join(parts[first:]).partition('"] ')
        named.add(_quoted(told + '"', "id"), _quoted(told + '"', "batch"))
        _look(rest.removeprefix("\ufeff"), named, depth + 1)
        return
    # In a value of CEF an equals sign is escaped, and our extension stands behind the header.
    words = text.partition(_CEF)[2].split(" ")
    said = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    named.add(said.get("externalId"), said.get("cn2"))


def _is_ours(part: str) -> bool:
    number = part.partition(' id="')[0]
    return number.isascii() and number.isdigit()


def _quoted(text: str, name: str) -> str:
    return text.partition(f' {name}="')[2].partition('"')[0]


def _at(value: object, *names: str) -> object:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_id(text: str) -> bool:
    origin, *numbers = text.split("/")
    return (
        is_origin(origin)
        and len(numbers) == 2
        and all(n.isascii() and n.isdigit() and len(n) <= _NUMBER_DIGITS_MAX for n in numbers)
    )

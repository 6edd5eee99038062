"""An attempt as a person gives it: key=value words, the facts of a suite, or an event."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from aesp_proxy.daemon.policy_files import read_text
from aesp_proxy.decide.policy.field import Field, Kind
from aesp_proxy.decide.policy.near import nearest
from aesp_proxy.decide.policy.suite import parse_facts
from aesp_proxy.decide.policy.suite_schema import FACTS
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.model.context import Context
from aesp_proxy.model.event import Event
from aesp_proxy.normalize.announced import announcement, event_of
from aesp_proxy.normalize.announced_context import context_of
from aesp_proxy.normalize.described import described
from aesp_proxy.normalize.json_text import EVENT_BYTES_MAX, read_json

_STDIN: Final = "-"
_DIGITS_MAX: Final = 16
_FLAGS: Final = {"true": True, "false": False}
_ROOTS: Final = tuple(FACTS)


def attempt_of(
    words: Sequence[str], request: str | None, event: str | None, *, time_ns: int
) -> tuple[Event, Context]:
    """Return the one attempt that is given in one of three ways; ``time_ns`` is now.

    Raises ``click.UsageError`` for none or several, ``InputError`` for what is no attempt.
    """
    given = [bool(words), request is not None, event is not None]
    if sum(given) != 1:
        raise click.UsageError("give the attempt once: key=value ..., --request or --event")
    if event is not None:
        said = announcement(read_json(_read(event).encode("utf-8", "surrogateescape")),
                            time_ns=time_ns)  # fmt: skip
        return event_of(said, resolve=os.path.realpath), context_of(said)
    facts = facts_of_words(words) if request is None else _facts(request)
    return described(facts, time_ns=time_ns)


def _facts(text: str) -> Mapping[str, object]:
    try:
        return parse_facts(_read(text), "--request")
    except ConfigError as error:
        raise InputError(error.message, where=error.where, remedy=error.remedy) from None


def _read(text: str) -> str:
    """Return a text as given, of standard input for ``-``, of a file for ``@FILE``."""
    if text == _STDIN:
        return sys.stdin.read(EVENT_BYTES_MAX + 1)
    if not text.startswith("@"):
        return text
    try:
        return read_text(Path(text[1:]))
    except ConfigError as error:
        raise InputError(error.message, where=error.where, remedy=error.remedy) from None


def facts_of_words(words: Sequence[str]) -> dict[str, object]:
    """Return the facts that ``key=value`` words state; lists are written with commas.

    ``host`` and ``user.roles`` are short for ``request.host`` and ``request.user.roles``.
    Raises ``InputError`` for a key that is no fact, or a value that it cannot have.
    """
    made: dict[str, object] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise InputError(f"{word[:60]!a} is not key=value", remedy="write host=api.example.com")
        path = key.split(".")
        if path[0] not in _ROOTS:
            path.insert(0, "request")
        field, path = _field(path, key)
        table = made
        for part in path[:-1]:
            below = table.setdefault(part, {})
            table = below if isinstance(below, dict) else {}
        if path[-1] in table:
            raise InputError("is given twice", where=key[:60])
        table[path[-1]] = _value(value, field, key)
    return made


def _field(path: list[str], key: str) -> tuple[Field, list[str]]:
    """Find what a key holds; the name of a header may hold dots and is one part."""
    fields: Mapping[str, Field] = FACTS
    for at, part in enumerate(path):
        field = fields.get(part)
        if field is None:
            near = nearest(part, fields)
            remedy = f"did you mean '{near}'?" if near else f"known: {', '.join(fields)}"
            raise InputError("is no fact", where=key[:60], remedy=remedy)
        if field.kind is not Kind.TABLE:
            rest = path[at + 1 :]
            if rest and part != "headers":
                raise InputError("is no fact", where=key[:60])
            return (field, [*path[: at + 1], ".".join(rest)]) if rest else (field, path)
        fields = field.keys
    raise InputError("has facts below it; name one", where=key[:60])


def _value(text: str, field: Field, key: str) -> object:
    match field.kind:
        case Kind.FLAG:
            if text in _FLAGS:
                return _FLAGS[text]
            raise InputError("is true or false", where=key[:60])
        case Kind.TEXTS:
            return [part for part in text.split(",") if part]
        case Kind.COUNT:
            if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX:
                return int(text)
            raise InputError("is a whole number", where=key[:60])
        case Kind.RATIO:
            try:
                return float(text)
            except ValueError:
                raise InputError("is a number", where=key[:60]) from None
        case _:
            return text

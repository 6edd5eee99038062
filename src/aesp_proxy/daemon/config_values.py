"""One setting's value: what its field allows, and reading what was given for it.

Pure. Every refusal is a ConfigError that says where the value stood and what
would be right. Nothing is clamped or guessed: a value outside its limits is the
operator's mistake and theirs to mend.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from aesp_proxy.errors import ConfigError

Pairs = tuple[tuple[str, str], ...]
ENVIRONMENT_PREFIX: Final = "AESP_"
WHY_VARIABLE: Final = "AESP_WHY"
"""No setting: where a command under ``run`` asks why it was refused; `run` sets it."""


def setting(
    default: object,
    help_text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    form: str = "",
    is_secret: bool = False,
) -> Any:  # noqa: ANN401 - the type is the field's own annotation, as with dataclasses.field
    """Declare a field with what ``docs/settings.md`` and the parser need to know of it.

    A secret does not stand in the ``repr`` of the settings.
    """
    metadata = {
        "help": help_text,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "form": form,
    }
    return dataclasses.field(default=default, metadata=metadata, repr=not is_secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One value as it was given; ``text`` when it is text whatever the field's type.

    ``is_public`` when others may have seen it: on a command line.
    """

    value: object
    where: str
    text: bool = False
    is_public: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting: its dotted name and what its field says."""

    name: str
    kind: type
    optional: bool
    default: object
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    form: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "_")

    def of(self, settings: object) -> object:
        """Return this setting's value in ``settings``."""
        value = settings
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


def read_value(key: Key, given: Given) -> object:
    """Return the value ``given`` for ``key``, checked; ConfigError with its place if not."""
    value = _from_text(key, given) if given.text else given.value
    where = f"{given.where}: {key.name}" if key.name not in given.where else given.where
    if given.is_public and key.form == "proxy" and "@" in str(value):
        raise ConfigError(
            "credentials have no place on a command line", where=where,
            remedy=f"use upstream.proxy_credentials_file or {key.variable}",
        )  # fmt: skip
    if value is None and key.optional:
        return None
    if key.kind is Path:
        return Path(_text(key, value, where))
    if key.kind is tuple:
        return _pairs(value, where, files=key.form == "files")
    if key.form == "list" and isinstance(value, list | tuple):
        value = _joined(value, where)
    if key.kind is str:
        if key.choices and isinstance(value, float):
            value = f"{value:g}"  # YAML takes 1.2 for a number
        return _checked_text(key, _text(key, value, where), where)
    return _checked_number(key, value, where)


def _from_text(key: Key, given: Given) -> object:
    """Turn the text of a variable or flag into what a file would have held."""
    text = str(given.value).strip()
    if key.kind is tuple:
        items = [item for item in text.split(",") if item.strip()]
        return [[part.strip() for part in item.split("=", 1)] for item in items]
    if key.kind in (int, float):
        try:
            return key.kind(text)
        except ValueError:
            return text
    return text


def _joined(items: list[object] | tuple[object, ...], where: str) -> str:
    """Return a file's list as the text that a flag would have given."""
    for item in items:
        if not isinstance(item, str) or "," in item:
            raise ConfigError(f"{_word(item)} is not a text without a comma", where=where)
    return ",".join(str(item) for item in items)


def _text(key: Key, value: object, where: str) -> str:
    if not isinstance(value, str) or (key.kind is Path and not value):
        raise ConfigError(f"{_word(value)} is not {_kind_word(key)}", where=where)
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ConfigError("holds a control character", where=where)
    return value


def _checked_text(key: Key, value: str, where: str) -> str:
    for word in value.split(",") if key.form == "list" and value else (value,):
        if key.choices and word.strip() not in (*key.choices, *_nothing(key)):
            raise ConfigError(
                f"{word!r} is not one of its values", where=where, remedy="|".join(key.choices)
            )
    if key.form == "loopback":
        address = _address(value)
        if address is None or not ip_address(address).is_loopback:
            raise ConfigError(
                f"{value!r} is not a loopback address", where=where, remedy="127.0.0.1 or ::1"
            )
    return value


def _nothing(key: Key) -> tuple[str, ...]:
    return ("",) if key.form == "list" else ()


def _checked_number(key: Key, value: object, where: str) -> float:
    # bool is an int to Python; `true` is nobody's idea of a number of seconds.
    accepted = int if key.kind is int else int | float
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise ConfigError(f"{_word(value)} is not {_kind_word(key)}", where=where)
    number = key.kind(value)
    low, high = key.minimum, key.maximum
    # Written so that NaN, which compares false with everything, is refused.
    if not ((low is None or number >= low) and (high is None or number <= high)):
        raise ConfigError(
            f"{number} is outside its limits", where=where, remedy=f"from {low:g} to {high:g}"
        )
    return typing.cast("float", number)


def _pairs(value: object, where: str, *, files: bool) -> Pairs:
    read = _checked_file if files else _checked_resolve
    remedy = "host[:port] to a file" if files else "host[:port] to address[:port]"
    items = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple):
        raise ConfigError(f"{_word(value)} is not a map", where=where)
    pairs: list[tuple[str, str]] = []
    for item in items:
        match item:
            case [str(name), str(target)] | (str(name), str(target)):
                pairs.append(read(name, target, where))
            case _:
                raise ConfigError(
                    f"{_word(item)} does not say where a host is", where=where, remedy=remedy
                )
    if len({name for name, _ in pairs}) != len(pairs):
        raise ConfigError("names a host twice", where=where)
    return tuple(sorted(pairs))


def _checked_resolve(name: str, target: str, where: str) -> tuple[str, str]:
    return _checked_name(name, where), _checked_target(target, where)


def _checked_file(name: str, target: str, where: str) -> tuple[str, str]:
    """Check the shape of a host rule and a path; what they name is looked at when they are used."""
    if not name or not target or any(ord(c) < 33 or ord(c) == 127 for c in name):
        raise ConfigError(f"{name!r} does not name a host and its file", where=where)
    if any(ord(c) < 32 or ord(c) == 127 for c in target):
        raise ConfigError("holds a control character", where=where)
    return name, target


def _checked_name(name: str, where: str) -> str:
    host, port = split_port(name)
    plain = host.lower().rstrip(".")
    allowed = plain and all(c.isascii() and (c.isalnum() or c in "-._:[]") for c in plain)
    if not allowed or port == "":
        raise ConfigError(f"{name!r} is not a host or host:port", where=where)
    return plain if port is None else f"{plain}:{port}"


def _checked_target(target: str, where: str) -> str:
    host, port = split_port(target)
    if _address(host) is None or port == "":
        raise ConfigError(
            f"{target!r} is not an address or address:port", where=where,
            remedy="an IPv6 address with a port stands in brackets",
        )  # fmt: skip
    return target


def split_port(text: str) -> tuple[str, str | None]:
    """Split ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address.

    The port is None when there is none and empty when it is wrong. Brackets go.
    """
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            return host, ""
        return host, _port(rest[1:]) if rest else None
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, _port(port)


def _port(text: str) -> str:
    wrong = not (text.isascii() and text.isdigit()) or len(text) > 5 or not 0 < int(text) < 65536
    return "" if wrong else str(int(text))


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _word(value: object) -> str:
    """Show a value in an error as a file would spell it, short enough for one line."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)[:60]


def _kind_word(key: Key) -> str:
    return {int: "a whole number", float: "a number", str: "text", Path: "a path"}[key.kind]

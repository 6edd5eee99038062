"""JSON text that every reader reads the same: one object, no duplicate keys, no NaN, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from aesp_proxy.errors import InputError

EVENT_BYTES_MAX = 64 * 1024 * 1024

Json = Mapping[str, object]


def read_json(text: str | bytes) -> Json:
    """Read one JSON object: no duplicate keys, no NaN, UTF-8; ``InputError`` otherwise."""
    if len(text) > EVENT_BYTES_MAX:
        raise InputError(f"larger than {EVENT_BYTES_MAX // 2**20} MiB")
    try:
        # json.loads would guess UTF-16 and UTF-32 of bytes; another reader may not.
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8") from None
    except (ValueError, RecursionError):
        raise InputError("not valid JSON: nested too deep, or a number too long") from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InputError("a key stands twice in one object")
    return value


def _constant(word: str) -> NoReturn:
    raise InputError(f"{word} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)

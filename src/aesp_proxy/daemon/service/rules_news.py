"""What the process that keeps the packet rules says: one JSON object a line.

``aesp_proxy.launch.capture`` writes it. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import InputError

_LINE_BYTES_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesNews:
    """What happened to the rules, and whether they stand; ``repairs`` counts what was mended.

    ``subject`` is ``files`` where it is no capture but a watch of files.
    """

    event: str
    message: str
    holds: bool
    repairs: int = 0
    subject: str = "capture"


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesFailed:
    """The process gives up; ``exit_code`` is 3 or 4."""

    exit_code: int
    message: str


class LineDecoder:
    """Cut a byte stream into lines, and read each."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[RulesNews | RulesFailed]:
        """Take ``data`` and return what is whole; InputError for what nobody would send."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _LINE_BYTES_MAX:
            raise InputError(f"a line of more than {_LINE_BYTES_MAX} bytes")
        return [_read(line) for line in lines]


def _read(line: bytes) -> RulesNews | RulesFailed:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise InputError(f"a line is not JSON: {error}") from error
    match said:
        case {
            "type": "news",
            "event": str(event),
            "message": str(message),
            "holds": bool(holds),
            "repairs": int(repairs),
        }:
            return RulesNews(event=event, message=message, holds=holds, repairs=repairs)
        case {"type": "failed", "exit_code": 3 | 4 as code, "message": str(message)}:
            return RulesFailed(exit_code=code, message=message)
        case _:
            raise InputError("a line says nothing that is known")

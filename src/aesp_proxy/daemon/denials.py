"""The last refusals of one session, as its own agent may hear of them.

Kept in memory by each process that refuses, and told through the supervisor (``why_door``)
to ``aesp-proxy why`` inside the walls. The agent is told when, what it tried, the name
that it gave itself, and the word of the reason. It is not told the message, which quotes
the policy, where a link leads or what else a file is called, nor any name that it did not
give. What is hidden is not there and so not refused: of that nothing is told.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from aesp_proxy.errors import InputError

DENIALS_MAX: Final = 50
NAME_CHARS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """One refusal: ``name`` is the path or URL that was asked for, ``reason`` a ``Reason``."""

    time_ns: int
    action: str
    name: str
    reason: str

    def row(self) -> list[int | str]:
        """Return it as a frame holds it."""
        return [self.time_ns, self.action, self.name, self.reason]


class Door(NamedTuple):
    """Where they are told: the listening socket, and the token that opens it."""

    listener: socket.socket
    token: str


class Denials:
    """The last ``most`` refusals of one process; ``now_ns`` is the time of the wall clock."""

    __slots__ = ("_last", "_now_ns")

    def __init__(self, now_ns: Callable[[], int], *, most: int = DENIALS_MAX) -> None:
        self._now_ns = now_ns
        self._last: deque[Denied] = deque(maxlen=most)

    def note(self, action: str, name: str, reason: str) -> None:
        """Keep one, and let go of the oldest."""
        shown = spelled(name)
        if len(shown) > NAME_CHARS_MAX:
            shown = f"{shown[: NAME_CHARS_MAX - 1]}…"
        told = Denied(time_ns=self._now_ns(), action=action, name=shown, reason=reason)
        self._last.append(told)

    def rows(self) -> list[list[int | str]]:
        """Return all, the oldest first, as a frame holds them."""
        return [each.row() for each in self._last]


def spelled(name: str) -> str:
    """Return a name as text: bytes that are not UTF-8 as escapes, as the record has them."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_denials(rows: object) -> tuple[Denied, ...]:
    """Read the rows of a frame; InputError for what ``Denials.rows`` does not make."""
    if not isinstance(rows, list) or len(rows) > DENIALS_MAX:
        raise InputError("not a list of refusals")
    return tuple(_denied(row) for row in rows)


def _denied(row: object) -> Denied:
    match row:
        case [int(time_ns), str(action), str(name), str(reason)]:
            return Denied(time_ns=time_ns, action=action, name=name, reason=reason)
        case _:
            raise InputError("not a refusal")


def merged(parts: Sequence[Sequence[Denied]], what: str, *, last: int) -> list[Denied]:
    """Return the last refusals of several processes in order, of those that hold ``what``."""
    asked = what.lower()
    every = sorted((each for part in parts for each in part), key=lambda each: each.time_ns)
    return [each for each in every if _speaks_of(each, asked)][-last:]


def _speaks_of(denied: Denied, asked: str) -> bool:
    texts = (denied.name, denied.action, denied.reason)
    return not asked or any(asked in text.lower() for text in texts)

"""The door through which a command under ``run`` hears why it was refused.

A listening socket that the walls leave open, one a run, which answers one question and
no other: the last refusals of this session (``denials``). Nothing can be written through
it, and nothing learnt but what was refused to this very session, in the names that the
command gave itself. Whoever asks shows the token of the run: where there is no network of
its own, other processes of the host reach the port.

The question is three fields, each ended by NUL: token, how many, and what the name, action
or reason holds (empty for all). The answer is a line of JSON for each refusal, the oldest
first, and ``{"told": N}`` after the last, or ``{"error": "..."}``. A wrong token, too long
a question or too many askers are answered by nothing. Bounds: ``_QUESTION_BYTES_MAX``,
``_ASKERS_MAX`` at once, ``_PATIENCE_S`` for all of it, and one look at the refusals in
``_PAUSE_S`` for all askers together, so that no flood costs more than that.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import trio

from aesp_proxy.daemon.denials import DENIALS_MAX, Denied, Door, merged
from aesp_proxy.daemon.refusals import remedy_of
from aesp_proxy.errors import UnavailableError

_QUESTION_BYTES_MAX: Final = 32_768
_FIELDS: Final = 3
_ASKERS_MAX: Final = 8
_PATIENCE_S: Final = 3.0
_PAUSE_S: Final = 0.05
_RETRY_S: Final = 0.2

type Ask = Callable[[], Awaitable[Sequence[Sequence[Denied]]]]
"""Has each process that refuses say what it did; UnavailableError when one does not answer."""


class _Question(NamedTuple):
    what: str
    last: int


@dataclass(slots=True)
class _Askers:
    """How many ask now, and whose turn it is to look."""

    ask: Ask
    count: int = 0
    turn: trio.Lock = field(default_factory=trio.Lock)

    async def look(self) -> Sequence[Sequence[Denied]]:
        async with self.turn:
            found = await self.ask()
            await trio.sleep(_PAUSE_S)
        return found


async def serve_door(door: Door, ask: Ask) -> None:
    """Answer until cancelled; the door is closed then."""
    askers = _Askers(ask)
    door.listener.setblocking(False)
    with trio.socket.from_stdlib_socket(door.listener) as listener:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    client, _ = await listener.accept()
                except OSError:
                    # No descriptor is left, or who asked is gone: the run goes on without.
                    await trio.sleep(_RETRY_S)
                    continue
                if askers.count >= _ASKERS_MAX:
                    client.close()
                    continue
                askers.count += 1
                nursery.start_soon(_serve, door.token, client, askers)


async def _serve(token: str, client: trio.socket.SocketType, askers: _Askers) -> None:
    try:
        with client, trio.move_on_after(_PATIENCE_S):
            question = _read(await _received(client), token)
            if question is not None:
                await _send(client, await _answer(question, askers))
    except OSError:
        return  # who asked is gone
    finally:
        askers.count -= 1


async def _received(client: trio.socket.SocketType) -> bytes:
    data = b""
    while data.count(b"\0") < _FIELDS and len(data) <= _QUESTION_BYTES_MAX:
        more = await client.recv(_QUESTION_BYTES_MAX)
        if not more:
            break
        data += more
    return data


def _read(data: bytes, token: str) -> _Question | None:
    """Read a question; None for who has no right to one, or does not know how to ask."""
    parts = data.split(b"\0")
    if len(data) > _QUESTION_BYTES_MAX or len(parts) != _FIELDS + 1 or parts[_FIELDS]:
        return None
    shown, last, what, _ = parts
    if not hmac.compare_digest(shown, token.encode()):
        return None
    if not last.isdigit() or len(last) > len(str(DENIALS_MAX)) + 2:
        return None
    wanted = max(1, min(int(last), DENIALS_MAX))
    return _Question(what.decode("utf-8", "backslashreplace"), wanted)


async def _answer(question: _Question, askers: _Askers) -> bytes:
    try:
        parts = await askers.look()
    except UnavailableError as error:
        return _line({"error": error.message})
    told = merged(parts, question.what, last=question.last)
    return b"".join([*map(_told, told), _line({"told": len(told)})])


def _told(denied: Denied) -> bytes:
    return _line(
        {
            "time_ns": denied.time_ns,
            "action": denied.action,
            "resource": denied.name,
            "reason": denied.reason,
            "remedy": remedy_of(denied.reason),
        }
    )


def _line(said: dict[str, object]) -> bytes:
    return json.dumps(said).encode() + b"\n"


async def _send(client: trio.socket.SocketType, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[await client.send(view) :]

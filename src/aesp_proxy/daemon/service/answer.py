"""Answer on the control socket: one question and one answer, JSON, a connection.

A question is a line: an object whose ``ask`` says what it is. Only root and our own user
are answered; to others nothing is said. What is asked may hold secrets: it is told in no
answer, error or log.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from aesp_proxy.daemon.freed import overwrite_freed
from aesp_proxy.errors import AespError

_ANSWER_S_MAX: Final = 30.0
_QUESTION_BYTES_MAX: Final = 64 << 20
_READ_BYTES: Final = 1 << 16
_WITH_VALUES: Final = b'"values"'
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7), struct ucred: pid, uid, gid

type Question = Mapping[str, object]
type Answers = Mapping[str, Callable[[Question], Awaitable[dict[str, object]]]]


async def answer_questions(listener: socket.socket, answers: Answers) -> None:
    """Answer who asks, for ever; ``answers`` has a function for each ``ask``."""
    sock = trio.socket.from_stdlib_socket(listener.dup())

    async def answer(stream: trio.SocketStream) -> None:
        await _answer(stream, answers)

    await trio.serve_listeners(answer, [trio.SocketListener(sock)])


async def _answer(stream: trio.SocketStream, answers: Answers) -> None:
    with trio.move_on_after(_ANSWER_S_MAX):
        async with stream:
            if peer_uid(stream.socket) not in (0, os.geteuid()):
                return
            try:
                question = await _question(stream)
                said = await _said(question, answers)
                held_values = _WITH_VALUES in question
                question[:] = bytes(len(question))
                if held_values:
                    overwrite_freed()
                await stream.send_all(json.dumps(said).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it did not wait for the answer


async def _question(stream: trio.SocketStream) -> bytearray:
    data = bytearray()
    while b"\n" not in data and len(data) <= _QUESTION_BYTES_MAX:
        more = await stream.receive_some(_READ_BYTES)
        if not more:
            break
        data += more
    return data


async def _said(question: bytearray, answers: Answers) -> dict[str, object]:
    try:
        asked = json.loads(question)
    except ValueError:
        return {"error": "the question is not JSON"}
    known = answers.get(str(asked.get("ask"))) if isinstance(asked, dict) else None
    if known is None:
        return {"error": "this service does not answer that"}
    try:
        return await known(asked)
    except AespError as error:
        return {"error": str(error)}


def peer_uid(sock: trio.socket.SocketType) -> int:
    """Return the user who connected."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])

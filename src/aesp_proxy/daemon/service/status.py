"""Answer ``aesp-proxy status``: one JSON object a connection, to root and our own user only."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import trio

_ANSWER_S_MAX: Final = 5.0
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7), struct ucred: pid, uid, gid


async def answer_status(
    listener: socket.socket, status: Callable[[], Awaitable[dict[str, object]]]
) -> None:
    """Answer who asks, for ever."""
    sock = trio.socket.from_stdlib_socket(listener.dup())

    async def answer(stream: trio.SocketStream) -> None:
        await _answer(stream, status)

    await trio.serve_listeners(answer, [trio.SocketListener(sock)])


async def _answer(
    stream: trio.SocketStream, status: Callable[[], Awaitable[dict[str, object]]]
) -> None:
    with trio.move_on_after(_ANSWER_S_MAX):
        async with stream:
            if peer_uid(stream.socket) not in (0, os.geteuid()):
                return
            try:
                await stream.send_all(json.dumps(await status()).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it did not wait for the answer


def peer_uid(sock: trio.socket.SocketType) -> int:
    """Return the user who connected."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])

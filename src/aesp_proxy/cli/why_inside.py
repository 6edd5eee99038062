"""``aesp-proxy why`` for a command under ``run``: it asks at the door that the run keeps.

Inside the walls there is no record to read, only a socket that tells what was refused to
this very session (``daemon/why_door``). Standard library only, and nothing is loaded for it.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Final

from aesp_proxy.daemon.config_values import WHY_VARIABLE
from aesp_proxy.errors import InputError, UnavailableError

_PATIENCE_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 1 << 20
_PARTS: Final = 3


def ask_at_door(where: str, what: str, *, last: int) -> list[dict[str, object]]:
    """Return the last refusals of this session that hold ``what``, the oldest first.

    ``where`` is what `run` has put into the environment: host, port and token.

    UnavailableError when nobody answers, InputError for a place or an answer that is none.
    """
    parts = where.split(" ")
    if len(parts) != _PARTS or not parts[1].isdigit():
        raise InputError(f"{WHY_VARIABLE} names no place", remedy="`aesp-proxy run` sets it")
    host, port, token = parts
    asked = b"\0".join((token.encode(), str(last).encode(), os.fsencode(what), b""))
    try:
        with socket.create_connection((host, int(port)), timeout=_PATIENCE_S) as sock:
            sock.sendall(asked)
            data = _received(sock)
    except (OSError, OverflowError) as error:
        raise _silent(str(error)) from error
    return _rows(data)


def _received(sock: socket.socket) -> bytes:
    parts, size = [], 0
    while size <= _ANSWER_BYTES_MAX and (data := sock.recv(65_536)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _rows(data: bytes) -> list[dict[str, object]]:
    try:
        rows = [json.loads(line) for line in data.splitlines()]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{WHY_VARIABLE} names a place where somebody else answers") from error
    match rows[-1:]:
        case [{"told": int(count)}] if count == len(rows) - 1:
            return rows[:-1]
        case [{"error": str(message)}]:
            raise _silent(message)
        case _:
            raise _silent("it ended in the middle, or does not know us")


def _silent(how: str) -> UnavailableError:
    return UnavailableError(
        f"the run does not say what it refused: {how}",
        where=WHY_VARIABLE,
        remedy="ask again; from outside `aesp-proxy why` reads the record",
    )

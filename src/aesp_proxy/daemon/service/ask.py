"""Ask a running service, over its control socket: how it is, what it looks for."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aesp_proxy.errors import UnavailableError

_ANSWER_BYTES_MAX: Final = 16 << 20
_WAIT_S_MAX: Final = 30.0


def ask_status(path: Path) -> dict[str, object] | None:
    """Return how the service is; see ``ask``."""
    return ask(path, {"ask": "status"})


def ask(path: Path, question: Mapping[str, object]) -> dict[str, object] | None:
    """Return what the service says, None where none runs; UnavailableError if it does not say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S_MAX)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(
                f"cannot ask: {error.strerror or error}", where=str(path),
                remedy="ask as root, or as the user that the service runs as",
            ) from error  # fmt: skip
        try:
            sock.sendall(json.dumps(question).encode() + b"\n")
            said = json.loads(_read(sock))
        except (OSError, ValueError) as error:
            raise UnavailableError("it does not answer", where=str(path)) from error
    if not isinstance(said, dict):
        raise UnavailableError("its answer is none", where=str(path))
    if "error" in said:
        raise UnavailableError(str(said["error"]), where=str(path))
    return said


def _read(sock: socket.socket) -> bytes:
    data = bytearray()
    while len(data) < _ANSWER_BYTES_MAX and (more := sock.recv(65_536)):
        data += more
    return bytes(data)

"""A relay between a client and PostgreSQL that knows where each message of the client ends.

It can end both connections before it passes on the message of a number, or before it passes
back an answer: what happened on the server and what the client heard are then two things.
Source: https://www.postgresql.org/docs/current/protocol-message-formats.html.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Plan:
    """End at the client's message ``number`` (from 0), or swallow the answers from it on."""

    number: int
    swallow: bool = False
    then: Callable[[], None] = lambda: None
    seen: list[str] = field(default_factory=list)
    is_done: bool = False


class Relay:
    """Listens on loopback; the server is on a socket of its own."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.plan: Plan | None = None
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        self._closing = True
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server, contextlib.suppress(OSError):
            server.connect(self._server)
            self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        kept, is_started = b"", False
        while not self._closing:
            for side in select.select([client, server], [], [], 0.05)[0]:
                data = side.recv(65536)
                if not data:
                    return
                if side is server:
                    if self.plan is not None and self.plan.swallow and self._is_due():
                        self._end()
                        return
                    client.sendall(data)
                    continue
                kept += data
                while (size := _first_bytes(kept, is_started=is_started)) and len(kept) >= size:
                    message, kept = kept[:size], kept[size:]
                    if is_started and self._counts(message):
                        self._end()
                        return
                    server.sendall(message)
                    is_started = True

    def _counts(self, message: bytes) -> bool:
        """Count a message; whether both connections end before it is passed on."""
        plan = self.plan
        if plan is None or plan.is_done:
            return False
        is_due = self._is_due()
        plan.seen.append(chr(message[0]))
        return is_due and not plan.swallow

    def _is_due(self) -> bool:
        plan = self.plan
        return plan is not None and not plan.is_done and len(plan.seen) >= plan.number

    def _end(self) -> None:
        plan = self.plan
        assert plan is not None
        plan.is_done = True
        plan.then()


def _first_bytes(data: bytes, *, is_started: bool) -> int:
    """Return the size of the first message, 0 when that is not known yet."""
    at = 1 if is_started else 0
    if len(data) < at + 4:
        return 0
    return at + int.from_bytes(data[at : at + 4])

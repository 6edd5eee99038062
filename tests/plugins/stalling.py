"""Upstream servers that take a connection so far and then break it off, or say nothing more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from aftermath import reset


class Stalling:
    """Takes connections, reads what comes, sends ``says``, and then does as it was told.

    ``then`` is ``"hang"``, ``"reset"``, ``"close"`` or ``"finish"`` (a half-close). It waits for
    bytes before it says or does anything, unless ``at_once``.
    """

    def __init__(self, says: bytes = b"", then: str = "hang", *, at_once: bool = False) -> None:
        self._says, self._then, self._at_once = says, then, at_once
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                self._open.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if not self._at_once:
                sock.recv(65_536)
            if self._says:
                sock.sendall(self._says)
            ends: dict[str, Callable[[], None]] = {
                "reset": lambda: reset(sock),
                "close": sock.close,
                "finish": lambda: sock.shutdown(socket.SHUT_WR),
            }
            ends.get(self._then, lambda: None)()
            while sock.fileno() >= 0 and sock.recv(65_536):
                pass
        sock.close()

    def stop(self) -> None:
        """Close all."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

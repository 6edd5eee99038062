"""A server that answers each request on each connection with bytes that a test wrote."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

Answer = Callable[[int, int], "list[bytes | threading.Event | None]"]


class Scripted:
    """Listens on loopback, in TLS when given a certificate.

    ``answer`` is asked with the numbers of connection and request, from 0, and gives what to
    do: bytes are sent, an event is waited for, None closes the connection.
    """

    def __init__(self, answer: Answer, leaf: Path | None = None) -> None:
        self.heads: list[list[bytes]] = []
        self._answer = answer
        self._context: ssl.SSLContext | None = None
        if leaf is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(leaf)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    @property
    def connections(self) -> int:
        return len(self.heads)

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                self._open.add(sock)
                self.heads.append([])
                self._begin(self._serve, sock, len(self.heads) - 1)

    def _serve(self, raw: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), raw:
            if self._context is None:
                self._converse(raw, number)
                return
            with self._context.wrap_socket(raw, server_side=True) as sock:
                self._open.add(sock)
                self._converse(sock, number)

    def _converse(self, sock: socket.socket, number: int) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = sock.recv(65_536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            self.heads[number].append(head)
            for step in self._answer(number, len(self.heads[number]) - 1):
                if step is None:
                    return
                if isinstance(step, bytes):
                    sock.sendall(step)
                else:
                    step.wait(10)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(20)

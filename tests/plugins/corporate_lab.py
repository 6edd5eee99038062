"""A corporate proxy: CONNECT only, names by a table of its own, with or without a password."""

from __future__ import annotations

import contextlib
import socket
import threading


class Corporate:
    """Listens on loopback; ``asked`` are the heads it was sent."""

    def __init__(
        self,
        places: dict[str, int],
        *,
        authorization: bytes = b"",
        answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        is_silent: bool = False,
    ) -> None:
        self.asked: list[bytes] = []
        self.places, self._authorization = places, authorization
        self._answer, self._is_silent = answer, is_silent
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self._open.add(sock)
            self._begin(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = sock.recv(1)
                if not more:
                    return
                head += more
            self.asked.append(head)
            if self._is_silent:
                sock.recv(1)
                return
            if self._authorization and b": Basic " + self._authorization not in head:
                sock.sendall(
                    b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\n"
                    b"Content-Length: 6\r\n\r\nsecret"
                )
                return
            authority = head.split(b" ")[1].decode()
            port = self.places.get(authority)
            if port is None:
                sock.sendall(b"HTTP/1.1 502 Unknown\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as far:
                self._open.add(far)
                first = far.recv(100) if authority.endswith(":22") else b""
                sock.sendall(self._answer + first)  # in one piece, as proxies may
                self._begin(self._pump, far, sock)
                self._pump(sock, far)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(20)

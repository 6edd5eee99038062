"""A corporate proxy: CONNECT or SOCKS5, names by a table of its own, TLS, a password."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from ipaddress import ip_address

from entries import take


class Socks:
    """The server's side of SOCKS5 (RFC 1928, RFC 1929); ``login`` is what it insists on.

    ``method`` and ``code`` are what it says instead of what is right.
    """

    def __init__(
        self,
        login: tuple[bytes, bytes] | None = None,
        *,
        method: int | None = None,
        code: int | None = None,
        bound: bytes = b"\x01" + bytes(4),
    ) -> None:
        self._login, self._method, self._code, self._bound = login, method, code, bound
        self.given: list[tuple[bytes, bytes]] = []

    def reply(self, code: int) -> bytes:
        if self._code is not None:
            code = self._code
        return b"\x05%c\0%b\0\0" % (code, self._bound)

    def take(self, sock: socket.socket) -> str | None:
        """Take greeting, login and request; return ``HOST:PORT``, or None when it is over."""
        version, count = take(sock, 2)
        offered = take(sock, count)
        assert version == 5
        wanted = 2 if self._login else 0
        chosen = wanted if wanted in offered else 0xFF
        sock.sendall(b"\x05%c" % (chosen if self._method is None else self._method))
        if chosen == 0xFF or self._method is not None:
            return None
        if self._login:
            user = take(sock, take(sock, 2)[1])
            self.given.append((user, take(sock, take(sock, 1)[0])))
            sock.sendall(b"\x01%c" % (self.given[-1] != self._login))
            if self.given[-1] != self._login:
                return None
        assert take(sock, 3) == b"\x05\x01\0"
        kind = take(sock, 1)[0]
        raw = take(sock, {1: 4, 4: 16}.get(kind) or take(sock, 1)[0])
        host = raw.decode() if kind == 3 else str(ip_address(raw))
        return f"{host}:{int.from_bytes(take(sock, 2))}"


class Corporate:
    """Listens on loopback; ``asked`` are the heads it was sent, or ``HOST:PORT`` by SOCKS5."""

    def __init__(
        self,
        places: dict[str, int],
        *,
        authorization: bytes = b"",
        answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        is_silent: bool = False,
        tls: ssl.SSLContext | None = None,
        socks: Socks | None = None,
    ) -> None:
        self.asked: list[bytes] = []
        self.places, self._authorization = places, authorization
        self._answer, self._is_silent = answer, is_silent
        self._tls, self._socks = tls, socks
        self.certificates: list[object] = []
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

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), raw:
            if self._tls is None:
                self._converse(raw)
                return
            with self._tls.wrap_socket(raw, server_side=True) as sock:
                self._open.add(sock)
                self.certificates.append(sock.getpeercert())
                self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        authority = self._socks.take(sock) if self._socks else self._take_head(sock)
        if authority is None:
            return
        if self._socks:
            self.asked.append(authority.encode())
        port = self.places.get(authority)
        if port is None:
            refused = b"HTTP/1.1 502 Unknown\r\nContent-Length: 0\r\n\r\n"
            sock.sendall(self._socks.reply(4) if self._socks else refused)
            return
        answer = self._socks.reply(0) if self._socks else self._answer
        with socket.create_connection(("127.0.0.1", port)) as far:
            self._open.add(far)
            first = far.recv(100) if authority.endswith(":22") else b""
            sock.sendall(answer + first)  # in one piece, as proxies may
            self._begin(self._pump, far, sock)
            self._pump(sock, far)

    def _take_head(self, sock: socket.socket) -> str | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += take(sock, 1)
        self.asked.append(head)
        if self._is_silent:
            sock.recv(1)
            return None
        if self._authorization and b": Basic " + self._authorization not in head:
            sock.sendall(
                b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\n"
                b"Content-Length: 6\r\n\r\nsecret"
            )
            return None
        return head.split(b" ")[1].decode()

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

"""Clients of the entries that are not an HTTP proxy: SOCKS5, and captured connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

GREETING = b"\x05\x01\x00"
SOCKS_REPLIES = {"allowed": 0, "malformed": 1, "unsupported": 1}
REFUSED = 2


def socks_request(host: bytes, port: int, *, command: int = 1) -> bytes:
    """Make a request that names a host by name, whatever the name is."""
    return bytes((5, command, 0, 3, len(host))) + host + struct.pack("!H", port)


def socks(proxy_port: int, host: bytes, port: int) -> tuple[socket.socket, int]:
    """Ask for a connection; return the socket and the code of the reply."""
    sock = socket.create_connection(("127.0.0.1", proxy_port), 10)
    sock.sendall(GREETING + socks_request(host, port))
    assert take(sock, 2) == b"\x05\x00"
    return sock, take(sock, 10)[1]


def take(sock: socket.socket, count: int) -> bytes:
    """Read exactly ``count`` bytes; ``EOFError`` with what there was."""
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError(data)
        data += more
    return data


def rest(sock: socket.socket) -> bytes:
    """Read until the peer has sent its last byte."""
    data = b""
    try:
        while more := sock.recv(65_536):
            data += more
    except ConnectionError:
        pass
    return data


def hello(server_name: str | None, *, alpn: tuple[str, ...] = ("http/1.1",)) -> bytes:
    """Give the first bytes that the TLS of this machine sends for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def with_extension(data: bytes, kind: int, value: bytes) -> bytes:
    """Add an extension to a ClientHello in one record, lengths and all."""
    body = bytearray(data[9:])
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2])
    at += 1 + body[at]
    extensions = bytes(body[at + 2 :]) + struct.pack("!HH", kind, len(value)) + value
    body[at:] = struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3) + bytes(body)
    return data[:3] + struct.pack("!H", len(message)) + message


def hello_of(server_name: bytes) -> bytes:
    """Give a ClientHello whose server name is these bytes, whatever they are."""
    entry = struct.pack("!BH", 0, len(server_name)) + server_name
    return with_extension(hello(None), 0, struct.pack("!H", len(entry)) + entry)


class Peer:
    """A TCP server for one connection at a time that speaks first, or only answers.

    ``received`` is what it was sent. After the client's last byte it says ``bye`` and closes.
    """

    def __init__(self, first: bytes = b"", bye: bytes = b"") -> None:
        self.received: list[bytes] = []
        self._first, self._bye = first, bye
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(20)
                self.received.append(b"")
                with contextlib.suppress(OSError):
                    sock.sendall(self._first)
                    while data := sock.recv(65_536):
                        self.received[-1] += data
                    sock.sendall(self._bye)

    def stop(self) -> None:
        """Stop accepting and wait for what is under way."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)


class TlsPeer:
    """A TLS server with a certificate of its own making; counts what it was asked."""

    def __init__(self, certificate: str, answer: bytes) -> None:
        self.served: list[bytes] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._context, self._answer = context, answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            plain.settimeout(20)
            with contextlib.suppress(OSError), self._context.wrap_socket(plain, True) as sock:
                self.served.append(sock.recv(65_536))
                sock.sendall(self._answer)

    def stop(self) -> None:
        """Stop accepting and wait for what is under way."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)

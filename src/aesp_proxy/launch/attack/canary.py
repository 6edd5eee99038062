"""Canaries on loopback: whatever reaches one is remembered, and some of it answered.

TCP with and without TLS, UDP, unix sockets and a resolver; each in a thread. Nothing here
can be reached from another machine.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple, Self

from aesp_proxy.launch.attack.judge import Sighting

HERE: Final = "127.0.0.1"
# An address of loopback that nobody else serves on, for ports that have a meaning.
LOW_HOST: Final = "127.83.71.1"
LOW_TCP: Final = (80, 443, 22, 8443)
LOW_UDP: Final = (53, 443)
_TICK_S: Final = 0.1
_HANDSHAKE_S_MAX: Final = 3.0
_JOIN_S_MAX: Final = 3.0
_DATA_BYTES_MAX: Final = 1 << 20
_HANDSHAKE: Final = 0x16
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Place(NamedTuple):
    """The addresses that canaries listen on."""

    four: str = HERE
    six: str = "::1"
    low: str = LOW_HOST
    low_tcp: tuple[int, ...] = LOW_TCP
    name: str = "of loopback"


class Canaries:
    """All canaries of one round, and what they saw."""

    def __init__(
        self, directory: Path, tls: ssl.SSLContext, name: str, place: Place | None = None
    ) -> None:
        self._place = place or Place()
        self._directory = directory
        self._tls = tls
        self.abstract = name
        self._seen: list[tuple[str, bytearray]] = []
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets = contextlib.ExitStack()
        self.low: dict[str, list[int]] = {"tcp": [], "udp": []}

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._sockets.close()

    def _open(self) -> None:
        here, six, low, low_tcp, name = self._place
        self.tcp_ports = [self._stream(here, 0, f"a TCP port {name}") for _ in range(3)]
        self.hidden_port = self._stream(here, 0, "a TCP port that nobody told of")
        self.plain_port = self._stream(here, 0, "the origin in the clear")
        self.tls_port = self._stream(here, 0, "the origin")
        self.tcp6_port = self._perhaps(lambda: self._stream(six, 0, "a TCP port over IPv6"))
        self.udp_port = self._datagram(here, 0, f"a UDP port {name}")
        self.udp6_port = self._perhaps(lambda: self._datagram(six, 0, f"a UDP port {name}, IPv6"))
        self.dns_port = self._datagram(here, 0, "the resolver")
        for port in low_tcp:
            self._low("tcp", partial(self._stream, low, port, f"TCP port {port} {name}"))
        for port in LOW_UDP:
            self._low("udp", partial(self._datagram, low, port, f"UDP port {port} {name}"))
        self.unix_path = str(self._directory / "canary.sock")
        self._unix(self.unix_path, socket.SOCK_STREAM, "a unix socket")
        self._unix(self.unix_path + ".datagrams", socket.SOCK_DGRAM, "a unix socket of datagrams")
        self._unix("\0" + self.abstract, socket.SOCK_STREAM, "an abstract socket")
        self.vsock_port = self._perhaps(self._vsock)

    def _perhaps(self, make: Callable[[], int]) -> int:
        try:
            return make()
        except OSError:
            return 0

    def _low(self, protocol: str, make: Callable[[], int]) -> None:
        """Listen on a port that needs a privilege and may be taken; 0 where it cannot be."""
        if port := self._perhaps(make):
            self.low[protocol].append(port)

    def _stream(self, host: str, port: int, place: str) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self._bound(socket.socket(family, socket.SOCK_STREAM), (host, port))
        sock.listen(64)
        self._start(self._accept, sock, place)
        return int(sock.getsockname()[1])

    def _datagram(self, host: str, port: int, place: str) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self._bound(socket.socket(family, socket.SOCK_DGRAM), (host, port))
        self._start(self._receive, sock, place)
        return int(sock.getsockname()[1])

    def _unix(self, path: str, kind: socket.SocketKind, place: str) -> None:
        sock = self._bound(socket.socket(socket.AF_UNIX, kind), path)
        if kind == socket.SOCK_STREAM:
            sock.listen(8)
        self._start(self._accept if kind == socket.SOCK_STREAM else self._receive, sock, place)

    def _vsock(self) -> int:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        self._bound(sock, (socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        sock.listen(8)
        port = int(sock.getsockname()[1])
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as trial:
            trial.settimeout(_TICK_S)
            trial.connect((1, port))
        self._start(self._accept, sock, "a vsock port")
        return port

    def _bound(self, sock: socket.socket, address: str | tuple[object, ...]) -> socket.socket:
        self._sockets.enter_context(sock)
        sock.settimeout(_TICK_S)
        sock.bind(address)
        return sock

    def _start(self, serve: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=serve, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _note(self, place: str) -> bytearray:
        data = bytearray()
        self._seen.append((place, data))
        return data

    def _accept(self, sock: socket.socket, place: str) -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except TimeoutError:
                if self._ending.is_set():
                    return
                continue
            self._start(self._serve, connection, place)

    def _receive(self, sock: socket.socket, place: str) -> None:
        while True:
            try:
                data, sender = sock.recvfrom(65536)
            except TimeoutError:
                if self._ending.is_set():
                    return
                continue
            self._note(place).extend(data)
            if place == "the resolver":
                with contextlib.suppress(OSError):
                    sock.sendto(answer_to(data, LOW_HOST), sender)

    def _serve(self, connection: socket.socket, place: str) -> None:
        seen = self._note(place)
        with contextlib.suppress(OSError), connection:
            if self._first(connection) == bytes([_HANDSHAKE]):
                connection.settimeout(_HANDSHAKE_S_MAX)
                with self._tls.wrap_socket(connection, server_side=True) as inside:
                    self._converse(inside, seen)
            else:
                self._converse(connection, seen)

    def _first(self, connection: socket.socket) -> bytes:
        """Wait, for as long as the round takes, for the first byte; leave it there."""
        connection.settimeout(_TICK_S)
        while True:
            try:
                return connection.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                if self._ending.is_set():
                    return b""

    def _converse(self, connection: socket.socket, seen: bytearray) -> None:
        connection.settimeout(_TICK_S)
        while len(seen) < _DATA_BYTES_MAX:
            try:
                data = connection.recv(65536)
            except TimeoutError:
                # What was sent before the end is there before it is quiet.
                if self._ending.is_set():
                    return
                continue
            if not data:
                return
            seen += data
            if is_whole(bytes(seen)):
                connection.sendall(_ANSWER)
                return

    def settle(self) -> None:
        """Take what is still on its way, then stop listening."""
        self._ending.set()
        for thread in self._threads:
            thread.join(_JOIN_S_MAX)

    def sightings(self) -> list[Sighting]:
        """Return all that was seen until now."""
        return [Sighting(place=place, data=bytes(data)) for place, data in self._seen]


def is_whole(data: bytes) -> bool:
    """Tell whether a request has ended, as far as an honest server would say."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"transfer-encoding":
            return body == b"0\r\n\r\n" or (b"\r\n0\r\n" in body and body.endswith(b"\r\n\r\n"))
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return True


def answer_to(query: bytes, address: str) -> bytes:
    """Answer a query for an A record with an address, any other with none (RFC 1035)."""
    at = 12
    while at < len(query) and query[at]:
        at += query[at] + 1
    asked = query[12 : at + 5]
    is_address = asked[-4:-2] == b"\0\1"
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_address), 0, 0)
    if not is_address:
        return head + asked
    return head + asked + struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + ip_address(address).packed


@contextlib.contextmanager
def held_connection(port: int) -> Iterator[socket.socket]:
    """Hold a connection to a canary, to be found by whoever gets hold of it."""
    with socket.create_connection((HERE, port)) as sock:
        yield sock

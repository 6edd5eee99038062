"""A relay on loopback that cuts, holds up or answers itself, by bytes that have passed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Fault:
    """What happens to a connection.

    ``up`` and ``down`` are bytes let through to the server and to the client before it is cut,
    or held up where ``hangs``. ``says`` is answered to each request instead, none is relayed.
    """

    up: int | None = None
    down: int | None = None
    hangs: bool = False
    says: bytes = b""


PASS = Fault()


class Relay:
    """Relays to ``port`` of loopback; ``set`` decides for connections from then on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._fault = PASS
        self._times = 0
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def set(self, fault: Fault = PASS, *, times: int = 1_000_000) -> None:
        """Have ``fault`` befall the next ``times`` connections; those that stand are cut."""
        with self._lock:
            self._fault, self._times, self.connections = fault, times, 0
            self._cut(self._open)

    def stop(self) -> None:
        """Close all."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads[0].join()
        with self._lock:
            self._cut(self._open)
        for thread in self._threads[1:]:
            thread.join()

    def _cut(self, sockets: set[socket.socket]) -> None:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                fault = self._fault if self._times > 0 else PASS
                self._times -= 1
                self._open.add(client)
            self._begin(self._serve, client, fault)

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        if fault.says:
            self._answer(client, fault.says)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            self._end(client)
            return
        with self._lock:
            self._open.add(server)
        down = partial(self._pump, server, client, fault.down, hangs=fault.hangs)
        self._begin(down)
        self._pump(client, server, fault.up, hangs=fault.hangs)

    def _answer(self, client: socket.socket, says: bytes) -> None:
        with contextlib.suppress(OSError):
            while client.recv(1_048_576):
                client.sendall(says)
        self._end(client)

    def _pump(
        self, source: socket.socket, sink: socket.socket, left: int | None, *, hangs: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if left is None:
                    sink.sendall(data)
                    continue
                sink.sendall(data[:left])
                left -= min(left, len(data))
                if not left:
                    if hangs:
                        while source.recv(65_536):
                            pass
                    break
            else:
                sink.shutdown(socket.SHUT_WR)
        if left == 0:
            self._cut({source, sink})
        self._end(source)

    def _end(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)
        sock.close()


@contextmanager
def relaying(port: int) -> Iterator[Relay]:
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.stop()

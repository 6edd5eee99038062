"""An HTTP/2 server by the h2 library: interim answers, trailers, bodies as large as one likes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events

Fields = list[tuple[str, str]]


class H2Origin:
    """Listens on loopback with a certificate; ``heads`` are the requests it was sent.

    ``resumed`` says of each connection whether its TLS session was an older one's; ``sent`` counts
    the bytes of bodies. What is sent to ``/deaf`` is read, and no window opened for it.
    """

    def __init__(self, leaf: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(leaf)
        self._context.set_alpn_protocols(["h2"])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.trailers: list[dict[str, str]] = []
        self.resumed: list[bool] = []
        self.sent = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                self._open.add(sock)
                self._begin(self._serve, sock)

    def _serve(self, raw: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, h2.exceptions.ProtocolError),
            self._context.wrap_socket(raw, server_side=True) as sock,
        ):
            self._open.add(sock)
            self.resumed.append(bool(sock.session_reused))
            _Connection(self, sock).run()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(20)


class _Connection:
    def __init__(self, origin: H2Origin, sock: ssl.SSLSocket) -> None:
        self._origin = origin
        self._sock = sock
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self._unsent: dict[int, int] = {}

    def run(self) -> None:
        self._h2.initiate_connection()
        self._flush()
        while data := self._sock.recv(65_536):
            for event in self._h2.receive_data(data):
                self._take(event)
            for stream in list(self._unsent):
                self._send_more(stream)
            self._flush()

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def _take(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            head = dict(event.headers)
            self._origin.heads.append(head)
            self._requests[event.stream_id] = head, bytearray()
            if head.get("expect") == "100-continue":
                self._h2.send_headers(event.stream_id, [(":status", "100")])
            if head[":path"] == "/early":
                self._h2.send_headers(event.stream_id, [(":status", "413")], end_stream=True)
                self._h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)
        elif isinstance(event, h2.events.DataReceived):
            self._requests[event.stream_id][1].extend(event.data)
            if self._requests[event.stream_id][0][":path"] == "/deaf":
                return
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._unsent.pop(event.stream_id, None)
            self._requests.pop(event.stream_id, None)
        elif isinstance(event, h2.events.TrailersReceived):
            self._origin.trailers.append(dict(event.headers))
        elif isinstance(event, h2.events.StreamEnded):
            head, body = self._requests.pop(event.stream_id)
            self._origin.bodies.append(bytes(body))
            if head[":path"] != "/early":
                self._answer(event.stream_id, head[":path"], body)

    def _answer(self, stream: int, path: str, body: bytearray) -> None:
        fields: Fields = [(":status", "200")]
        if path == "/hints":
            hints = [(":status", "103"), ("link", "</style.css>"), ("alt-svc", 'h3=":443"')]
            self._h2.send_headers(stream, hints)
        if path == "/alt-svc":
            self._h2.advertise_alternative_service(b'h3=":443"', stream_id=stream)
            fields.append(("alt-svc", 'h3=":443"'))
        self._h2.send_headers(stream, fields)
        if path.startswith("/big/"):
            self._unsent[stream] = int(path[5:])
        elif path == "/trailers":
            self._h2.send_data(stream, b"ok")
            self._h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
        else:
            self._h2.send_data(stream, b"%d bytes" % len(body), end_stream=True)

    def _send_more(self, stream: int) -> None:
        left = self._unsent.pop(stream)
        while left:
            room = min(self._h2.local_flow_control_window(stream), 16_384, left)
            if room <= 0:
                self._unsent[stream] = left
                return
            self._h2.send_data(stream, b"x" * room)
            left -= room
            self._origin.sent += room
            self._flush()
        self._h2.end_stream(stream)

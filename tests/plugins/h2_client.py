"""A small HTTP/2 client by the h2 library, which can also be told to send what it should not."""

from __future__ import annotations

import contextlib
import ssl

import h2.config
import h2.connection
import h2.events

_ENDS = (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)


class H2Client:
    """One HTTP/2 connection to an allowed host, by the h2 library.

    ``interim`` are the interim heads of the last answer, ``head`` its head, ``trailers`` its
    trailers; ``reset`` is the code that its stream was reset with.
    """

    def __init__(self, tls: ssl.SSLSocket, *, is_honest: bool = True) -> None:
        self.fields: dict[str, str] = {}
        """The head of the last response."""
        self._tls = tls
        config = h2.config.H2Configuration(
            header_encoding="utf-8",
            validate_outbound_headers=is_honest,
            normalize_outbound_headers=is_honest,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self.interim: list[dict[str, str]] = []
        self.head: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.reset: int | None = None
        tls.sendall(self._h2.data_to_send())

    def ask(
        self, path: str = "/x", body: bytes = b"", *, authority: str = "allowed.test", **extra: str
    ) -> tuple[int | None, bytes]:
        """Return (status, body); status None when the stream was reset without one."""
        method = "POST" if body else "GET"
        headers = [(":method", method), (":scheme", "https"), (":authority", authority)]
        return self.send([*headers, (":path", path), *extra.items()], body)

    def send(self, headers: list[tuple[str, str]], body: bytes = b"") -> tuple[int | None, bytes]:
        """Send these header fields as they are; return as ``ask`` does."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, headers, end_stream=not body)
        self._flush()
        self.interim, self.head, self.trailers, self.reset = [], {}, {}, None
        return self._exchange(stream, body)

    def begin(self, path: str, *, method: str = "POST", **extra: str) -> int:
        """Send a head whose body is to come; wait for an interim answer; return the stream."""
        headers = [(":method", method), (":scheme", "https"), (":authority", "allowed.test")]
        stream: int = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, [*headers, (":path", path), *extra.items()])
        self._flush()
        self.interim = []
        while not self.interim:
            for event in self._h2.receive_data(self._tls.recv(65_536)):
                self._note(event)
            self._flush()
        return stream

    def finish(
        self, stream: int, body: bytes, trailers: dict[str, str] | None = None
    ) -> tuple[int | None, bytes]:
        """Send the body of a stream that was begun; return as ``ask`` does."""
        if trailers is None:
            return self._exchange(stream, body)
        self._h2.send_data(stream, body)
        self._h2.send_headers(stream, list(trailers.items()), end_stream=True)
        return self._exchange(stream, b"", ended=True)

    def _note(self, event: object) -> None:
        if isinstance(event, h2.events.InformationalResponseReceived):
            self.interim.append(dict(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            self.head = dict(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            self.reset = int(event.error_code)

    def _exchange(
        self, stream: int, body: bytes, *, ended: bool = False
    ) -> tuple[int | None, bytes]:
        status, data = None, b""
        sent_all = ended or not body
        ended = False
        while not ended:
            while body:
                room = min(self._h2.local_flow_control_window(stream), 16_384)
                if room <= 0:
                    break
                self._h2.send_data(stream, body[:room])
                body = body[room:]
            if not body and not sent_all:
                self._h2.end_stream(stream)
                sent_all = True
            self._flush()
            received = self._tls.recv(65_536)
            if not received:
                break
            for event in self._h2.receive_data(received):
                self._note(event)
                if isinstance(event, h2.events.ResponseReceived):
                    self.fields = dict(event.headers)
                    status = int(self.fields[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, _ENDS):
                    ended = True
        self._flush()
        return status, data

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self._tls.sendall(self._h2.data_to_send())

"""The origin's answers over HTTP/2, by the h2 library."""

from __future__ import annotations

import ssl

import h2.config
import h2.connection
import h2.events

CHUNK_BYTES = 1 << 16


def serve(sock: ssl.SSLSocket, body: bytes) -> None:
    """Answer ``GET /bytes/N`` on one connection until the peer closes it."""
    link = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    link.initiate_connection()
    sock.sendall(link.data_to_send())
    while data := sock.recv(CHUNK_BYTES):
        for event in link.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[b":path"]
                content = body[: int(path.rpartition(b"/")[2])]
                link.send_headers(
                    event.stream_id,
                    [(":status", "200"), ("content-length", str(len(content)))],
                )
                link.send_data(event.stream_id, content, end_stream=True)
        sock.sendall(link.data_to_send())

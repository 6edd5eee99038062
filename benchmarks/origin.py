"""The server that every variant talks to: TLS 1.3, P-256, a blocking thread a connection.

The same process serves all variants of a run, so what it costs is the same for
each of them. ``/bytes/N`` answers N bytes, ``/upload`` counts what comes in,
``/sse?n=N&ms=M`` sends N events M milliseconds apart, each with the time it was
sent (``time.monotonic_ns``, one clock for the whole machine), ``/ws`` echoes
WebSocket frames of up to 125 bytes. A client that offers HTTP/2 gets ``/bytes/N`` by it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import socket
import ssl
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

from benchmarks import origin_http2

CHUNK_BYTES = 1 << 16
HEAD_BYTES_MAX = 1 << 16
THREAD_STACK_BYTES = 1 << 18
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FRAME_BYTES_MAX = 125


class ClosedError(Exception):
    """The peer has closed its side."""


class Connection:
    """One connection: reads heads and bodies, writes answers."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.rest = b""

    def more(self) -> bytes:
        """Return the next bytes."""
        data, self.rest = self.rest or self.sock.recv(CHUNK_BYTES), b""
        if not data:
            raise ClosedError
        return data

    def exactly(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        data = bytearray()
        while len(data) < count:
            data += self.more()
        self.rest = bytes(data[count:])
        return bytes(data[:count])

    def head(self) -> bytes:
        """Return the next request head, without the empty line."""
        data = self.more()
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_BYTES_MAX:
                raise ClosedError
            data += self.more()
        self.rest = data[end + 4 :]
        return data[:end]

    def line(self) -> bytes:
        """Return the next line, without its end."""
        data = self.more()
        while (end := data.find(b"\r\n")) < 0:
            data += self.more()
        self.rest = data[end + 2 :]
        return data[:end]

    def skip_body(self, fields: dict[bytes, bytes]) -> int:
        """Read the request body and return how many bytes it had."""
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            total = 0
            while size := int(self.line().partition(b";")[0], 16):
                self.skip(size + 2)
                total += size
            while self.line():
                pass
            return total
        length = int(fields.get(b"content-length", b"0"))
        self.skip(length)
        return length

    def skip(self, count: int) -> None:
        """Read and drop ``count`` bytes."""
        while count > 0:
            data = self.more()
            if len(data) > count:
                self.rest = data[count:]
            count -= len(data)

    def answer(self, body: bytes, kind: bytes = b"application/octet-stream") -> None:
        """Send a complete answer in one write."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self.sock.sendall(head % (kind, len(body)) + body)


def serve_connection(sock: ssl.SSLSocket, body: bytes) -> None:
    """Answer requests on one connection until the peer closes it."""
    connection = Connection(sock)
    try:
        sock.do_handshake()
        if sock.selected_alpn_protocol() == "h2":
            origin_http2.serve(sock, body)
            return
        while True:
            serve_request(connection, body)
    except (ClosedError, OSError, ValueError):
        pass
    finally:
        sock.close()


def serve_request(connection: Connection, body: bytes) -> None:
    """Answer one request."""
    line, *rows = connection.head().split(b"\r\n")
    fields = {
        name.lower(): value.strip() for name, _, value in (row.partition(b":") for row in rows)
    }
    url = urlsplit(line.split(b" ")[1].decode())
    received = connection.skip_body(fields)
    query = {key: int(values[0]) for key, values in parse_qs(url.query).items()}
    match url.path.split("/")[1:]:
        case ["bytes", count]:
            send_bytes(connection, int(count), body)
        case ["upload"]:
            connection.answer(b'{"bytes": %d}' % received, b"application/json")
        case ["sse"]:
            send_events(connection, query["n"], query["ms"])
        case ["ws"]:
            echo_frames(connection, fields)
        case _:
            connection.sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def send_bytes(connection: Connection, count: int, body: bytes) -> None:
    """Answer ``count`` bytes, a small answer in one write with its head."""
    if count <= CHUNK_BYTES:
        connection.answer(body[:count])
        return
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
    view = memoryview(body)
    while count > 0:
        connection.sock.sendall(view[: min(count, len(view))])
        count -= len(view)


def send_events(connection: Connection, count: int, every_ms: int) -> None:
    """Send server-sent events, each with the monotonic time it left, then close."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    connection.sock.sendall(head)
    for number in range(count):
        if number:
            time.sleep(every_ms / 1000)
        connection.sock.sendall(b"data: %d\n\n" % time.monotonic_ns())
    raise ClosedError


def echo_frames(connection: Connection, fields: dict[bytes, bytes]) -> None:
    """Answer the WebSocket handshake (RFC 6455) and echo short frames until one is a close."""
    digest = hashlib.sha1(fields[b"sec-websocket-key"] + WEBSOCKET_GUID)
    connection.sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest.digest()) + b"\r\n\r\n"
    )
    while True:
        opcode, length = connection.exactly(2)
        mask = connection.exactly(4)
        data = connection.exactly(min(length & 0x7F, FRAME_BYTES_MAX))
        plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        connection.sock.sendall(bytes((opcode, len(plain))) + plain)
        if opcode & 0x0F == 0x08:
            raise ClosedError


def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Accept for ever, a thread a connection."""
    threading.stack_size(THREAD_STACK_BYTES)
    body = honest_text(1 << 20)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=serve_connection, args=(wrapped, body), daemon=True).start()


def honest_text(count: int) -> bytes:
    """Return ``count`` bytes that look like what an agent sends: chat JSON with prose in it."""
    words = (
        b"the record keeps every answer that was given and says which line decided it so "
        b"that a person can check later what left the machine and why it was let pass"
    ).split()
    out = bytearray()
    state = 1
    while len(out) < count:
        out += b'{"role": "user", "content": "'
        for _ in range(40):
            state = (state * 48271) % 0x7FFFFFFF
            out += words[state % len(words)] + b" "
        out += b'", "index": %d}\n' % (state % 9973)
    return bytes(out[:count])


def main() -> int:
    """Serve on a free loopback port, print it, and end when standard input is closed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.origin")
    parser.add_argument("--certificate", required=True, help="PEM file: certificate and key")
    given = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=serve, args=(listener, context), daemon=True).start()
    while os.read(0, 4096):
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

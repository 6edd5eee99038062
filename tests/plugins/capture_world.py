"""The world outside a captured host: servers that say who got through to them.

Run in the world's network: ``capture_world.py CERTIFICATE``. Each line of its output is a
connection or datagram that arrived: protocol, port, from where. A line of its input is answered
with ``asked``, after all that arrived before it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys

PLAIN = (22, 80, 4567, 5432)
TLS = (443, 8443)
DATAGRAMS = (53, 443, 9999)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nworld\n"


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request, or send back what is none."""
    port, peer = writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[0]
    print("tcp", port, peer, flush=True)
    try:
        data = await reader.read(4096)
        if data:
            writer.write(ANSWER if data.startswith(b"GET ") else b"echo:" + data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """Answers every datagram."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        print("udp", self.port, addr[0], flush=True)
        self.transport.sendto(b"world", addr)


async def answer_marks() -> None:
    """Say ``asked`` for each line of the input, after what was accepted before it."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while await reader.readline():
        for _ in range(3):  # What one round of the loop accepts is printed in the next.
            await asyncio.sleep(0)
        print("asked", flush=True)


async def main() -> None:
    """Serve both families, until the input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    loop = asyncio.get_running_loop()
    for port in (*PLAIN, *TLS):
        tls = context if port in TLS else None
        await asyncio.start_server(converse, ["0.0.0.0", "::"], port, ssl=tls)
    for port in DATAGRAMS:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            sock = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            await loop.create_datagram_endpoint(lambda port=port: Datagrams(port), sock=sock)
    print("ready", flush=True)
    await answer_marks()


if __name__ == "__main__":
    asyncio.run(main())

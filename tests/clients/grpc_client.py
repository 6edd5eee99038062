"""A gRPC client of the matrix: unary (compressed), both streams, trailing metadata.

``grpc_client.py URL``: the service is ``lab.Open``, or ``lab.Closed`` where the path says so.
"""

from __future__ import annotations

import sys
from queue import SimpleQueue
from urllib.parse import urlsplit

import grpc

WAIT_S = 20


def converse(echo: grpc.StreamStreamMultiCallable) -> list[bytes]:
    """Send three messages, each when the last was answered: nothing may be held back."""
    asked: SimpleQueue[bytes | None] = SimpleQueue()
    asked.put(b"0")
    heard = []
    for answer in echo(iter(asked.get, None), timeout=WAIT_S):
        heard.append(answer)
        asked.put(b"%d" % len(heard) if len(heard) < 3 else None)
    return heard


def main(url: str) -> None:
    """Call every method; a refusal ends the program with the status and its text."""
    parts = urlsplit(url)
    service = "lab.Closed" if parts.path.startswith("/closed") else "lab.Open"
    with grpc.secure_channel(f"{parts.hostname}:443", grpc.ssl_channel_credentials()) as channel:
        try:
            unary, call = channel.unary_unary(f"/{service}/Unary").with_call(
                b"one" + b" " * 5_000, timeout=WAIT_S, compression=grpc.Compression.Gzip
            )
            trailers = dict(call.trailing_metadata())
            stream = [*channel.unary_stream(f"/{service}/Stream")(b"three", timeout=WAIT_S)]
            heard = converse(channel.stream_stream(f"/{service}/Echo"))
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
    print(unary.decode(), len(stream), b" ".join(heard).decode(), trailers["lab-sum"])


main(sys.argv[1])

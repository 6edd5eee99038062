"""A real HTTP/1.1 server (uvicorn): events, uploads, downloads, WebSockets, in TLS or not."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import zlib
from pathlib import Path
from typing import Any

import brotli
import uvicorn
import zstandard

_TEXT = b"words that compress " * 20_000
CODED = {
    "gzip": gzip.compress(_TEXT),
    "deflate": zlib.compress(_TEXT),
    "br": brotli.compress(_TEXT),
    "zstd": zstandard.compress(_TEXT),
}


class AsgiOrigin:
    """Runs in a thread; ``release`` lets the events after the first go, ``heads`` were sent."""

    def __init__(self, leaf: Path | None = None, listening: socket.socket | None = None) -> None:
        self.release = threading.Event()
        self.heads: list[dict[bytes, bytes]] = []
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_level="critical",
            interface="asgi3",
            ssl_certfile=leaf,
            ssl_keyfile=leaf,
            ws="websockets-sansio",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],))
        self._thread.start()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.heads.append(dict(scope["headers"]))
        if scope["type"] == "websocket":
            await self._echo(receive, send)
        elif scope["path"] == "/events":
            await self._events(send)
        elif scope["path"].startswith("/coded/"):
            coding = scope["path"][7:]
            await _begin(send, (b"content-encoding", coding.encode()))
            await send({"type": "http.response.body", "body": CODED[coding]})
        elif scope["path"].startswith("/big/"):
            await self._big(int(scope["path"][5:]), send)
        else:
            await self._count(receive, send)

    async def _echo(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            kept = {name: event[name] for name in ("text", "bytes") if event.get(name) is not None}
            await send({"type": "websocket.send", **kept})

    async def _events(self, send: Any) -> None:
        await _begin(send, (b"content-type", b"text/event-stream"))
        for number in range(3):
            body = b"id: %d\ndata: event %d\n\n" % (number, number)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if number == 0:  # the next only when the client has seen this one
                await asyncio.to_thread(self.release.wait, 10)
        await send({"type": "http.response.body"})

    async def _big(self, count: int, send: Any) -> None:
        await _begin(send, (b"content-length", b"%d" % count))
        block = bytes(range(256)) * 1024
        for start in range(0, count, len(block)):
            body = block[: count - start]
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    async def _count(self, receive: Any, send: Any) -> None:
        count, more = 0, True
        while more:
            event = await receive()
            count, more = count + len(event.get("body", b"")), event.get("more_body", False)
        answer = b"%d bytes" % count
        await _begin(send, (b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.body", "body": answer})

    def stop(self) -> None:
        self.release.set()
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(20)
        self._listening.close()


async def _begin(send: Any, *fields: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(fields)})

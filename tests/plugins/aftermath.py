"""After something went wrong: nothing is left behind, and an honest request works."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from egress_lab import Proxy

OK = b"GET /ok HTTP/1.1\r\nHost: allowed.test\r\n\r\n"


class Held(NamedTuple):
    """What a proxy in this process holds on to."""

    connections: int
    tasks: int
    descriptors: int


def held(proxy: Proxy) -> Held:
    """Count it now."""

    async def tasks() -> int:
        return len(asyncio.all_tasks()) - 1

    count = asyncio.run_coroutine_threadsafe(tasks(), proxy._loop).result(10)
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return Held(proxy.interceptor.open_connections, count, descriptors)


@contextlib.contextmanager
def leaves_nothing(proxy: Proxy) -> Iterator[None]:
    """Hold what is done inside to leaving no connection, task or descriptor, and no damage."""
    assert proxy.ask(OK).endswith(b"0 bytes")
    proxy.wait_for(lambda: held(proxy).connections == 0, "the first request is over")
    before = held(proxy)
    yield
    gc.collect()
    assert proxy.ask(OK).endswith(b"0 bytes")
    proxy.wait_for(
        lambda: all(a <= b for a, b in zip(held(proxy), before, strict=True)),
        f"back at {before} from {held(proxy)}",
    )


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

"""Python's clients of the matrix: ``python_client.py LIBRARY URL`` prints what came back.

Each is used as its own page shows first: no proxy, no certificate and no retry is
named here. What goes wrong is a traceback, as whoever wrote such a program would see.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

WAIT_S = 20


def by_urllib(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(url, timeout=WAIT_S) as answer:
        return str(answer.read().decode())


def by_requests(url: str) -> str:
    import requests

    answer = requests.get(url, timeout=WAIT_S)
    if answer.status_code != 200:
        sys.exit(f"{answer.status_code} {answer.text}")
    return answer.text


def by_httpx(url: str) -> str:
    import httpx

    answer = httpx.get(url, timeout=WAIT_S)
    if answer.status_code != 200:
        sys.exit(f"{answer.status_code} {answer.text}")
    return answer.text


def by_aiohttp(url: str) -> str:
    import aiohttp

    async def get() -> str:
        async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
            text = await answer.text()
            if answer.status != 200:
                sys.exit(f"{answer.status} {text}")
            return text

    return asyncio.run(get())


def by_websockets(url: str) -> str:
    """Two messages, each answered: one as text, one compressed and large."""
    from websockets.sync.client import connect

    with connect(url.replace("https:", "wss:"), open_timeout=WAIT_S) as socket:
        said = []
        for message in ("one", "two" * 50_000):
            socket.send(message)
            said.append(str(socket.recv(WAIT_S)))
    return f"{said[0]} {len(said[1])}"


LIBRARIES: dict[str, Callable[[str], str]] = {
    "urllib": by_urllib,
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "websockets": by_websockets,
}

if __name__ == "__main__":
    print(LIBRARIES[sys.argv[1]](sys.argv[2]))

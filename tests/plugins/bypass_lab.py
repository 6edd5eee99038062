"""Where bypass cases are played: running proxies, a resolver that can lie, an echo server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.server
from egress_lab import Proxy
from websockets.exceptions import ConnectionClosed

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.egress import dialler, racing
from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.intercept.egress.pool import PoolLimits
from aesp_proxy.model.host import Host

POLICY_FILE = Path(__file__).parent.parent / "bypass" / "policy.yaml"


class Resolver:
    """Answers for names under ``.test``, a list of addresses at a time; knows no other."""

    def __init__(self) -> None:
        self._answers: dict[str, list[list[str]]] = {}
        self.lookups: Counter[str] = Counter()

    def say(self, name: str, answers: list[list[str]]) -> None:
        """Answer the next lookups of a name so, one answer each; the last one stays."""
        self._answers[name] = list(answers)
        self.lookups[name] = 0

    async def __call__(self, host: Host, port: int) -> tuple[dialler.Address, ...]:
        self.lookups[host.name] += 1
        answers = self._answers.get(host.name)
        if not answers:
            raise UnavailableError(f"cannot resolve {host.name}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return tuple(ip_address(text) for text in answer)


class Echo:
    """A WebSocket server that remembers what it was sent."""

    def __init__(self) -> None:
        self.received: list[str | bytes] = []
        self._server = websockets.sync.server.serve(self._serve, "127.0.0.1", 0, max_size=None)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _serve(self, connection: websockets.sync.server.ServerConnection) -> None:
        with suppress(ConnectionClosed):  # a refusal closes with 1008
            for message in connection:
                self.received.append(message)
                connection.send(message)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()


class Labs:
    """The proxies, one at a time: mitmproxy's options are one for the whole process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.resolver = Resolver()
        self.echo = Echo()
        self.dialled: list[str] = []
        self._running: tuple[str, Proxy] | None = None
        self._started = 0

    def __getitem__(self, name: str) -> Proxy:
        if self._running is None or self._running[0] != name:
            self._end()
            self._running = name, self._start(name)
        return self._running[1]

    def _start(self, name: str) -> Proxy:
        policy = POLICY_FILE.read_text("utf-8")
        settings: dict[str, object] = {"frame_bytes_max": 100_000}
        if name == "names":  # an operator's own address rule, so that a name may lead to it
            policy = policy.replace("allow:\n", 'allow:\n      - "127.0.0.1:*"\n', 1)
        elif name == "hasty":
            settings["head_s_max"] = 0.2
        self._started += 1
        directory = self.directory / f"{self._started}-{name}"
        directory.mkdir()
        # Each case means a connection of its own; what rests in the pool has its own tests.
        settings.setdefault("pool", PoolLimits(connections_max=0))
        proxy = Proxy(directory, policy, **settings)
        static = proxy.interceptor._settings.static
        static["ws.test", None] = StaticAddress(address="127.0.0.1", port=self.echo.port)
        # A forged resolver on the operator's side: the name leads to another's server.
        static["twin.test", None] = StaticAddress(address="127.0.0.1", port=proxy.origin.tls_port)
        return proxy

    def forget_pieces(self) -> None:
        """Make what comes a session of its own, as far as pieces of secrets go."""
        if self._running is not None:
            self._running[1].pipeline.pieces.clear()

    def stop(self) -> None:
        """Stop what was started."""
        self._end()
        self.echo.stop()

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running[1].stop()


def _watched(labs: Labs, connect: Any) -> Any:
    """Remember every address that is dialled; nothing here may leave this machine."""

    async def watched(self: Any, places: Sequence[racing.Place]) -> Any:
        labs.dialled += [f"{address}:{port}" for address, port in places]
        if not all(ip_address(address).is_loopback for address, _ in places):
            raise OSError("a test tried to leave this machine")
        return await connect(self, places)

    return watched


@contextmanager
def running_labs(directory: Path) -> Iterator[Labs]:
    """Give the labs; the resolver of the proxies is ours for as long."""
    labs = Labs(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialler, "_resolve", labs.resolver)
        patch.setattr(racing.Racer, "connect", _watched(labs, racing.Racer.connect))
        try:
            yield labs
        finally:
            labs.stop()

"""Of several checked addresses, the first that answers is the connection (RFC 8305)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from aesp_proxy.intercept.egress import racing
from aesp_proxy.intercept.egress.racing import ATTEMPT_DELAY_S, Place, Racer

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def alive() -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


@pytest.fixture
def dead() -> Iterator[Place]:
    """An IPv6 address that does not answer: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_INET6))
        listening.bind(("::1", 0))
        listening.listen(0)
        place = listening.getsockname()[:2]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_INET6))
            waiting.setblocking(False)
            waiting.connect_ex(place)
        yield place


@pytest.fixture
def refusing() -> Place:
    """An IPv6 address at which nobody listens."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return sock.getsockname()[:2]


def connect(racer: Racer, places: list[Place], loop=asyncio.new_event_loop) -> Place:
    async def once() -> Place:
        async with asyncio.timeout(10):
            with await racer.connect(places) as sock:
                return sock.getpeername()[:2]

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(once())


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """The addresses that asyncio is told to connect to, in order."""
    made: list[Place] = []
    connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def recorded(self, sock, place):
        made.append(place)
        await connect(self, sock, place)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", recorded)
    return made


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_an_address_that_does_not_answer_costs_the_attempt_delay(alive, dead, loop):
    began = time.monotonic()
    assert connect(Racer(), [dead, alive], loop) == alive
    assert ATTEMPT_DELAY_S * 0.9 < time.monotonic() - began < 5


def test_a_dead_family_costs_it_once(alive, dead, attempts):
    racer = Racer()
    assert [connect(racer, [dead, alive]) for _ in range(2)] == [alive, alive]
    assert attempts == [dead, alive, alive]


def test_an_address_that_refuses_costs_nothing(alive, refusing, attempts, monkeypatch):
    monkeypatch.setattr(racing, "ATTEMPT_DELAY_S", 60)
    assert connect(Racer(), [refusing, alive]) == alive
    assert attempts == [refusing, alive]


def test_the_families_take_turns(refusing, attempts):
    four, six = ("127.0.0.1", 1), ("::1", 1)
    places = [refusing, six, six, four, four]
    with pytest.raises(OSError, match="Connect call failed"):
        connect(Racer(), places)
    assert attempts == [refusing, four, six, four, six]


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_those_who_lost_are_closed(alive, dead, loop):
    before = len(list(Path("/proc/self/fd").iterdir()))
    connect(Racer(), [dead, alive, dead], loop)
    assert len(list(Path("/proc/self/fd").iterdir())) == before

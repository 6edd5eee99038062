"""The bounds of what rests, and the last look at a connection before it is lent."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from aesp_proxy.intercept.egress.pool import Pool, PoolLimits
from aesp_proxy.model.principal import Principal

WHO = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")
KEY = ("https", "a.test", 443)


class Upstream:
    """A connection's layers, of which only these three matter here."""

    def __init__(self, key: tuple[str, str, int] = KEY, *, may_rest: bool = True) -> None:
        self.key = key
        self.may_rest = lambda: may_rest
        self.owner: object = None

    def hand_to(self, owner: object) -> None:
        self.owner = owner


class Lab:
    """Connected sockets, one end in asyncio, the other at hand."""

    def __init__(self) -> None:
        self.peers: list[socket.socket] = []
        self.loop = asyncio.get_running_loop()

    async def wire(self, *, dialled_ago_s: float = 0, paused: bool = False) -> Any:
        near, far = socket.socketpair()
        self.peers.append(far)
        transport, _ = await self.loop.create_connection(asyncio.Protocol, sock=near)
        if paused:
            transport.pause_reading()
        dialled_at = self.loop.time() - dialled_ago_s
        return SimpleNamespace(
            transport=transport, vouched=None, dialled_at=dialled_at, paused=paused
        )

    async def rest(self, pool: Pool, upstream: Upstream | None = None, **how: Any) -> Upstream:
        made = upstream or Upstream()
        assert pool.rest(WHO, made, await self.wire(**how))
        return made

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request):
    """Run a test's coroutine on each kind of loop, and close what it opened."""

    def run(scene: Callable[[Lab], Awaitable[None]], limits: PoolLimits | None = None) -> None:
        async def whole() -> None:
            lab = Lab()
            lab.pool = Pool(limits or PoolLimits())
            try:
                await scene(lab)
            finally:
                lab.pool.close()
                for peer in lab.peers:
                    peer.close()
                await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(whole())

    return run


def test_the_one_that_has_rested_for_the_shortest_time_is_lent_first(play):
    async def scene(lab):
        made = [await lab.rest(lab.pool) for _ in range(3)]
        assert [lab.pool.take(WHO, KEY).upstream for _ in range(3)] == made[::-1]
        assert lab.pool.take(WHO, KEY) is None

    play(scene)


def test_only_the_same_principal_and_place_is_lent_to(play):
    async def scene(lab):
        await lab.rest(lab.pool)
        for name in ("principal_id", "agent_id", "session_id", "tenant_id", "source_ip"):
            assert lab.pool.take(dataclasses.replace(WHO, **{name: "x"}), KEY) is None
        for key in (("http", *KEY[1:]), ("https", "b.test", 443), ("https", "a.test", 444)):
            assert lab.pool.take(WHO, key) is None
        assert lab.pool.take(WHO, KEY) is not None

    play(scene)


@pytest.mark.parametrize("speaks", [b"HTTP/1.1 200 OK\r\n", b""], ids=["a byte", "the end"])
def test_what_the_kernel_holds_and_nobody_has_read_is_seen_before_it_is_lent(play, speaks):
    async def scene(lab):
        good = await lab.rest(lab.pool)
        await lab.rest(lab.pool)
        lab.peers[1].sendall(speaks) if speaks else lab.peers[1].close()
        # Nothing has been read in between: no callback has run since.
        assert lab.pool.take(WHO, KEY).upstream is good
        assert len(lab.pool) == 0

    play(scene)


@pytest.mark.parametrize("speaks", [b"x", b""], ids=["a byte", "the end"])
def test_what_comes_while_it_rests_ends_it(play, speaks):
    async def scene(lab):
        await lab.rest(lab.pool)
        lab.peers[0].sendall(speaks) if speaks else lab.peers[0].shutdown(socket.SHUT_WR)
        await lab.until(lambda: len(lab.pool) == 0)
        lab.peers[0].settimeout(10)
        await asyncio.sleep(0)
        assert await asyncio.to_thread(lab.peers[0].recv, 1) == b""

    play(scene)


def test_words_of_its_own_layers_end_it_too(play):
    async def scene(lab):
        for call in (lambda owner: owner.upstream_data(b"x"), lambda o: o.upstream_closed()):
            upstream = await lab.rest(lab.pool)
            assert list(call(upstream.owner)) == []
            assert len(lab.pool) == 0

    play(scene)


def test_one_host_and_all_together_are_bounded_and_the_oldest_goes(play):
    async def scene(lab):
        first = [await lab.rest(lab.pool) for _ in range(3)]
        others = [await lab.rest(lab.pool, Upstream(("https", f"{n}.test", 1))) for n in range(3)]
        assert len(lab.pool) == 4
        taken = [lab.pool.take(WHO, KEY), *(lab.pool.take(WHO, each.key) for each in others)]
        assert [t and t.upstream for t in taken] == [first[2], *others]

    play(scene, PoolLimits(per_host_max=2, connections_max=4))


def test_neither_rest_nor_life_is_endless(play):
    async def scene(lab):
        await lab.rest(lab.pool, dialled_ago_s=400)
        assert lab.pool.take(WHO, KEY) is None
        young = await lab.rest(lab.pool, dialled_ago_s=200)
        lab.pool.expire()
        assert len(lab.pool) == 1
        young.owner.since -= 20
        lab.pool.expire()
        assert len(lab.pool) == 0

    play(scene)


def test_what_may_not_rest_is_left_to_be_closed(play):
    async def scene(lab):
        assert not lab.pool.rest(WHO, Upstream(may_rest=False), await lab.wire())
        gone = await lab.wire()
        gone.transport.close()
        assert not lab.pool.rest(WHO, Upstream(), gone)
        stuck = await lab.wire()
        stuck.transport.write(b"x" * 10_000_000)
        assert not lab.pool.rest(WHO, Upstream(), stuck)
        assert not Pool(PoolLimits(connections_max=0)).rest(WHO, Upstream(), await lab.wire())
        lab.pool.close()
        assert not lab.pool.rest(WHO, Upstream(), await lab.wire())

    play(scene)


def test_one_whose_reading_was_held_is_listened_to(play):
    async def scene(lab):
        await lab.rest(lab.pool, paused=True)
        lab.peers[0].sendall(b"x")
        await lab.until(lambda: len(lab.pool) == 0)

    play(scene)

"""Upstream connections that rest between two clients of the same agent.

Only HTTP/1.1 of the own layer rests here, and only a connection of which nothing is in doubt:
every exchange on it was a GET or OPTIONS without a body, answered by a message that says its
own length, read to its exact end (``Turn.leaves_clean``). Whoever comes next has the same
principal, scheme, host and port; TLS settings, client certificate and corporate proxy follow
from these, as one process has one set of them. The address that was checked when it was dialled
is checked again. A single byte, or the end, while it rests ends it: what follows an answer is
never another's answer (RFC 9112 section 11.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mitmproxy.proxy import commands
from mitmproxy.proxy.layer import CommandGenerator

from aesp_proxy.model.principal import Principal

if TYPE_CHECKING:
    from aesp_proxy.intercept.egress.upstream import Key, Upstream
    from aesp_proxy.intercept.egress.wire import Vouched, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many connections may rest, in all and for one agent and host, and for how long.

    ``age_s_max`` is since it was dialled: DNS may say something else after a while. With
    ``connections_max`` 0 none rests.
    """

    connections_max: int = 64
    per_host_max: int = 8
    idle_s_max: float = 15.0
    age_s_max: float = 300.0


class Rest(commands.Command):
    """Command: this client needs the upstream connection no more; it may rest."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream


class Resting(asyncio.Protocol):
    """One connection at rest: owner of its layers, protocol of its socket."""

    def __init__(self, pool: Pool, principal: Principal, upstream: Upstream, wire: Wire) -> None:
        self._pool = pool
        self.place = principal, upstream.key
        self.upstream = upstream
        self.transport: asyncio.Transport = wire.transport  # type: ignore[assignment]
        self.vouched: Vouched | None = wire.vouched
        self.dialled_at = wire.dialled_at
        self.since = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        """Nobody has asked for anything (asyncio callback)."""
        del data
        self._pool.drop(self)

    def eof_received(self) -> bool:
        """The peer will not answer another request (asyncio callback)."""
        self._pool.drop(self)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it (asyncio callback)."""
        del exc
        self._pool.drop(self)

    def upstream_opened(self, error: str | None) -> CommandGenerator[None]:
        """It is open (called by its layers)."""
        del error
        yield from ()

    def upstream_data(self, data: bytes) -> CommandGenerator[None]:
        """There was more in what held the answer (called by its layers)."""
        self.data_received(data)
        yield from ()

    def upstream_closed(self) -> CommandGenerator[None]:
        """The peer's last word came with the answer (called by its layers)."""
        self._pool.drop(self)
        yield from ()

    def is_silent(self) -> bool:
        """Whether the kernel holds neither a byte nor the end of it; looked at, not waited for."""
        poll = select.poll()
        with contextlib.suppress(OSError, ValueError):
            poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
            return not self.transport.is_closing() and not poll.poll(0)
        return False


class Pool:
    """All connections at rest in one worker."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._resting: dict[Resting, None] = {}  # the longest at rest first
        self._closed = False

    def __len__(self) -> int:
        return len(self._resting)

    def rest(self, principal: Principal, upstream: Upstream, wire: Wire) -> bool:
        """Take over the socket of ``wire``; False when it has to be closed instead."""
        transport, limits = wire.transport, self._limits
        if (
            self._closed
            or limits.connections_max == 0
            or not upstream.may_rest()
            or transport is None
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return False
        if wire.paused:
            transport.resume_reading()
        resting = Resting(self, principal, upstream, wire)
        transport.set_protocol(resting)
        upstream.hand_to(resting)
        self._resting[resting] = None
        same = [each for each in self._resting if each.place == resting.place]
        if len(same) > limits.per_host_max:
            self.drop(same[0])
        elif len(self._resting) > limits.connections_max:
            self.drop(next(iter(self._resting)))
        return True

    def take(self, principal: Principal, key: Key) -> Resting | None:
        """Take out the connection that rests for the shortest time; None where none is sound."""
        place = principal, key
        now = asyncio.get_running_loop().time()
        for resting in reversed(self._resting):
            if resting.place == place:
                break
        else:
            return None
        if self._is_over(resting, now) or not resting.is_silent():
            self.drop(resting)
            return self.take(principal, key)
        del self._resting[resting]
        return resting

    def drop(self, resting: Resting) -> None:
        """Close one, whatever it was."""
        if self._resting.pop(resting, resting) is None:
            resting.transport.close()

    def expire(self) -> None:
        """Close those that have rested, or lived, for too long."""
        now = asyncio.get_running_loop().time()
        for resting in [each for each in self._resting if self._is_over(each, now)]:
            self.drop(resting)

    def _is_over(self, resting: Resting, now: float) -> bool:
        limits = self._limits
        return (
            now - resting.since > limits.idle_s_max or now - resting.dialled_at > limits.age_s_max
        )

    def close(self) -> None:
        """Close all, and take no more."""
        self._closed = True
        for resting in list(self._resting):
            self.drop(resting)

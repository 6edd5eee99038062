"""Names by address that several workers know alike: told to each other over sockets.

A query may come to one worker and the connection to another. What was answered is put into
the queue of every other worker before the answer leaves, and each empties its own queue
before it looks a name up: so whoever has the answer finds the name known. A queue that is
full (its worker is dead, or stuck) loses what comes: there the connection is nameless, and
nameless is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import override

from aesp_proxy.intercept.names import Names

_BYTES_MAX = 65_536
_Address = IPv4Address | IPv6Address


class SharedNames(Names):
    """Names of all workers: ``inbox`` is this one's queue, ``others`` lead to those of the others.

    Sockets of SOCK_SEQPACKET. Times are of CLOCK_MONOTONIC, which is the same to all.
    """

    __slots__ = ("_inbox", "_others")

    def __init__(self, inbox: socket.socket, others: Sequence[socket.socket]) -> None:
        super().__init__()
        self._inbox, self._others = inbox, tuple(others)
        for sock in (inbox, *self._others):
            sock.setblocking(False)

    @override
    def remember(
        self, name: str, addresses: Iterable[_Address], *, ttl_s: float, now: float
    ) -> None:
        known = tuple(addresses)
        super().remember(name, known, ttl_s=ttl_s, now=now)
        told = "\n".join((name, str(ttl_s), str(now), *map(str, known))).encode()
        for sock in self._others:
            try:
                sock.send(told)
            except OSError:
                continue  # full, or nobody there

    @override
    def of(self, address: _Address, *, now: float) -> tuple[str, ...]:
        self.hear()
        return super().of(address, now=now)

    def hear(self) -> bool:
        """Take in what others have answered; False when nobody is left to tell anything."""
        while True:
            try:
                data = self._inbox.recv(_BYTES_MAX)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            name, ttl_s, now, *addresses = data.decode().split("\n")
            known = tuple(map(ip_address, addresses))
            super().remember(name, known, ttl_s=float(ttl_s), now=float(now))

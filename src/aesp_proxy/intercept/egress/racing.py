"""Connects to the first of several addresses that answers: Happy Eyeballs (RFC 8305).

The families take turns, the next address is tried when the last has failed or not answered
within 250 ms, and whoever answers first is the connection; the others are closed. Where
IPv6 was led and IPv4 won, IPv4 leads for ten minutes: a network whose IPv6 is dead costs
the wait once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from aiohappyeyeballs import start_connection

ATTEMPT_DELAY_S: Final = 0.25  # RFC 8305 section 5: the recommended Connection Attempt Delay
_REMEMBERED_S: Final = 600.0

Place = tuple[str, int]
"""An address as text, without a zone, and a port."""


class Racer:
    """Opens TCP sockets; remembers which family has answered of late."""

    def __init__(self) -> None:
        self._ipv4_leads_until = 0.0

    async def connect(self, places: Sequence[Place]) -> socket.socket:
        """Connect to one of ``places``, which have all been checked; at least one.

        The caller sets the time limit. Raises ``OSError`` when none of them answers.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._ipv4_leads_until:
            places = sorted(places, key=lambda place: _family(place) == socket.AF_INET6)
        # proto must be TCP: with 0 asyncio does not set TCP_NODELAY (44 ms a response).
        infos = [
            (_family(place), socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place) for place in places
        ]
        try:
            sock = await start_connection(infos, happy_eyeballs_delay=ATTEMPT_DELAY_S, interleave=1)
        except RuntimeError as error:  # uvloop's word for a descriptor in use
            raise OSError(str(error)) from error
        if _family(places[0]) == socket.AF_INET6 and sock.family == socket.AF_INET:
            self._ipv4_leads_until = loop.time() + _REMEMBERED_S
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def _family(place: Place) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in place[0] else socket.AF_INET

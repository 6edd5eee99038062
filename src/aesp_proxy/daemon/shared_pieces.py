"""Pieces of secrets that several workers know alike: told to each other over sockets.

A session's requests come to any worker. What one lets leave of it is put into the queue of
every other before it leaves, and each empties its own queue before it decides: so pieces
that come one after another meet, whoever takes them. Of two that come at the very same time
at least one worker hears of the other's before its own has left, as each looks once more
when it has told.

What is told are the pieces themselves, which every worker has in its memory anyway, and of
registered values their fingerprint and which bytes were said. A queue that is full (its
worker is stuck) loses what comes, and that is counted and told.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import ormsgpack

from aesp_proxy.decide.secrets.pieces import Unit
from aesp_proxy.errors import InputError

_BYTES_MAX: Final = 1 << 18
_QUEUE_BYTES: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Bytes of a registered value that a session has said, a bit each."""

    fingerprint: str
    bits: int


class PieceQueues:
    """Queues between workers: ``inbox`` is this one's, ``others`` lead to those of the others.

    Sockets of SOCK_SEQPACKET. ``is_over`` once nobody is left to tell anything. ``lose`` is
    called for each piece that a full queue did not take.
    """

    __slots__ = ("_inbox", "_lose", "_others", "is_over")

    def __init__(
        self,
        inbox: socket.socket,
        others: Sequence[socket.socket],
        lose: Callable[[], None] = lambda: None,
    ) -> None:
        self.is_over = False
        self._lose = lose
        self._inbox, self._others = inbox, tuple(others)
        for sock in (inbox, *self._others):
            sock.setblocking(False)
        for sock in self._others:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)

    def tell(self, principal: str, piece: Unit | Said) -> None:
        """Put a piece that is about to leave into the queues of the others."""
        packed = ormsgpack.packb([principal, *_packed(piece)])
        for sock in self._others:
            try:
                sock.send(packed)
            except BlockingIOError:
                self._lose()
            except ConnectionError:
                continue  # nobody there; what cannot be said at all refuses the request

    def heard(self) -> Iterator[tuple[str, Unit | Said]]:
        """Yield what others have told, each with the principal it is of; never waits.

        InputError for what no worker says.
        """
        while True:
            try:
                data = self._inbox.recv(_BYTES_MAX)
            except (BlockingIOError, ConnectionError):
                return  # nothing there now; what cannot be heard at all refuses the request
            if not data:
                self.is_over = True
                return
            yield _unpacked(data)


def _packed(piece: Unit | Said) -> list[object]:
    if isinstance(piece, Said):
        size = (piece.bits.bit_length() + 7) // 8
        return [piece.fingerprint, piece.bits.to_bytes(size, "big")]
    return [piece.kind, piece.host, list(piece.slots)]


def _unpacked(data: bytes) -> tuple[str, Unit | Said]:
    try:
        told = ormsgpack.unpackb(data)
    except ValueError as error:
        raise InputError("a worker told what is no piece") from error
    match told:
        case [str(principal), str(fingerprint), bytes(bits)]:
            return principal, Said(fingerprint=fingerprint, bits=int.from_bytes(bits, "big"))
        case [str(principal), str(kind), str(host), [*slots]]:
            pieces = tuple(one for one in slots if isinstance(one, bytes))
            return principal, Unit(kind=kind, host=host, slots=pieces)
        case _:
            raise InputError("a worker told what is no piece")

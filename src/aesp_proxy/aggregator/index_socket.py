"""Questions to an index that only one process may open: asked over a socket beside it.

An embedded ClickHouse locks its directory, so the indexing process, which writes it,
answers too. What travels are the questions of ``EventIndex`` and rows, never statements:
whoever reaches the socket can ask and change nothing. One connection is one question: it is
sent whole, then the answer is read to its end. The socket is its owner's alone (0600).
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Final, Protocol

import ormsgpack

from aesp_proxy.aggregator.ports import EventCount, EventCursor, EventQuery, EventRow
from aesp_proxy.errors import AespError, ConfigError, RecordError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aesp_proxy.aggregator.store.index_search import Keep

QUESTION_BYTES_MAX: Final = 65_536
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
AT_ONCE_MAX: Final = 4
QUESTION_S_MAX: Final = 5.0
GRACE_S: Final = 5.0
_ERRORS: Final = {kind.__name__: kind for kind in (ConfigError, RecordError, UnavailableError)}


class NobodyAnswersError(UnavailableError):
    """No process answers for the index."""


class Answering(Protocol):
    """An index that may be asked by several threads."""

    def within(self, query_s_max: float) -> Answering:
        """Return the same, for questions that may take less."""

    def position(self) -> int:
        """Return the position up to which batches are indexed."""

    def find(self, query: EventQuery) -> list[EventRow]:
        """Return matching events."""

    def count(self, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
        """Return how many there are."""


class IndexService:
    """Answers for an index, on threads of this process, until it is closed."""

    def __init__(self, index: Answering, path: Path) -> None:
        self._index = index
        self._path = path
        self._turns = threading.Semaphore(AT_ONCE_MAX)
        self._closing = threading.Event()
        path.unlink(missing_ok=True)  # the caller holds the lock: who made it is dead
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with _short(path) as name:
                self._listener.bind(name)
            self._listener.listen(64)
        finally:
            os.umask(before)
        self._thread = threading.Thread(target=self._accept, name="index-service", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more; what is being answered is."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for _ in range(AT_ONCE_MAX):
            self._turns.acquire(timeout=GRACE_S)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._turns.acquire()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                connection.settimeout(QUESTION_S_MAX)
                connection.sendall(self._answer(_read(connection, QUESTION_BYTES_MAX)))
        finally:
            self._turns.release()

    def _answer(self, question: bytes) -> bytes:
        try:
            asked, values, by, seconds_max = ormsgpack.unpackb(question)
            index = self._index.within(float(seconds_max))
            return ormsgpack.packb(["", _ask(index, str(asked), values, tuple(by))])
        except AespError as error:
            kind = type(error).__name__
            said = (error.message, error.where, error.remedy)
            return ormsgpack.packb([kind if kind in _ERRORS else "UnavailableError", said])
        except (ormsgpack.MsgpackDecodeError, TypeError, ValueError, KeyError):
            return ormsgpack.packb(["UnavailableError", ("is not asked in our words", "", "")])


class SocketIndexReader:
    """The reading side, for any process of the same owner. UnavailableError when none answers."""

    def __init__(self, path: Path, *, query_s_max: float) -> None:
        self._path = path
        self._query_s_max = query_s_max

    def close(self) -> None:
        """Nothing is kept open."""

    def position(self) -> int:
        """Return the position up to which batches are indexed."""
        return int(self._ask("position", (), ()))

    def find(self, query: EventQuery, keep: Keep | None = None) -> list[EventRow]:
        """Return matching events, newest first; who answers knows paths and rules itself."""
        del keep
        return [
            EventRow(**dict(zip(_ROW, row, strict=True)))
            for row in self._ask("find", astuple(query), ())
        ]

    def count(self, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
        """Return how many matching events there are by ``by``, most first."""
        found = self._ask("count", astuple(query), by)
        return [EventCount(count=count, values=tuple(texts)) for count, texts in found]

    def _ask(self, asked: str, values: tuple[Any, ...], by: tuple[str, ...]) -> Any:  # noqa: ANN401 - numbers and lists
        with ExitStack() as stack:
            try:
                name = stack.enter_context(_short(self._path))
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.settimeout(self._query_s_max + GRACE_S)
                connection.connect(name)
                connection.sendall(ormsgpack.packb([asked, values, by, self._query_s_max]))
                connection.shutdown(socket.SHUT_WR)
                kind, said = ormsgpack.unpackb(_read(connection, ANSWER_BYTES_MAX))
            except (OSError, ValueError) as error:
                raise NobodyAnswersError(
                    "the index is not answering",
                    where=str(self._path),
                    remedy="see whether the aggregator runs and indexes",
                ) from error
        if kind:
            message, where, remedy = said
            raise _ERRORS[kind](message, where=where, remedy=remedy)
        return said


_ROW: Final = tuple(EventRow.__dataclass_fields__)


def _ask(index: Answering, asked: str, values: list[Any], by: tuple[str, ...]) -> Any:  # noqa: ANN401 - numbers and lists
    match asked:
        case "position":
            return index.position()
        case "find":
            return [astuple(row) for row in index.find(_query_of(values))]
        case "count":
            return [astuple(count) for count in index.count(_query_of(values), by)]
        case _:
            raise ValueError(asked)


def _query_of(values: list[Any]) -> EventQuery:
    names = EventQuery.__dataclass_fields__
    given = dict(zip(names, values, strict=True))
    if given["cursor"] is not None:
        fields = EventCursor.__dataclass_fields__
        given["cursor"] = EventCursor(**dict(zip(fields, given["cursor"], strict=True)))
    return EventQuery(**given)


def _read(connection: socket.socket, bytes_max: int) -> bytes:
    data = bytearray()
    while more := connection.recv(65_536):
        data += more
        if len(data) > bytes_max:
            raise OSError("too long")
    return bytes(data)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of ``path`` of a few bytes: a socket's has 107 at most (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

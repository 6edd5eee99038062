"""Fuzz target: whatever a corporate proxy says leads on, or is an error that says what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.egress.corporate_speech import ask_http, ask_socks
from aesp_proxy.model.host import parse_host

HOST = parse_host("a.test")


class FindingError(AssertionError):
    """A promise that did not hold."""


class _Line:
    """Says what it was given, and then no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def send(self, data: bytes) -> None:
        """Take what is sent."""

    async def receive(self, count: int) -> bytes:
        """Give exactly so many bytes, as a line does, or its error."""
        if len(self._data) < count:
            raise UnavailableError("the corporate proxy closed")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def abort(self) -> None:
        """Do nothing."""


def _run(asking: Coroutine[None, None, None]) -> None:
    with contextlib.suppress(UnavailableError, StopIteration):
        asking.send(None)
        asking.close()
        raise FindingError("it waits for something")


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a return or an UnavailableError is a finding."""
    _run(ask_http(_Line(data), HOST, 443, b""))
    _run(ask_http(_Line(b"HTTP/1.1 407 x\r\nProxy-Authenticate: " + data), HOST, 443, b"x"))
    _run(ask_socks(_Line(data), HOST, 443, None))
    _run(ask_socks(_Line(b"\x05\x02" + data), HOST, 443, (b"user", b"word")))

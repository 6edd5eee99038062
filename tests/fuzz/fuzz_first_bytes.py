"""Fuzz target: what a client's first bytes are, a ClientHello in pieces, SOCKS in pieces.

The first byte says where the rest is cut in two: read in one piece or two, it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from aesp_proxy.errors import InputError
from aesp_proxy.model.host import parse_host
from aesp_proxy.normalize.first_bytes import Protocol, recognise
from aesp_proxy.normalize.socks import read_greeting, read_request
from aesp_proxy.normalize.tls_hello import ClientHello, HelloReader


class FindingError(AssertionError):
    """A promise that did not hold."""


def outcome(call: Callable[[], object]) -> object:
    """Run a parser; anything but a value or an InputError is a finding."""
    try:
        return call()
    except InputError as error:
        return type(error)


def hello_of(parts: list[bytes]) -> ClientHello | None:
    """Read a ClientHello as it comes, until it is whole."""
    reader, found = HelloReader(), None
    for part in parts:
        found = found or reader.feed(part)
    return found


def fuzz_one(data: bytes) -> None:
    """Run one input."""
    rest, cut = data[1:], data[0] if data else 0
    first, second = rest[:cut], rest[cut:]
    early, late = recognise(first), recognise(rest)
    if early is not None and early is not late:
        raise FindingError("what was recognised has become something else")
    if (late is Protocol.TLS) != (rest[:1] == b"\x16"):
        raise FindingError("TLS is not what begins with a handshake")
    whole = outcome(lambda: hello_of([rest]))
    if outcome(lambda: hello_of([first, second])) != whole:
        raise FindingError("a ClientHello in two pieces is another one")
    if isinstance(whole, ClientHello) and whole.server_name:
        outcome(lambda: parse_host(whole.server_name))
    for parse in (read_greeting, read_request):
        told, sooner = (outcome(partial(parse, part)) for part in (rest, first))
        if sooner is not None and sooner != told:
            raise FindingError("SOCKS in two pieces is another request")

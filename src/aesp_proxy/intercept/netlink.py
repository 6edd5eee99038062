"""Netlink messages by hand (netlink(7)): made, sent, acknowledged, and read back in dumps.

Standard library only: what isolates a command starts with little. Nothing has to be
installed, and nothing is started to talk to the kernel.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLA_F_NESTED: Final = 0x8000
_KIND_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_REPLY_BYTES: Final = 65536
_WAIT_S_MAX: Final = 5.0
_DUMPS_MAX: Final = 5


class Received(NamedTuple):
    """One message: its kind and flags, and what comes after the header."""

    kind: int
    flags: int
    body: bytes


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one message, padded to four bytes."""
    length = _HEADER.size + len(payload)
    return _HEADER.pack(length, kind, flags, sequence, 0) + payload + bytes(-length % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(parts))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of each attribute; what is cut off is left out."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            return
        yield kind & _KIND_MASK, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def messages(data: bytes) -> Iterator[Received]:
    """Yield the messages of a datagram; what is cut off is left out."""
    while len(data) >= _HEADER.size:
        length, kind, flags, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield Received(kind, flags, data[_HEADER.size : length])
        data = data[(length + 3) & ~3 :]


def ask(protocol: int, requests: bytes, *, acknowledged: int) -> None:
    """Send requests and await so many acknowledgements; OSError for the first refusal."""
    with _link(protocol) as link:
        link.sendto(requests, (0, 0))
        while acknowledged > 0:
            for each in messages(link.recv(_REPLY_BYTES)):
                if each.kind == _NLMSG_ERROR:
                    _raise_refusal(each)
                    acknowledged -= 1


def dump(protocol: int, kind: int, body: bytes) -> list[Received]:
    """Return all that the kernel tells of a kind; OSError where it refuses to.

    A dump during which something changed is asked for again.
    """
    for _ in range(_DUMPS_MAX):
        found, is_whole = _dumped(protocol, kind, body)
        if is_whole:
            return found
    raise OSError(0, "it changes faster than it can be read")


def _dumped(protocol: int, kind: int, body: bytes) -> tuple[list[Received], bool]:
    found: list[Received] = []
    is_whole = True
    with _link(protocol) as link:
        link.sendto(message(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, body), (0, 0))
        while True:
            for each in messages(link.recv(_REPLY_BYTES)):
                is_whole = is_whole and not each.flags & _NLM_F_DUMP_INTR
                if each.kind == _NLMSG_DONE:
                    return found, is_whole
                if each.kind == _NLMSG_ERROR:
                    _raise_refusal(each)
                found.append(each)


def _link(protocol: int) -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    link.settimeout(_WAIT_S_MAX)
    return link


def _raise_refusal(answer: Received) -> None:
    number = -int(struct.unpack_from("=i", answer.body)[0])
    if number:
        raise OSError(number, os.strerror(number))

"""Messages between the reaper and what it has inside: lines, descriptors, and who sends.

A pair of SOCK_SEQPACKET sockets, so that a message is a message. The kernel writes the
sender's process id into each in the receiver's own terms (SCM_CREDENTIALS, unix(7)):
that is how the reaper knows what a process is called out here.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_BYTES_MAX: Final = 4096
_DESCRIPTORS_MAX: Final = 253  # SCM_MAX_FD
_CREDENTIALS: Final = struct.Struct("=iII")


class Message(NamedTuple):
    """One message; no words when the other side is gone."""

    words: list[str]
    sender: int
    descriptors: list[int]


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the reaper's end and the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


def send(link: socket.socket, line: str, descriptors: Sequence[int] = ()) -> None:
    """Send one message; OSError when the other side is gone."""
    socket.send_fds(link, [line.encode("ascii")], list(descriptors))


def receive(link: socket.socket) -> Message:
    """Wait for one message."""
    space = socket.CMSG_SPACE(4 * _DESCRIPTORS_MAX) + socket.CMSG_SPACE(_CREDENTIALS.size)
    try:
        data, notes, _, _ = link.recvmsg(_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        data, notes = b"", []
    sender = 0
    descriptors = array.array("i")
    for level, kind, value in notes:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(value[: len(value) - len(value) % descriptors.itemsize])
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(value)[0]
    return Message(data.decode("ascii", "replace").split(), sender, list(descriptors))

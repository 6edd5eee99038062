"""Whose a connection is: the user of the socket at its other end, on this machine.

sock_diag(7): one question to the kernel and one answer, in a system call each, without a
privilege. A socket that its program has closed already is nobody's: the kernel would say
root.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aesp_proxy.intercept.netlink import NLM_F_REQUEST, message, messages

Place = tuple[IPv4Address | IPv6Address, int]
OwnerOf = Callable[[Place, Place], "int | None"]
"""The user id of the socket of one place that is connected to another; None where unknown."""

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
# struct inet_diag_req_v2: family, protocol, extensions, states; then inet_diag_sockid.
_REQUEST: Final = struct.Struct("=BBBxI")
_PORTS: Final = struct.Struct(">HH")
_ANY_DEVICE_NO_COOKIE: Final = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_ANSWER: Final = struct.Struct("=II")
_ANSWER_AT: Final = 64  # of idiag_uid and idiag_inode in struct inet_diag_msg
_ANSWER_BYTES: Final = 4096
_ADDRESS_BYTES: Final = 16


class SocketOwners:
    """Asks the kernel; where it may not be asked nobody is known."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._link: socket.socket | None = None
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.suppress(OSError):
            self._link = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)

    def close(self) -> None:
        """Ask no more."""
        if self._link is not None:
            self._link.close()

    def of(self, local: Place, remote: Place) -> int | None:
        """Return the user of the TCP socket at ``local`` that is connected to ``remote``."""
        if self._link is None:
            return None
        number = next(self._numbers) & 0xFFFFFFFF
        request = message(_SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, number, _question(local, remote))
        try:
            self._link.send(request)
            # It was answered before the call came back; an old answer is passed over.
            while data := self._link.recv(_ANSWER_BYTES):
                if struct.unpack_from("=I", data, 8)[0] == number:
                    return _told(data)
        except OSError:
            return None
        return None


def _question(local: Place, remote: Place) -> bytes:
    address, port = local
    other, other_port = remote
    return b"".join(
        (
            _REQUEST.pack(_FAMILY[address.version], socket.IPPROTO_TCP, 0, 0xFFFFFFFF),
            _PORTS.pack(port, other_port),
            address.packed.ljust(_ADDRESS_BYTES, b"\0"),
            other.packed.ljust(_ADDRESS_BYTES, b"\0"),
            _ANY_DEVICE_NO_COOKIE,
        )
    )


def _told(data: bytes) -> int | None:
    for answer in messages(data):
        if answer.kind == _SOCK_DIAG_BY_FAMILY and len(answer.body) >= _ANSWER_AT + _ANSWER.size:
            uid, inode = _ANSWER.unpack_from(answer.body, _ANSWER_AT)
            return int(uid) if inode else None
    return None

"""The standard descriptors that the agent is given: none may be a way out by itself.

A network socket keeps the namespace that it was made in, and can be connected anew; so
can a unix socket that is not connected for good. Whoever holds one is outside already.
"""

from __future__ import annotations

import os
import socket
import stat

_STANDARD = (0, 1, 2)


def ways_out() -> list[int]:
    """Return those of the descriptors 0 to 2 that could be connected to somewhere else."""
    return [number for number in _STANDARD if _is_way_out(number)]


def _is_way_out(number: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        sock = socket.socket(fileno=os.dup(number))
    except OSError:
        return False
    with sock:
        if sock.family != socket.AF_UNIX or sock.type == socket.SOCK_DGRAM:
            return True
        try:
            sock.getpeername()
        except OSError:
            return True
        return False

"""Load one of our modules before it is known what it will be told.

Loading is most of what it takes to start a worker, and needs nothing that the launcher
still has to find out or make. So ``run`` starts this first, by ``spawned``:
``aesp_proxy.daemon.early MODULE CHANNEL_FD`` loads MODULE, waits on the channel for
options and sockets, and becomes the module as if it had been started with them.

The channel is a unix socket that keeps messages apart (SOCK_SEQPACKET). It carries one:
the options as a JSON list of words, each with the socket of the same place
(SCM_RIGHTS). When it ends without, there is nothing to do.
"""

from __future__ import annotations

import gc
import importlib
import json
import socket
import sys
from collections.abc import Sequence
from typing import Final

_WORDS_BYTES_MAX: Final = 65_536
_SOCKETS_MAX: Final = 253  # SCM_MAX_FD


def give(channel: socket.socket, given: Sequence[tuple[str, socket.socket]]) -> None:
    """Hand over sockets, each with its option, and close the channel.

    OSError when the other end is gone.
    """
    words = json.dumps([name for name, _ in given]).encode()
    with channel:
        socket.send_fds(channel, [words], [each.fileno() for _, each in given])


def take(channel: socket.socket) -> list[str] | None:
    """Wait for what is handed over; return the words of a command line, None at the end."""
    with channel:
        data, descriptors, _, _ = socket.recv_fds(channel, _WORDS_BYTES_MAX, _SOCKETS_MAX)
    if not data:
        return None
    pairs = zip(json.loads(data), descriptors, strict=True)
    return [word for name, fd in pairs for word in (name, str(fd))]


def main() -> None:
    """Load the module that is named, then be it."""
    name, channel = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    # What a module defines stays: looking through it again and again while it loads
    # finds nothing, and costs a tenth of the time.
    gc.disable()
    module = importlib.import_module(name)
    gc.freeze()
    gc.enable()
    words = take(channel)
    if words is None:
        sys.exit(0)
    sys.argv = [name, *words]
    sys.exit(module.main())


if __name__ == "__main__":
    main()

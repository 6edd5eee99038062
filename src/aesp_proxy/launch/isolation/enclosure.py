"""The reaper's side of what is inside: have it built, let it go, hear how it ends.

The reaper stays outside, in the host's namespaces: it sees every process that the
command starts, by the ids that they have out here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple

from aesp_proxy.launch.isolation import inside, link, namespaces
from aesp_proxy.launch.isolation.lending import Lender


class Prepared(NamedTuple):
    """What stands inside: a line for the launcher and the sockets it is about."""

    line: str
    descriptors: list[int]


class Enclosure:
    """The init and its command, once built."""

    def __init__(self, bridge: socket.socket, init_pid: int, prepared: Prepared) -> None:
        self._link = bridge
        self.init_pid = init_pid
        self.prepared = prepared
        self.command_pid = 0

    def fileno(self) -> int:
        """Return what to wait on for ``ended``."""
        return self._link.fileno()

    def start(self, lender: Lender | None = None) -> int:
        """Let the command start; return 0, or the errno of a failed exec.

        Whether it may be executed is asked by the ``lender`` meanwhile.
        """
        with contextlib.suppress(OSError):
            link.send(self._link, "go")
        while True:
            while lender is not None and lender.is_open:
                own = self._link.fileno()
                ready, _, _ = select.select([own, lender.fileno()], [], [])
                if own in ready:
                    break
                lender.answer()
            message = link.receive(self._link)
            match message.words:
                case ["here"]:
                    self.command_pid = message.sender
                case ["failed", number]:
                    return int(number)
                case _:
                    # Started, or gone already, and then ``ended`` says so too.
                    return 0

    def ended(self) -> int | None:
        """Return what the next message says of the command's end; None if it says none.

        128 + SIGKILL when the init is gone, which takes the command with it.
        """
        match link.receive(self._link).words:
            case ["exited", code]:
                return int(code)
            case []:
                return 128 + signal.SIGKILL
            case _:
                return None

    def close(self) -> None:
        """End the init, and with it whatever is inside."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init_pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.init_pid, 0)
        self._link.close()


def build(order: inside.Order, *, close: Sequence[int]) -> Enclosure:
    """Fork builder and init and await what stands; OSError if they end before.

    ``close`` are descriptors that nobody inside may hold.
    """
    ours, theirs = link.pair()
    builder = os.fork()
    if builder == 0:
        try:
            ours.close()
            for descriptor in close:
                os.close(descriptor)
            inside.build(theirs, order)
        finally:
            os._exit(1)
    theirs.close()
    left = link.receive(ours).words
    if left[:1] == ["left"]:
        mapped = namespaces.map_ids(builder) if left[1] == "0" else 0
        link.send(ours, f"mapped {mapped}")
    message = link.receive(ours)
    os.waitpid(builder, 0)
    if message.words[:1] != ["prepared"]:
        ours.close()
        raise OSError(errno.ECHILD, "the helper ended before it was ready")
    # The builder is gone for good: from here on the init's parent is this process.
    link.send(ours, "adopted")
    prepared = Prepared(" ".join(message.words), message.descriptors)
    return Enclosure(ours, message.sender, prepared)

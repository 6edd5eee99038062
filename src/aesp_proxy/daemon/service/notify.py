"""Tell systemd how we are: sd_notify(3), which is one datagram of lines.

Our own, as it is thirty lines: libsystemd would be a dependency in C, and the packages
that speak the protocol in Python have not been looked after for years.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_SEND_S_MAX: Final = 1.0


class Notifier:
    """Says what is said to the socket at ``address`` (``@`` begins an abstract one), if any.

    ``watchdog_s`` is how long we may be silent, 0 where nobody watches.
    """

    def __init__(self, address: str = "", *, watchdog_s: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else 0.0

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Read the environment and take it out: what we start is not to speak for us."""
        address, wait_us, pid = (environ.pop(name, "") for name in _VARIABLES)
        ours = not pid or pid == str(os.getpid())
        seconds = int(wait_us) / 1e6 if ours and wait_us.isdecimal() else 0.0
        return cls(address, watchdog_s=seconds)

    def say(self, *lines: str) -> None:
        """Send one datagram; nobody there is no error, as the watchdog would tell.

        A full queue is waited for, at most a second: a lost READY would end the service.
        """
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.settimeout(_SEND_S_MAX)
            sock.sendto("\n".join(lines).encode(), self._address)

    def reloading(self) -> None:
        """Say that a reload begins; ``ready`` says that it is over."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def ready(self, status: str) -> None:
        """Say that we work, and how, in one line."""
        self.say("READY=1", f"STATUS={status}")

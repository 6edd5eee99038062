"""Learn that packet rules changed, or that a cgroup was made or went, without a thread.

The kernel tells of rules whoever joins its group (NFNLGRP_NFTABLES), which takes
CAP_NET_ADMIN, and of directories by inotify(7).
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterable
from typing import Final, Self

from inotify_simple import INotify, flags

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.capture.keeper import REMEDY, why_not
from aesp_proxy.intercept.capture.tables import NETLINK_NETFILTER
from aesp_proxy.intercept.capture.who import Named, cgroup_directories

_GROUP: Final = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_EVENT_BYTES: Final = 65_536


class Watch:
    """Waits for changes of rules, and of the cgroups that are named."""

    def __init__(self, named: Named) -> None:
        """Begin to watch; UnavailableError without the privilege."""
        self._named = named
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._rules = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        self._cgroups = INotify(nonblocking=True)
        try:
            self._rules.bind((0, _GROUP))
        except OSError as error:
            self.close()
            raise UnavailableError(why_not(error), where="nftables", remedy=REMEDY) from error
        self._follow()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        self._rules.close()
        self._cgroups.close()

    def wait(self, also: Iterable[int], *, pause_s: float) -> tuple[bool, set[int]]:
        """Wait for a change, for one of ``also``, or so long.

        Return whether to find out anew who is meant, and which of ``also`` are readable.
        """
        others = set(also)
        poll = select.poll()
        for descriptor in (self._rules.fileno(), self._cgroups.fileno(), *others):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(pause_s * 1000)}
        if self._rules.fileno() in ready:
            self._drain()
        at_cgroups = self._cgroups.fileno() in ready
        if at_cgroups:
            self._cgroups.read(timeout=0)
            self._follow()
        return at_cgroups or not ready, ready & others

    def _drain(self) -> None:
        while True:
            try:
                self._rules.recv(_EVENT_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS: some were lost, which says as much as they would

    def _follow(self) -> None:
        """Watch the directories in which a cgroup would be made, as far as they exist."""
        for directory in cgroup_directories(self._named):
            nearest = next(each for each in (directory, *directory.parents) if each.is_dir())
            with contextlib.suppress(OSError):
                self._cgroups.add_watch(nearest, flags.CREATE | flags.DELETE | flags.DELETE_SELF)

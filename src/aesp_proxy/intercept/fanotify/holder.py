"""A second process that holds the groups of a watch, for when the first is killed.

The kernel lets everything pass when the last holder of a group is gone. This one does
nothing while the guard lives. When it is killed, the holder denies what was not answered,
and what the watched go on to ask; everybody else is let through. So it stands in until it
hears that another watch answers (``turn``), which makes groups of its own. It is forked
before anything is marked, and opens nothing. A guard that stands still it ends.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from aesp_proxy.intercept.capture.ruleset import Selection
from aesp_proxy.intercept.fanotify import kernel
from aesp_proxy.intercept.fanotify.listener import read_group, respond
from aesp_proxy.intercept.fanotify.marks import Groups
from aesp_proxy.intercept.fanotify.turn import Turn
from aesp_proxy.intercept.fanotify.who import Gone, Watched, read_selection, selection_word

DESCRIPTORS_MAX: Final = 4_096
"""A listener's open files have numbers below this: what it leaves unanswered is found by them."""
_LOOK_S: Final = 0.5
_SELECTION_BYTES_MAX: Final = 1 << 18
_COUNTS: Final = 256


class _Guarded(NamedTuple):
    """The guard, as its holder sees it: ``beat`` is memory in which it counts on."""

    sock: int
    process: int
    beat: mmap.mmap
    still_s_max: float


class Holder:
    """The guard's side: starts it, tells it who is watched, and ends it in order."""

    def __init__(
        self,
        groups: Groups,
        watched: Watched,
        turn: Turn,
        *,
        still_s_max: float,
        humble: Callable[[], None],
    ) -> None:
        """``turn`` is over when another watch answers; ``humble`` gives up all privilege.

        A guard that does not ``live`` for ``still_s_max`` seconds is ended.
        """
        self._beat = mmap.mmap(-1, 1)
        process = os.pidfd_open(os.getpid())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            with contextlib.suppress(BaseException):
                with contextlib.suppress(OSError):
                    humble()  # one that comes later has no more than the guard has
                guard = _Guarded(theirs.detach(), process, self._beat, still_s_max)
                _be_holder(groups, watched, guard, turn)
            os._exit(4)
        theirs.close()
        os.close(process)
        ours.setblocking(False)
        self._sock = ours

    @property
    def is_there(self) -> bool:
        """Whether it lives."""
        try:
            return os.waitpid(self.pid, os.WNOHANG) == (0, 0)
        except ChildProcessError:
            return False

    def live(self) -> None:
        """Show that the guard does not stand still."""
        self._beat[0] = self._beat[0] % (_COUNTS - 1) + 1

    def take(self, chosen: Selection) -> None:
        """Tell it who is watched now."""
        with contextlib.suppress(OSError):
            self._sock.send(json.dumps(selection_word(chosen)).encode())

    def done(self) -> None:
        """End it: the watch ends in order."""
        self._sock.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def stand_in(group: int, watched: Watched) -> None:
    """Answer in the place of a listener: who is not watched is let through."""
    for event in read_group(group):
        if not event.mask & (kernel.OPEN_PERM | kernel.OPEN_EXEC_PERM):
            if event.descriptor >= 0:
                os.close(event.descriptor)
            continue
        try:
            allow = watched.actor(event.thread) is None
        except Gone:
            allow = False
        respond(group, event, allow=allow)


def deny_unanswered(groups: Iterable[int]) -> int:
    """Deny what a dead one had read: the kernel knows it by the numbers of its files."""
    denied = 0
    for group in groups:
        for number in range(DESCRIPTORS_MAX):
            with contextlib.suppress(OSError):
                kernel.answer(group, number, allow=False)
                denied += 1
    return denied


# the process -----------------------------------------------------------------------------


def _be_holder(groups: Groups, watched: Watched, guard: _Guarded, turn: Turn) -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asks = groups.denying, groups.asking
    # The names too: the last to let go of a group waits for all who wait for an answer, and a
    # guard that dies so would not be gone. Nothing else: who listens to it must hear its end.
    _close_all_but({0, 1, 2, *asks, groups.names, guard.sock, guard.process, turn.descriptor})
    if _waits_for_its_turn(guard, turn, watched):
        _stand_in_until_released(asks, watched, guard, turn)
    os._exit(0)


def _close_all_but(kept: set[int]) -> None:
    first = 0
    for number in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        if number > first:  # of nothing closerange makes all that there is
            os.closerange(first, number)
        first = number + 1


def _waits_for_its_turn(guard: _Guarded, turn: Turn, watched: Watched) -> bool:
    """Wait for the end of the guard; False where another watch answers already."""
    poll = select.poll()
    poll.register(guard.sock, select.POLLIN)
    if turn.pipe >= 0:
        poll.register(turn.pipe, select.POLLIN)
    last, still_since = 0, time.monotonic()
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(_LOOK_S * 1000)}
        if guard.sock in ready:
            try:
                said = os.read(guard.sock, _SELECTION_BYTES_MAX)
            except OSError:
                said = b""
            if not said:
                return True
            watched.take(read_selection(json.loads(said)))
        if turn.pipe in ready:
            return False
        now = time.monotonic()
        # Before it has counted at all it marks file systems, however long that takes.
        if guard.beat[0] != last or not last:
            last, still_since = guard.beat[0], now
        elif now - still_since > guard.still_s_max:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(guard.process, signal.SIGKILL)
            still_since = now


def _stand_in_until_released(
    asks: tuple[int, int], watched: Watched, guard: _Guarded, turn: Turn
) -> None:
    _take_numbers(turn.descriptor)
    dead = select.poll()
    dead.register(guard.process, select.POLLIN)
    poll = select.poll()
    for descriptor in (*asks, *((turn.pipe,) if turn.pipe >= 0 else ())):
        poll.register(descriptor, select.POLLIN)
    look_at = 0.0
    while True:
        # Again and again: the listener may die a little later than the guard.
        if (now := time.monotonic()) >= look_at:
            look_at = now + _LOOK_S
            deny_unanswered(asks)
            # Only then is what the guard had locked its own no more.
            if dead.poll(0) and turn.is_over():
                return
        ready = {descriptor for descriptor, _ in poll.poll(_LOOK_S * 1000)}
        if turn.pipe in ready:
            return
        for group in asks:
            if group in ready:
                stand_in(group, watched)


def _take_numbers(descriptor: int) -> None:
    """Have files that we are handed get other numbers than those of the dead one's."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        while os.dup(descriptor) < DESCRIPTORS_MAX:
            pass

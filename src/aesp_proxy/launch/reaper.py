"""Stand between the launcher and its command, so that no process is left behind.

Run as a script of its own, ``python -I -S reaper.py CONTROL_FD WISH ... -- CMD ...``,
with nothing but the standard library, so that it starts in a few milliseconds; also
imported by the launcher for ``end_descendants``.

- It is a child subreaper (prctl(2)): whatever the command starts, double forks
  and all, stays a descendant and is found under /proc.
- The command runs below an init in its own namespaces (``isolation.inside``), which
  dies with the reaper (PR_SET_PDEATHSIG); the reaper ends all of its descendants when
  the launcher closes the control socket, which the kernel does for a launcher that was
  killed. So any of them may be killed with -9.
- The command stays in the launcher's own process group: job control (Ctrl-Z, fg),
  the foreground terminal and Ctrl-C work as they do without us. A signal that the
  launcher relays is not sent twice to a command that got it with the group.

The control socket carries lines. To the reaper: ``go``, ``signal N``, ``end
GRACE_S``. From it: ``prepared LAYER=ERRNO ... | KIND ...`` with the sockets that were
made inside, ``started PID``, ``failed ERRNO``, ``exited CODE LEFT`` where CODE is what
a shell would say (128 + N for signal N) and LEFT counts processes that the command left
behind and that were ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import sys
import time
from typing import Final

if __name__ == "__main__":
    # Isolated as it starts, it finds Python's own modules and, after them, ours.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))  # noqa: PTH120

from aesp_proxy.launch.isolation import enclosure, inside
from aesp_proxy.launch.isolation.layers import Layer
from aesp_proxy.launch.isolation.lending import Lender
from aesp_proxy.launch.isolation.listeners import Kind
from aesp_proxy.launch.isolation.wish import WORDS, read_wish

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LEFT_GRACE_S: Final = 2.0
_ORPHAN_GRACE_S: Final = 1.0
_KILL_S_MAX: Final = 5.0
# A launcher on a busy machine relays late what the whole group got.
_GROUP_SIGNAL_S: Final = 5.0
_POLL_S: Final = 0.02
RELAYED: Final[tuple[signal.Signals, ...]] = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process, not of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int, *, proc: str = "/proc") -> list[int]:
    """Return the ids of all processes below ``pid``, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(proc):  # noqa: PTH208 - pathlib is slow to load, see ``isolation``
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/stat", "rb") as file:  # noqa: PTH123
                stat = file.read()
        except OSError:
            continue
        # The name may hold spaces and brackets: fields are counted from the last bracket.
        state, parent = stat[stat.rindex(b")") + 2 :].split(b" ", 2)[:2]
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    unseen = [pid]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return found


def end_descendants(*, grace_s: float, spare: frozenset[int] = frozenset()) -> int:
    """End every process below this one but ``spare``; return how many there were.

    TERM first (and CONT, for the stopped), KILL after ``grace_s`` seconds. Without
    ``spare`` all children are reaped: on return not even a zombie is left.
    """
    everyone: set[int] = set()
    signalled: set[int] = set()
    start = time.monotonic()
    while True:
        has_children = not spare and _reap()
        left = set(descendants(os.getpid())) - spare
        everyone |= left
        waited_s = time.monotonic() - start
        if (not left and not has_children) or waited_s > grace_s + _KILL_S_MAX:
            return len(everyone)
        if waited_s >= grace_s:
            _send(left, signal.SIGKILL)
        else:
            _send(left - signalled, signal.SIGTERM)
            _send(left - signalled, signal.SIGCONT)
            signalled |= left
        time.sleep(_POLL_S)


def _send(pids: set[int], signal_number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal_number)


def _reap() -> bool:
    """Reap the direct children that have ended; say whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


class _Reaper:
    """The loop of the script: one command, one control socket."""

    def __init__(self, control_fd: int, words: list[str], command: list[str]) -> None:
        self.control_fd = control_fd
        self.dispositions = {int(number): signal.getsignal(number) for number in RELAYED}
        self.order = inside.Order(read_wish(words), command, self.dispositions)
        self.lender: Lender | None = None
        self.pid = 0
        self.code: int | None = None
        self.end_at: float | None = None
        self.orphaned = False
        self.received_at: dict[int, float] = {}
        self.wakeup_read, self.wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        os.set_inheritable(self.control_fd, False)
        become_subreaper()
        # A stopped reaper could not see that the launcher is gone: its death wakes it.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
        signal.set_wakeup_fd(self.wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number, before in self.dispositions.items():
            # What the launcher was told to ignore (nohup) stays ignored.
            if before is not signal.SIG_IGN:
                signal.signal(number, self._note)
        ours = (self.control_fd, self.wakeup_read, self.wakeup_write)
        try:
            self.enclosure = enclosure.build(self.order, close=ours)
        except OSError as error:
            self._write(f"broken {error.errno}")
            return 1
        if Layer.NOTIFY in self.order.wish.layers:
            self.lender = Lender()
        self._report()
        if self._read_line() == "go":
            self._run_command()
        self.enclosure.close()
        return 0

    def _run_command(self) -> None:
        failure = self.enclosure.start(self.lender)
        self.pid = self.enclosure.command_pid
        if failure:
            self._write(f"failed {failure}")
            return
        self._write(f"started {self.pid}")
        while self.code is None:
            self._step()
        grace_s = _ORPHAN_GRACE_S if self.orphaned else _LEFT_GRACE_S
        left = end_descendants(grace_s=grace_s, spare=frozenset({self.enclosure.init_pid}))
        # Before we say that all has ended, it has, and orphans of a killed init are reaped.
        self.enclosure.close()
        left += end_descendants(grace_s=grace_s)
        self._write(f"exited {self.code} {left}")

    def _report(self) -> None:
        """Hand out what was prepared inside."""
        line, descriptors = self.enclosure.prepared
        if self.lender is not None:
            line, descriptors = f"{line} {Kind.MEMORY}", [*descriptors, self.lender.theirs.detach()]
        with socket.socket(fileno=os.dup(self.control_fd)) as control, contextlib.suppress(OSError):
            socket.send_fds(control, [line.encode() + b"\n"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _note(self, number: int, _frame: object) -> None:
        self.received_at[number] = time.monotonic()

    def _step(self) -> None:
        """Wait for one thing to happen, and act on it."""
        timeout_s = None if self.end_at is None else max(0.0, self.end_at - time.monotonic())
        watched = [self.wakeup_read, self.enclosure.fileno()]
        if not self.orphaned:
            watched.append(self.control_fd)
        lender = self.lender
        if lender is not None and lender.is_open:
            watched.append(lender.fileno())
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self.wakeup_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup_read, 512)
        if lender is not None and lender.fileno() in ready:
            lender.answer()
        if self.enclosure.fileno() in ready:
            self.code = self.enclosure.ended()
        if self.control_fd in ready:
            self._obey(self._read_line())
        if self.end_at is not None and time.monotonic() >= self.end_at and self.code is None:
            _send({self.pid, *descendants(os.getpid())}, signal.SIGKILL)
            self.end_at = time.monotonic() + _POLL_S

    def _obey(self, line: str) -> None:
        if self.code is not None:
            return
        match line.split():
            case ["signal", number]:
                self._relay(int(number))
            case ["end", grace_s]:
                self._end(float(grace_s))
            case _:
                # End of file: the launcher is dead, and with it the way out.
                self.orphaned = True
                self._end(_ORPHAN_GRACE_S)

    def _relay(self, number: int) -> None:
        """Pass a signal on, unless the command got it together with the group.

        The kernel signals every member of a group before any of them runs on, so
        one that the launcher got with us is here before its word of it is. They are
        not counted: signals do not queue, so two that came while we waited for a
        processor are one here and may be two at the launcher.
        """
        got = time.monotonic() - self.received_at.get(number, -math.inf) < _GROUP_SIGNAL_S
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if got and os.getpgid(self.pid) == os.getpgrp():
                return
            os.kill(self.pid, number)

    def _end(self, grace_s: float) -> None:
        self.end_at = time.monotonic() + grace_s
        everyone = {self.pid, *descendants(os.getpid())}
        _send(everyone, signal.SIGTERM)
        _send(everyone, signal.SIGCONT)

    def _read_line(self) -> str:
        """Read one line, a byte at a time: lines are short and few. Empty at end of file."""
        line = b""
        while not line.endswith(b"\n"):
            try:
                byte = os.read(self.control_fd, 1)
            except OSError:
                return ""
            if not byte:
                return ""
            line += byte
        return line.decode("ascii", "replace").strip()

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self.control_fd, line.encode() + b"\n")


def main() -> int:
    """Run the command named on the command line and report on the control socket."""
    # Writing to a socket whose launcher is dead is an error to suppress, not a signal.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    words = sys.argv[2 : 2 + WORDS]
    return _Reaper(int(sys.argv[1]), words, sys.argv[3 + WORDS :]).run()


if __name__ == "__main__":
    sys.exit(main())

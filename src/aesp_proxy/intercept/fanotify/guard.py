"""Hold the groups of a watch, and see to it that somebody answers.

The kernel lets everything pass when the last holder of a group is gone. So this process
holds them, starts the listener, and does little that could fail: while no listener answers
it does so itself, and lets through who is not watched and nobody else. A listener that
dies or stands still is ended, what it had not answered is denied, another one is started,
for ever. Nothing is opened here once file systems are marked, and no process is started
but by fork and exec: a parent that waits for its child to be executed would wait for
itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.intercept.capture.ruleset import Selection
from aesp_proxy.intercept.fanotify.holder import deny_unanswered, stand_in
from aesp_proxy.intercept.fanotify.listener import COUNT_BYTES, Progress
from aesp_proxy.intercept.fanotify.marks import Groups
from aesp_proxy.intercept.fanotify.who import Watched, read_selection

_LOOK_S: Final = 0.5
_SOON_S: Final = 0.02
_LINE_BYTES_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Seconds: how long a listener may stand still, and between starts of one that keeps dying."""

    hung_s: float = 10.0
    pause_s: float = 2.0
    stop_s: float = 5.0


class _Child:
    """A listener that runs: its process, what it says, and whether it answers yet."""

    def __init__(self, pid: int, sock: socket.socket, memory: int) -> None:
        self.pid, self.sock = pid, sock
        self.descriptor = os.pidfd_open(pid)
        self.progress = Progress(memory)
        os.close(memory)
        self.buffer = b""
        self.unsent = b""
        self.is_ready = False
        self.stands_since: float | None = None
        self.last = 0

    def end(self) -> str:
        """Collect it and let go of what it had; say how it ended."""
        self.sock.close()
        os.close(self.descriptor)
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"


class Guard:
    """Keeps a listener running; see the module."""

    def __init__(
        self,
        groups: Groups,
        watched: Watched,
        command: Sequence[str],
        *,
        before_exec: Callable[[], None],
        tell: Callable[[dict[str, object]], None],
        now_s: Callable[[], float],
        limits: GuardLimits,
        took: Callable[[Selection], None] = lambda _: None,
    ) -> None:
        """``command`` is given options for the descriptors; ``before_exec`` runs in the child.

        ``took`` is told who is watched from now on.
        """
        self._took = took
        self._groups, self._watched, self._command = groups, watched, tuple(command)
        self._before_exec, self._tell, self._now_s = before_exec, tell, now_s
        self._limits = limits
        self._child: _Child | None = None
        self._start_at = 0.0
        self._policy = b""
        self._was_ready = False
        self.deaths = 0
        self.stopping = False
        self.failed: tuple[int, str] | None = None

    @property
    def answers(self) -> bool:
        """Whether a listener decides, by a policy."""
        return self._child is not None and self._child.is_ready

    @property
    def pid(self) -> int:
        """Process id of the listener, 0 while there is none."""
        return self._child.pid if self._child is not None else 0

    def policy(self, line: bytes) -> None:
        """Hand the listener, and each after it, the line that says what to decide by."""
        self._policy = line
        self._send(line)

    def step(self, also: Sequence[int]) -> set[int]:
        """Do what is to be done, or wait a while; return which of ``also`` are readable."""
        now = self._now_s()
        if self._child is None and not self.stopping and now >= self._start_at:
            self._start()
        self._look(now)
        child = self._child
        poll = select.poll()
        for descriptor in also:
            poll.register(descriptor, select.POLLIN)
        groups = () if child is not None and child.is_ready else self._asks
        for descriptor in groups:
            poll.register(descriptor, select.POLLIN)
        if child is not None:
            poll.register(child.descriptor, select.POLLIN)
            poll.register(child.sock.fileno(), select.POLLIN)
            self._send_some(child)
        pause_s = _LOOK_S if child is None or not child.unsent else _SOON_S
        ready = {descriptor for descriptor, _ in poll.poll(pause_s * 1000)}
        for group in groups:
            if group in ready:
                stand_in(group, self._watched)
        if child is not None and child.sock.fileno() in ready:
            self._hear(child)
        if child is not None and child.descriptor in ready:
            self._bury(child)
        return ready & set(also)

    def stop(self) -> None:
        """End the listener in order; then let go of the watch."""
        self.stopping = True
        until = self._now_s() + self._limits.stop_s
        if self._child is not None:
            self._child.is_ready = False
            with contextlib.suppress(OSError):
                self._child.sock.shutdown(socket.SHUT_WR)
        while self._child is not None:
            if self._now_s() > until:
                self.kill()
            self.step(())

    def kill(self) -> None:
        """End the listener at once."""
        if self._child is not None:
            os.kill(self._child.pid, signal.SIGKILL)

    @property
    def _asks(self) -> tuple[int, int]:
        return self._groups.denying, self._groups.asking

    # the listener ----------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        memory = os.memfd_create("progress", os.MFD_CLOEXEC)
        os.ftruncate(memory, COUNT_BYTES)
        groups = (self._groups.denying, self._groups.asking, self._groups.names)
        given = (*groups, theirs.fileno(), memory)
        names = ("--denying-fd", "--asking-fd", "--names-fd", "--control-fd", "--progress-fd")
        words = [word for pair in zip(names, map(str, given), strict=True) for word in pair]
        command = [*self._command, *words, "--deaths", str(self.deaths)]
        pid = os.fork()
        if not pid:
            _become(command, given, self._before_exec)
        theirs.close()
        ours.setblocking(False)
        self._child = _Child(pid, ours, memory)
        self._send(self._policy)

    def _send(self, line: bytes) -> None:
        if self._child is not None:
            self._child.unsent += line
            self._send_some(self._child)

    def _send_some(self, child: _Child) -> None:
        """Say what has room: it may be megabytes, and who loads still does not read."""
        try:
            while child.unsent:
                child.unsent = child.unsent[child.sock.send(child.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            # Perhaps a part of it: the next one is told the whole.
            self.kill()

    def _hear(self, child: _Child) -> None:
        try:
            data = child.sock.recv(_LINE_BYTES_MAX)
        except OSError:
            return
        *lines, child.buffer = (child.buffer + data).split(b"\n")
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                # Damage: what it decides by is then not known. The next one is told anew.
                self._say("nonsense", "the listener sent nonsense: ended, and what waits is denied")
                self.kill()
                return
            match said:
                case {"type": "who", "selection": dict(selection)}:
                    # Found out by the listener, as names are looked for in files.
                    chosen = read_selection(selection)
                    self._watched.take(chosen)
                    self._took(chosen)
                    continue
                case {"type": "ready"}:
                    child.is_ready, self._was_ready = not self.stopping, True
                case {"type": "failed", "exit_code": int(code), "message": str(message)}:
                    # Of one that has worked before, another may work again.
                    self.failed = self.failed or (None if self._was_ready else (code, message))
                case _:
                    pass
            self._tell(said)

    def _look(self, now: float) -> None:
        """End a listener that stands still while somebody waits for it."""
        child = self._child
        if child is None or not child.is_ready:
            return
        count = child.progress.read()
        if count != child.last or not (count & 1 or self._is_waited_for()):
            child.last, child.stands_since = count, None
        elif child.stands_since is None:
            child.stands_since = now
        elif now - child.stands_since > self._limits.hung_s:
            self._say("hung", "the listener stands still: ended, and what waits is denied")
            os.kill(child.pid, signal.SIGKILL)
            child.stands_since = now

    def _is_waited_for(self) -> bool:
        poll = select.poll()
        for group in self._asks:
            poll.register(group, select.POLLIN)
        return bool(poll.poll(0))

    def _bury(self, child: _Child) -> None:
        self._child = None
        self.deaths += 1
        denied = deny_unanswered(self._asks)
        how = child.end()
        if self.stopping:
            return
        was_ready, now = child.is_ready, self._now_s()
        self._start_at = now if was_ready else now + self._limits.pause_s
        self._say("died", f"the listener {how}: {denied} opens that it had not answered are denied")

    def _say(self, event: str, message: str) -> None:
        self._tell({"type": "news", "event": event, "message": message, "holds": True})


def _become(command: Sequence[str], given: Sequence[int], before_exec: Callable[[], None]) -> None:
    """Be the listener, in the child: whatever goes wrong ends it."""
    try:
        for descriptor in given:
            os.set_inheritable(descriptor, True)
        before_exec()
        os.execv(command[0], list(command))  # noqa: S606 - our own interpreter
    except OSError:
        os._exit(4)
    finally:
        os._exit(4)

"""The process that watches the opens of files, and starts and guards what answers them.

Either the daemon starts it (``main``), or a service manager beside the daemon
(``watch_as_service``). CAP_SYS_ADMIN is for the beginning: it makes the groups, marks file
systems, and gives it up. What is told goes to the daemon, one JSON object a line; a line of
the daemon's is what the listener is to decide by, and goes to it as it came. At its end
the watch ends: the kernel lets all pass then.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aesp_proxy.errors import AespError, ConfigError, UnavailableError, told
from aesp_proxy.intercept.capture.ruleset import Selection
from aesp_proxy.intercept.fanotify.guard import Guard, GuardLimits
from aesp_proxy.intercept.fanotify.handles import places_below
from aesp_proxy.intercept.fanotify.holder import DESCRIPTORS_MAX, Holder
from aesp_proxy.intercept.fanotify.marks import REMEDY, Groups, make_groups
from aesp_proxy.intercept.fanotify.turn import LockTurn, PipeTurn, Turn, lock_name
from aesp_proxy.intercept.fanotify.who import Watched, read_selection, selection_word
from aesp_proxy.launch.isolation.capabilities import (
    CAP_DAC_READ_SEARCH,
    CAP_LEASE,
    CAP_SYS_PTRACE,
    give_up_all,
    hand_on_only,
)

_EXIT_CONFIG, _EXIT_RUNTIME = 3, 4
_READ_BYTES: Final = 1 << 20
_WAITING_MAX: Final = 100
_LINK_S: Final = 1.0
_PRIORITY: Final = -10
# On top of what a listener may stand still: a guard looks twice a second.
_STILL_S: Final = 10.0
_MOUNTS: Final = Path("/proc/self/mountinfo")
_LISTENER: Final = "aesp_proxy.daemon.file_listener"
_SPAWNED: Final = "aesp_proxy.daemon.spawned"
# To read what is to be opened and find where it is; to see what for; to hold off writers.
_KEPT: Final = (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_LEASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Who is watched, below which directories; ``hung_s`` is for ``GuardLimits``."""

    chosen: Selection
    trees: tuple[str, ...]
    hung_s: float

    def word(self) -> str:
        """Return it as one word of a command line."""
        word = {"chosen": selection_word(self.chosen), "trees": self.trees, "hung_s": self.hung_s}
        return json.dumps(word)

    def subject(self) -> str:
        """Return in one word who is watched and where: what a watch and its next have alike."""
        return json.dumps([selection_word(self.chosen), self.trees])


def read_wish(word: str) -> Wish:
    """Read what ``Wish.word`` made; ValueError for what it does not make."""
    try:
        raw: dict[str, Any] = json.loads(word)
        return Wish(
            chosen=read_selection(raw["chosen"]),
            trees=tuple(raw["trees"]),
            hung_s=float(raw["hung_s"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a wish: {error}") from error


# started by the daemon ------------------------------------------------------------------


def main() -> None:
    """Watch until the daemon says otherwise, or is gone."""
    parser = ArgumentParser(prog="aesp_proxy.launch.files")
    parser.add_argument("--report-fd", type=int, required=True)
    parser.add_argument("--release-fd", type=int, required=True)
    parser.add_argument("--wish", type=read_wish, required=True)
    arguments = parser.parse_args()
    # The terminal's signals are the daemon's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=arguments.report_fd) as daemon:
        daemon.set_inheritable(False)
        os.set_inheritable(arguments.release_fd, False)
        link = Link(None, daemon)
        over = lambda: link.sock is None  # noqa: E731
        try:
            _watch(arguments.wish, link, over, lambda: b"", PipeTurn(arguments.release_fd))
        except AespError as error:
            code = _EXIT_CONFIG if isinstance(error, ConfigError) else _EXIT_RUNTIME
            link.tell({"type": "failed", "exit_code": code, "message": str(error)})
            sys.exit(code)


# a service of its own -------------------------------------------------------------------


def watch_as_service(
    wish: Wish,
    daemon: Path,
    config: Callable[[int], bytes],
    *,
    locks: Path,
    told: Callable[[dict[str, object]], None],
    alive: Callable[[], None],
) -> None:
    """Watch until SIGTERM or SIGINT; AespError where it cannot begin.

    ``daemon`` is the socket of the daemon, whose policy counts as soon as it is there;
    until then ``config`` says what to decide by, by a number that grows with each SIGHUP,
    which has the files of the policy read again. In ``locks``, a directory, is the lock by
    which a process that holds the watch of a killed one hears that this one answers.
    ``told`` takes what is told to it, and ``alive`` is called at least every few seconds.
    """
    stopped: list[int] = []
    asked: list[int] = [signal.SIGHUP]
    serial = 0

    def take(number: int, _: object) -> None:
        (asked if number == signal.SIGHUP else stopped).append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, take)
    link = Link(daemon, None, also=told)

    def over() -> bool:
        alive()
        link.flush()
        return bool(stopped)

    def again() -> bytes:
        nonlocal serial
        if not asked or (serial and link.sock is not None):
            return b""
        asked.clear()
        serial += 1
        return config(serial)

    _watch(wish, link, over, again, LockTurn(locks / lock_name(wish.subject())))


# both -----------------------------------------------------------------------------------


class Link:
    """The way to the daemon; what it has not heard waits.

    Opened anew where it has a ``path``, else its end is the end.
    """

    def __init__(
        self,
        path: Path | None,
        sock: socket.socket | None,
        also: Callable[[dict[str, object]], None] = lambda _: None,
    ) -> None:
        self._path, self.sock, self._also = path, sock, also
        self._waiting: deque[bytes] = deque(maxlen=_WAITING_MAX)
        self.is_held = False
        self._buffer = b""
        self._tried_at = -_LINK_S

    def tell(self, said: dict[str, object]) -> None:
        """Tell it now, or when it is there."""
        self._also(said)
        self._waiting.append(json.dumps({**said, "held": self.is_held}).encode() + b"\n")
        self.flush()

    def flush(self) -> None:
        """Connect if need be, and tell what waits."""
        if self.sock is None and self._path is not None:
            self._connect(self._path)
        while self.sock is not None and self._waiting:
            try:
                self.sock.sendall(self._waiting[0])
                self._waiting.popleft()
            except OSError:
                self._lose()

    def hear(self) -> bytes:
        """Return the last whole line that it says, with its end, or nothing."""
        if self.sock is None:
            return b""
        try:
            data = self.sock.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._lose()
            return b""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return lines[-1] + b"\n" if lines else b""

    def _lose(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock, self._buffer = None, b""

    def _connect(self, path: Path) -> None:
        now = time.monotonic()
        if now - self._tried_at < _LINK_S:
            return
        self._tried_at = now
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_LINK_S)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
        else:
            self.sock = sock


def _watch(
    wish: Wish,
    link: Link,
    is_over: Callable[[], bool],
    config: Callable[[], bytes],
    turn: Turn,
) -> None:
    """Mark, give up what is needed no more, and see to it that somebody answers.

    ``config`` is asked again and again for what to decide by, nothing where that stays.
    ``turn`` is how a ``Holder`` hears that it is needed no more.
    """
    sys.excepthook = _end_without_reading
    places = places_below(wish.trees, _MOUNTS.read_text("utf-8", "replace"))
    watched, groups = Watched(wish.chosen), make_groups()
    second = _Second(groups, watched, turn, still_s_max=wish.hung_s + _STILL_S)
    link.is_held = True
    command = (sys.executable, "-I", "-m", _SPAWNED, str(os.getpid()), str(int(signal.SIGKILL)))
    guard = Guard(
        groups,
        watched,
        (*command, _LISTENER),
        before_exec=_bound_descriptors,
        tell=link.tell,
        now_s=time.monotonic,
        limits=GuardLimits(hung_s=wish.hung_s),
        took=second.take,
    )
    if line := config():
        guard.policy(line)
    # Others wait for its answers, as they do for a disk's.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    try:
        for lack in _mark(groups, places):
            link.tell({"type": "news", "event": "lack", "message": lack, "holds": True})
        # From here on nothing may be opened: this process answers for the others.
        while not is_over():
            if guard.failed is not None:
                raise _error(*guard.failed)
            second.keep()
            if guard.answers:
                turn.take()
            if line := config():
                guard.policy(line)
            heard = [link.sock.fileno()] if link.sock is not None else []
            if guard.step(heard) and (line := link.hear()):
                guard.policy(line)
        guard.stop()
        link.is_held = False
        link.tell({"type": "ending"})
    finally:
        guard.kill()
        second.done()
        groups.close()


class _Second:
    """The second process that holds the groups; always there."""

    def __init__(self, groups: Groups, watched: Watched, turn: Turn, *, still_s_max: float) -> None:
        self._groups, self._watched, self._turn = groups, watched, turn
        self._still_s_max = still_s_max
        self._holder: Holder | None = None
        self.keep()

    def keep(self) -> None:
        """Start it where it is not there, and show it that we live."""
        if self._holder is None:
            self._holder = self._start()
            return  # it is not told yet: all is to be marked first
        if not self._holder.is_there:
            self._holder = self._start()
        self._holder.live()

    def _start(self) -> Holder:
        return Holder(
            self._groups,
            self._watched,
            self._turn,
            still_s_max=self._still_s_max,
            humble=give_up_all,
        )

    def take(self, chosen: Selection) -> None:
        """Tell it who is watched now."""
        if self._holder is not None:
            self._holder.take(chosen)

    def done(self) -> None:
        """Have it let go."""
        if self._holder is not None:
            self._holder.done()


def _error(code: int, message: str) -> AespError:
    return ConfigError(message) if code == _EXIT_CONFIG else UnavailableError(message)


def _mark(groups: Groups, places: list[str]) -> list[str]:
    if not places:
        raise ConfigError("no file system is there to be watched", where="files.watch.trees")
    lacks = [lack for place in places if (lack := groups.watch(place))]
    try:
        hand_on_only(*_KEPT)
    except OSError as error:
        raise UnavailableError(
            f"privileges cannot be kept: {error.strerror}", where="fanotify", remedy=REMEDY
        ) from error
    return lacks


def _bound_descriptors() -> None:
    """Bound the numbers of files in the listener: what it leaves unanswered is found by them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, DESCRIPTORS_MAX))


def _end_without_reading(_: type[BaseException], error: BaseException, __: object) -> None:
    """End where an error was not expected: a traceback would be read from files."""
    sys.stderr.write(f"aesp-proxy: the guard of files ends: {told(error)}\n")
    sys.stderr.flush()
    os._exit(_EXIT_RUNTIME)


if __name__ == "__main__":
    main()

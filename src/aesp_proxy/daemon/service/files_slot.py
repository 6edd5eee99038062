"""Who has the kernel ask before watched users open files: processes of ours, or a service.

Of ours the guard (``aesp_proxy.launch.files``) is one, and the listener that it starts the
other. They are told which policy counts, each time that another one does; what they say is
told to the operator, shown by ``status`` and put into the record. While nobody watches,
the kernel asks nobody: that is told, and is grave.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

from aesp_proxy.daemon.ending import stop
from aesp_proxy.daemon.process import HelperProcess, module_command
from aesp_proxy.daemon.service.answer import peer_uid
from aesp_proxy.daemon.service.plan import ServiceEnd, ServicePlan
from aesp_proxy.daemon.service.policy import Active
from aesp_proxy.daemon.service.restarts import RESTARTS_MAX, WINDOW_S, Restarts
from aesp_proxy.daemon.service.rules_news import RulesNews
from aesp_proxy.daemon.watching import config_line, watches, wish_word
from aesp_proxy.errors import ConfigError, UnavailableError

GUARD_MODULE: Final = "aesp_proxy.launch.files"
SUBJECT: Final = "files"
_READ_BYTES: Final = 65_536
_LINE_BYTES_MAX: Final = 1 << 16
_STOP_S: Final = 6.0
# The listener records these itself.
_RECORDED: Final = frozenset({"started", "restarted", "policy", "overflow"})
_SILENCE_S: Final = 10.0  # on top of what a listener may stand still; it tells its counts often
_HELD: Final = RulesNews(
    subject=SUBJECT,
    event="died",
    message="the guard of files is gone: until another one answers, those who are watched open "
    "nothing that was not found clean before",
    holds=True,
)
_GONE: Final = RulesNews(
    subject=SUBJECT,
    event="lost",
    message="nobody watches files any more: those who were watched open what they like",
    holds=False,
)


class FilesSlot:
    """What is known of the watch; ``take`` is given what is to be recorded."""

    def __init__(
        self,
        plan: ServicePlan,
        listener: socket.socket,
        active: Callable[[], Active],
        take: Callable[[RulesNews], None],
    ) -> None:
        self.is_on = watches(plan.settings)
        self.by = plan.settings.files.watch.by if self.is_on else ""
        self._plan, self._listener, self._active, self._take = plan, listener, active, take
        self._process: HelperProcess | None = None
        self._stream: trio.SocketStream | None = None
        self._failed: ServiceEnd | None = None
        self._news = trio.Event()
        self._stopping = False
        # Our ends of what guards hold for us: closed, their second process lets go.
        self._releases: list[int] = []
        self.listener_pid = 0
        self._is_held_outside = False
        self.serial = 0
        self.counts: dict[str, int] = {}
        self.figures: dict[str, object] = {}
        self.last: RulesNews | None = None
        self.restarts = Restarts()

    @property
    def holds(self) -> bool:
        """Whether opens are decided, as far as can be known."""
        return not self.is_on or self.listener_pid != 0

    @property
    def pid(self) -> int:
        """Process id of our own guard, 0 while there is none."""
        running = self._process is not None and self._process.exit_code is None
        return self._process.pid if running and self._process is not None else 0

    async def heard(self, s_max: float) -> bool:
        """Wait until opens are decided; False after ``s_max`` seconds, or when it failed."""
        with trio.move_on_after(s_max):
            while not self.holds and self._failed is None:
                await self._news.wait()
        return self.holds

    def failure(self) -> ServiceEnd:
        """Return why opens are not decided, as the end of the service."""
        who = "start aesp-proxy-files.service, or `aesp-proxy files watch`"
        message = f"nobody watches files ({who if self.by == 'service' else 'see the log'})"
        return self._failed or ServiceEnd(exit_code=4, message=message)

    async def keep_running(self) -> ServiceEnd | None:
        """Listen to whoever watches, until told to stop (None)."""
        match self.by:
            case "daemon":
                return await self._keep_own()
            case "service":
                sock = trio.socket.from_stdlib_socket(self._listener.dup())
                await trio.serve_listeners(self._hear_service, [trio.SocketListener(sock)])
            case _:
                pass
        return None

    async def reload(self) -> None:
        """Tell it which policy counts now, and which values are registered."""
        stream, active = self._stream, self._active()
        if stream is None:
            return
        line = config_line(
            self._plan.settings,
            session_id=self._plan.session_id,
            kept=str(active.kept),
            serial=active.serial,
            registry=self._plan.registry,
        )
        try:
            await stream.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it is dead; who listens to it will know
        with trio.move_on_after(self._plan.reload_s_max):
            while self.listener_pid and self.serial < active.serial:
                await self._news.wait()

    async def finish(self) -> None:
        """Have it end in order; then the kernel asks nobody."""
        self._stopping = True
        if self._process is None:
            return
        if self._stream is not None:
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._plan.notice("who watches files is gone")
        await stop(self._process, grace_s=_STOP_S, stop_s_max=self._plan.stop_s_max)

    async def put_down(self) -> None:
        """Leave no process."""
        self._stopping = True
        self._release(0)
        if self._process is not None:
            await stop(self._process, grace_s=0.0, stop_s_max=self._plan.stop_s_max)

    # processes of our own -----------------------------------------------------------

    async def _keep_own(self) -> ServiceEnd | None:
        while not self._is_told_to_stop():
            was_there = self.last is not None
            problem = await self._run_one()
            if self._is_told_to_stop():
                break
            if self._failed is not None and not was_there:
                return self.failure()
            self._hear(_HELD if self._is_held() else _GONE)
            pause_s = self.restarts.died(trio.current_time())
            if pause_s is None:
                return ServiceEnd(
                    exit_code=4,
                    message=f"the guard of files {problem}, more than {RESTARTS_MAX} times in "
                    f"{WINDOW_S:g} s",
                )
            await trio.sleep(pause_s)
        return None

    def _is_told_to_stop(self) -> bool:
        return self._stopping

    async def _run_one(self) -> str:
        self._failed = None
        try:
            wish = wish_word(self._plan.settings)
        except ConfigError as error:
            self._failed = ServiceEnd(exit_code=3, message=str(error))
            return f"was not started: {error}"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = module_command(GUARD_MODULE, death_signal=signal.SIGKILL)
        released, release = os.pipe()
        self._releases.append(release)
        fds = (theirs.fileno(), released)
        words = ("--report-fd", str(fds[0]), "--release-fd", str(released), "--wish", wish)
        process = HelperProcess("files", (*command, *words), log=self._plan.log, pass_fds=fds)
        with theirs:
            try:
                process.start()
            except UnavailableError as error:
                ours.close()
                return f"could not be started: {error}"
            finally:
                os.close(released)
        self._process = process
        await self._listen(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), own=process)
        await stop(process, grace_s=self._plan.stop_s_max, stop_s_max=self._plan.stop_s_max)
        return process.ended()

    def _is_held(self) -> bool:
        """Whether a second process holds the watch of a guard that is gone."""
        if not self._releases:
            return False
        poll = select.poll()
        poll.register(self._releases[-1], 0)
        return not poll.poll(0)  # without a reader a pipe is in error

    def _release(self, keep: int) -> None:
        """Have who holds the watches of earlier guards let go, but for the newest ``keep``."""
        while len(self._releases) > keep:
            os.close(self._releases.pop(0))

    # a service beside us ------------------------------------------------------------

    async def _hear_service(self, stream: trio.SocketStream) -> None:
        if peer_uid(stream.socket) not in (0, os.geteuid()):
            await stream.aclose()
            return
        await self._listen(stream)
        if not self._stopping:
            self._hear(_HELD if self._is_held_outside else _GONE)

    # what is said -------------------------------------------------------------------

    async def _listen(self, stream: trio.SocketStream, *, own: HelperProcess | None = None) -> None:
        """Hear it to its end. One of our ``own`` that answers and then says nothing is ended."""
        buffer = b""
        silence_s = self._plan.settings.files.watch.hung_s + _SILENCE_S
        async with stream:
            self._stream = stream
            await self.reload()
            try:
                while True:
                    data = b""
                    with trio.move_on_after(
                        silence_s if own is not None and self.listener_pid else math.inf
                    ):
                        data = await stream.receive_some(_READ_BYTES)
                    if not data:
                        break
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        self._take_line(line)
                    if len(buffer) > _LINE_BYTES_MAX:
                        break
            except trio.BrokenResourceError:
                buffer = b""
            self._stream, self.listener_pid = None, 0
            if own is not None and not self._stopping:
                own.send_signal(signal.SIGKILL)

    def _take_line(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            self._plan.notice("who watches files sent nonsense")
            return
        self._is_held_outside = isinstance(said, dict) and said.get("held") is True
        match said:
            case {"type": "ready", "serial": int(serial), "pid": int(pid)}:
                self.listener_pid, self.serial = pid, serial
                self._release(1)
            case {"type": "serving", "serial": int(serial)}:
                self.serial = serial
            case {"type": "counts"}:
                self.counts = _numbers(said)
                figures = said.get("figures")
                self.figures = figures if isinstance(figures, dict) else {}
            case {"type": "failed", "exit_code": 3 | 4 as code, "message": str(message)}:
                self._failed = ServiceEnd(exit_code=code, message=message)
            case {"type": "news", "event": str(event), "message": str(message)}:
                if event in ("died", "hung"):
                    self.listener_pid = 0
                self._hear(RulesNews(subject=SUBJECT, event=event, message=message, holds=True))
                return
            case _:
                pass
        self._tell()

    def _hear(self, news: RulesNews) -> None:
        self.last = news
        self._plan.notice(news.message)
        if news.event not in _RECORDED:
            self._take(news)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def _numbers(said: Mapping[str, object]) -> dict[str, int]:
    return {name: value for name, value in said.items() if isinstance(value, int)}

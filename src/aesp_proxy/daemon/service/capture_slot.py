"""Who keeps the packet rules of the capture: a process of ours, a service beside us, nobody.

It alone has CAP_NET_ADMIN (``aesp_proxy.launch.capture``). What it says is told to the
operator, shown by ``status`` and put into the record. While nobody keeps the rules they
stay as they are: the captured lead here, or nowhere.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Final

import trio

from aesp_proxy.daemon.capturing import captures, wish_of
from aesp_proxy.daemon.ending import gone, stop
from aesp_proxy.daemon.process import HelperProcess, module_command
from aesp_proxy.daemon.service.answer import peer_uid
from aesp_proxy.daemon.service.plan import ServiceEnd, ServicePlan
from aesp_proxy.daemon.service.restarts import RESTARTS_MAX, WINDOW_S, Restarts
from aesp_proxy.daemon.service.rules_news import LineDecoder, RulesFailed, RulesNews
from aesp_proxy.errors import InputError, UnavailableError

KEEPER_MODULE: Final = "aesp_proxy.launch.capture"
_RELEASE: Final = b"release\n"
_READ_BYTES: Final = 65_536
_WHO: Final = {
    "daemon": "see the log",
    "service": "start aesp-proxy-capture.service, or `aesp-proxy capture keep`",
}
_GONE: Final = RulesNews(
    event="lost",
    message="nobody keeps the packet rules any more: they stay, but who changes them is not seen",
    holds=False,
)


class CaptureSlot:
    """What is known of the packet rules; ``take`` is given every news."""

    def __init__(
        self,
        plan: ServicePlan,
        listener: socket.socket | None,
        take: Callable[[RulesNews], None],
    ) -> None:
        self.is_on = captures(plan.settings)
        self.by = plan.settings.capture.rules if self.is_on else ""
        self._plan, self._listener, self._take = plan, listener, take
        self._word = wish_of(plan.settings).word() if self.is_on else ""
        self._process: HelperProcess | None = None
        self._stream: trio.SocketStream | None = None
        self._failed: RulesFailed | None = None
        self._news = trio.Event()
        self._stopping = False
        self.last: RulesNews | None = None
        self.restarts = Restarts()

    @property
    def holds(self) -> bool:
        """Whether the rules stand, as far as can be known."""
        return self.by in ("", "elsewhere") or (self.last is not None and self.last.holds)

    @property
    def pid(self) -> int:
        """Process id of our own keeper, 0 while there is none."""
        running = self._process is not None and self._process.exit_code is None
        return self._process.pid if running and self._process is not None else 0

    async def heard(self, s_max: float) -> bool:
        """Wait until the rules stand; False after ``s_max`` seconds, or when it failed."""
        with trio.move_on_after(s_max):
            while not self.holds and self._failed is None:
                await self._news.wait()
        return self.holds

    def failure(self) -> ServiceEnd:
        """Return why the rules do not stand, as the end of the service."""
        if self._failed is not None:
            return ServiceEnd(exit_code=self._failed.exit_code, message=self._failed.message)
        return ServiceEnd(exit_code=4, message=f"nobody puts in the packet rules ({_WHO[self.by]})")

    async def keep_running(self) -> ServiceEnd | None:
        """Listen to whoever keeps the rules, until told to stop (None)."""
        match self.by:
            case "daemon":
                return await self._keep_own()
            case "service" if self._listener is not None:
                await self._listen_for_service(self._listener)
        return None

    async def finish(self, *, release: bool) -> None:
        """Have it end; the rules go where that is asked for, and else stay."""
        self._stopping = True
        if self._process is None:
            return
        if release and self._stream is not None:
            try:
                await self._stream.send_all(_RELEASE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._plan.notice("who keeps the packet rules is gone: they stay")
            with trio.move_on_after(self._plan.stop_s_max):
                while self.last is None or self.last.event != "released":
                    await self._news.wait()
                await gone(self._process)
        await self.put_down()

    async def put_down(self) -> None:
        """Leave no process; the rules stay."""
        self._stopping = True
        if self._process is not None:
            await stop(self._process, grace_s=0.0, stop_s_max=self._plan.stop_s_max)

    # a process of our own -----------------------------------------------------------

    async def _keep_own(self) -> ServiceEnd | None:
        while not self._is_told_to_stop():
            problem = await self._run_one()
            if self._is_told_to_stop():
                break
            if self._failed is not None and self.last is None:
                return self.failure()
            self._hear(_GONE)
            pause_s = self.restarts.died(trio.current_time())
            if pause_s is None:
                return ServiceEnd(
                    exit_code=4,
                    message=f"who keeps the packet rules {problem}, more than {RESTARTS_MAX} times "
                    f"in {WINDOW_S:g} s; the rules stay",
                )
            await trio.sleep(pause_s)
        return None

    def _is_told_to_stop(self) -> bool:
        return self._stopping

    async def _run_one(self) -> str:
        self._failed = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # Killed with us, whatever the reason, it leaves the rules where they are.
        command = module_command(KEEPER_MODULE, death_signal=signal.SIGKILL)
        words = ("--report-fd", str(theirs.fileno()), "--wish", self._word)
        process = HelperProcess(
            "capture", (*command, *words), log=self._plan.log, pass_fds=(theirs.fileno(),)
        )
        with theirs:
            try:
                process.start()
            except UnavailableError as error:
                ours.close()
                return f"could not be started: {error}"
        self._process = process
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._stream = stream
        async with stream:
            await self._listen(stream)
            self._stream = None
        await stop(process, grace_s=self._plan.stop_s_max, stop_s_max=self._plan.stop_s_max)
        return f"{process.ended()}{self._last_words()}"

    def _last_words(self) -> str:
        return f" ({self._failed.message})" if self._failed else ""

    # a service beside us ------------------------------------------------------------

    async def _listen_for_service(self, listener: socket.socket) -> None:
        sock = trio.socket.from_stdlib_socket(listener.dup())
        await trio.serve_listeners(self._hear_service, [trio.SocketListener(sock)])

    async def _hear_service(self, stream: trio.SocketStream) -> None:
        async with stream:
            if peer_uid(stream.socket) not in (0, os.geteuid()):
                return
            await self._listen(stream)
        if not self._stopping:
            self._hear(_GONE)

    # what is said -------------------------------------------------------------------

    async def _listen(self, stream: trio.SocketStream) -> None:
        decoder = LineDecoder()
        try:
            while data := await stream.receive_some(_READ_BYTES):
                for said in decoder.feed(data):
                    self._hear(said)
        except trio.BrokenResourceError:
            return
        except InputError as error:
            self._plan.notice(f"who keeps the packet rules sent nonsense: {error}")

    def _hear(self, said: RulesNews | RulesFailed) -> None:
        if isinstance(said, RulesFailed):
            self._failed = said
        else:
            self.last = said
            self._plan.notice(said.message)
            self._take(said)
        self._news.set()
        self._news = trio.Event()

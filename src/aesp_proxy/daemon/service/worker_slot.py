"""One place among the workers: who stands in it is started again when it dies.

While it is empty its plane is closed: connections wait at its socket, which the
supervisor holds, and nothing passes. The one that takes the place reads the policy that
is decided by then.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final, assert_never

import trio

from aesp_proxy.daemon import control
from aesp_proxy.daemon.ending import stop
from aesp_proxy.daemon.listener import Given
from aesp_proxy.daemon.process import HelperProcess, worker_process
from aesp_proxy.daemon.service.plan import ServiceEnd, ServicePlan, share_of
from aesp_proxy.daemon.service.policy import Active
from aesp_proxy.daemon.service.restarts import RESTARTS_MAX, WINDOW_S, Restarts
from aesp_proxy.daemon.service.rules_news import RulesNews
from aesp_proxy.errors import InputError, UnavailableError

_READ_BYTES: Final = 65_536


class WorkerSlot:
    """A worker process, whichever runs now, and what it said last."""

    def __init__(
        self,
        number: int,
        plan: ServicePlan,
        listener: socket.socket,
        policy: Callable[[], Active],
        workers: int,
        more: Sequence[Given] = (),
    ) -> None:
        self.number = number
        self._plan, self._policy = plan, policy
        self._given: tuple[Given, ...] = (("--listen-fd", listener), *more)
        self._settings = share_of(plan.settings, workers)
        self._workers = workers
        self._process: HelperProcess | None = None
        self._stream: trio.SocketStream | None = None
        self._sending = trio.Lock()
        self._heard_at = 0.0
        self._failed: control.Failed | None = None
        self._news = trio.Event()
        self.restarts = Restarts()
        self.stopping = False
        self.epoch = 0
        self.serving: control.Serving | None = None
        self.counts: control.Counts | None = None
        self.registrations = 0

    @property
    def pid(self) -> int:
        """Process id of the worker, 0 while there is none."""
        running = self._process is not None and self._process.exit_code is None
        return self._process.pid if running and self._process is not None else 0

    @property
    def is_ready(self) -> bool:
        """Whether it accepts and decides."""
        return self.serving is not None and self.pid != 0

    async def keep_running(self) -> ServiceEnd | None:
        """Run workers until told to stop (None), or until it has no sense any more."""
        was_ready = False
        while not self._is_told_to_stop():
            problem = await self._run_one()
            was_ready = was_ready or self.serving is not None
            self._forget()
            if self._is_told_to_stop():
                break
            if self._failed is not None and not was_ready:
                return ServiceEnd(exit_code=self._failed.exit_code, message=self._failed.message)
            pause_s = self.restarts.died(trio.current_time())
            if pause_s is None:
                return ServiceEnd(
                    exit_code=4,
                    message=f"worker {self.number} {problem}, and died more than {RESTARTS_MAX} "
                    f"times in {WINDOW_S:g} s, see {self._plan.log}",
                )
            self._plan.notice(f"worker {self.number} {problem}; starting it again")
            await trio.sleep(pause_s)
        return None

    async def heard(self, condition: Callable[[WorkerSlot], bool], *, s_max: float) -> bool:
        """Wait until what it said fulfils a condition; False after ``s_max`` seconds."""
        with trio.move_on_after(s_max):
            while not condition(self):
                await self._news.wait()
        return condition(self)

    async def reload(self, active: Active) -> bool:
        """Have it decide by another policy; one that does not is killed, and started again."""
        if self._stream is None:
            return False  # the next one reads it at its start
        await self._send(control.reload_frame(kept=str(active.kept), serial=active.serial))
        if await self.heard(lambda slot: _serial(slot) >= active.serial, s_max=self._limit_s):
            return True
        self.kill()
        return False

    async def count(self, s_max: float) -> None:
        """Ask how much is under way; kills one that has not been heard of for too long."""
        if self._stream is None or self.serving is None:
            return
        self.counts = None
        await self._send(control.count_frame())
        await self.heard(lambda slot: slot.counts is not None, s_max=s_max)
        if self.is_ready and trio.current_time() - self._heard_at > self._plan.hung_s_max:
            self._plan.notice(f"worker {self.number} does not answer; ending it")
            self.kill()

    async def register(self, frames: Sequence[bytes], *, s_max: float) -> bool:
        """Have it look for other values; False when it does not say so within ``s_max`` s."""
        if self._stream is None:
            return True  # the next one is given all at its start
        if not await self.heard(lambda slot: slot.serving is not None, s_max=s_max):
            return False
        wanted = self.registrations + len(frames)
        for frame in frames:
            await self._send(frame)
        return await self.heard(
            lambda slot: slot.registrations >= wanted or slot.serving is None, s_max=s_max
        )

    async def refused_reload(self, message: str) -> None:
        """Have it record that a policy was not taken."""
        await self._send(control.refused_frame(message))

    async def note_rules(self, news: RulesNews) -> None:
        """Have it record what became of the packet rules of a capture, or of a watch of files."""
        frame = control.rules_frame(
            event=news.event, message=news.message, holds=news.holds, subject=news.subject
        )
        await self._send(frame)

    async def stop(self, grace_s: float) -> None:
        """Let it finish what is under way, at most so long."""
        self.stopping = True
        if self._process is None:
            return
        await self._send(control.stop_frame(grace_s=grace_s))
        await stop(self._process, grace_s=grace_s + 1.0, stop_s_max=self._plan.stop_s_max)

    def close_listeners(self) -> None:
        """Close our copies of its sockets: with the worker's, the ports are closed."""
        for _, sock in self._given:
            sock.close()

    def kill(self) -> None:
        """End it at once, whatever is under way."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def put_down(self) -> None:
        """Leave no process."""
        self.stopping = True
        if self._process is not None:
            await stop(self._process, grace_s=0.0, stop_s_max=self._plan.stop_s_max)

    @property
    def _limit_s(self) -> float:
        return self._plan.reload_s_max

    async def _run_one(self) -> str:
        """Start a worker and listen to it until it is gone; say how it ended."""
        self._failed = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        given = (("--control-fd", theirs), *self._given)
        process = worker_process(given, log=self._plan.log)
        with theirs:
            try:
                process.start()
            except UnavailableError as error:
                ours.close()
                return f"could not be started: {error}"
        self._process = process
        self._heard_at = trio.current_time()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._stream = stream
        async with stream:
            nonsense = await self._listen(stream)
            self._stream = None
        await stop(process, grace_s=self._plan.stop_s_max, stop_s_max=self._plan.stop_s_max)
        return f"{process.ended()}{self._last_words() or nonsense}"

    def _is_told_to_stop(self) -> bool:
        return self.stopping

    def _last_words(self) -> str:
        return f" ({self._failed.message})" if self._failed else ""

    async def _listen(self, stream: trio.SocketStream) -> str:
        decoder, active = control.FrameDecoder(), self._policy()
        settings, registry = self._settings, self._plan.registry
        frames = registry.frames()
        first = control.config_frame(
            settings.to_worker(),
            session_id=self._plan.session_id,
            ca_dir=str(settings.ca_dir),
            kept=str(active.kept),
            serial=active.serial,
            exact_key=registry.key,
            registrations=len(frames),
            place=self.number - 1,
            places=self._workers,
        )
        await self._send(b"".join([first, *frames]))
        try:
            while data := await stream.receive_some(_READ_BYTES):
                for frame in decoder.feed(data):
                    self._take(control.from_worker(frame))
        except trio.BrokenResourceError:
            return ""
        except InputError as error:
            return f" (it sent nonsense: {error})"
        return ""

    def _take(self, message: control.FromWorker) -> None:
        self._heard_at = trio.current_time()
        match message:
            case control.Checked():
                pass  # whoever connects waits at the socket until it is ready
            case control.Ready():
                self.epoch = message.epoch
            case control.Serving():
                self.serving = message
            case control.Counts():
                self.counts = message
            case control.Registered():
                self.registrations += 1
            case control.Failed():
                self._failed = message
            case control.Notice():
                self._plan.notice(message.message)
            case control.DenialsTold():
                pass  # not asked of a service: from outside the record says it
            case _:
                assert_never(message)
        self._tell()

    def _forget(self) -> None:
        self.serving = None
        self.counts = None
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _send(self, frame: bytes) -> None:
        async with self._sending:
            stream = self._stream
            if stream is None:
                return
            try:
                await stream.send_all(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it is dead; who listens to it will know


def _serial(slot: WorkerSlot) -> int:
    return slot.serving.serial if slot.serving else 0

"""The supervisor's side of the file guard: its first frames, its life, its end.

A dead guard is not started again: what it served is closed for good (a FUSE session ends
with its descriptor, a listener of system calls with its process). One that does not answer
is killed, since what waits for it cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from aesp_proxy.daemon import control
from aesp_proxy.daemon.denials import Denied
from aesp_proxy.daemon.ending import gone
from aesp_proxy.daemon.process import FileGuard
from aesp_proxy.daemon.questions import Questions
from aesp_proxy.errors import InputError

_READ_BYTES: Final = 65536
_EXIT_S_MAX: Final = 2.0


@dataclass(slots=True, kw_only=True)
class Guarding:
    """One file guard, from started to ended. ``silence_s_max`` seconds of it are its death."""

    guard: FileGuard
    silence_s_max: float = 10.0
    checked: trio.Event = field(default_factory=trio.Event)
    ready: trio.Event = field(default_factory=trio.Event)
    epoch: int = 0
    failed: control.Failed | None = None
    _decoder: control.FrameDecoder = field(default_factory=control.FrameDecoder)
    _answered: trio.Event = field(default_factory=trio.Event)
    _told: Questions = field(default_factory=Questions)
    _stream: trio.SocketStream | None = None
    _saying: trio.Lock = field(default_factory=trio.Lock)

    async def watch(self, first: Sequence[bytes]) -> control.Failed | None:
        """Give it its configuration and watch it; None when it ended as it should."""
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(self.guard.control))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_alive)
            nonsense = await self._listen(first)
            nursery.cancel_scope.cancel()
        with trio.move_on_after(_EXIT_S_MAX):
            await gone(self.guard.process)
        process = self.guard.process
        if nonsense or process.exit_code is None:
            process.send_signal(9)
            process.collect()
        if self.failed is not None:
            return self.failed
        if process.exit_code == 0:
            return None
        how = nonsense or f"{process.ended()}: {process.last_words()}"
        return control.Failed(exit_code=4, message=f"the file guard {how}")

    async def _listen(self, first: Sequence[bytes]) -> str:
        """Take what it says until it ends; return what was wrong with it."""
        stream = self._stream
        if stream is None:
            return "was not started"
        try:
            await stream.send_all(b"".join(first))
            while data := await stream.receive_some(_READ_BYTES):
                for frame in self._decoder.feed(data):
                    self._take(control.from_worker(frame))
        except trio.BrokenResourceError:
            return ""  # it closed while bytes of ours were under way: an end like any other
        except InputError as error:
            return f"sent nonsense ({error})"
        return ""

    def _take(self, message: control.FromWorker) -> None:
        match message:
            case control.Checked():
                self.checked.set()
            case control.Ready():
                self.epoch = message.epoch
                self.checked.set()
                self.ready.set()
            case control.Failed():
                self.failed = message
            case control.DenialsTold():
                self._told.answer(message)
            case _:
                self._answered.set()

    async def _keep_alive(self) -> None:
        """Ask now and then, and kill what does not answer."""
        await self.ready.wait()
        while True:
            await trio.sleep(self.silence_s_max / 2)
            self._answered = trio.Event()
            with trio.move_on_after(self.silence_s_max) as scope:
                await self._say(control.count_frame())
                await self._answered.wait()
            if scope.cancelled_caught:
                message = f"the file guard did not answer for {self.silence_s_max:g} s"
                self.failed = control.Failed(exit_code=4, message=message)
                self.guard.process.send_signal(9)
                return

    async def register(self, frames: Sequence[bytes]) -> None:
        """Have it look for other values."""
        for frame in frames:
            await self._say(frame)

    async def denials(self) -> tuple[Denied, ...]:
        """Ask what it refused last; UnavailableError when it does not answer soon."""
        return await self._told.ask(self._say, "the file guard")

    async def _say(self, frame: bytes) -> None:
        if self._stream is None:
            return
        try:
            async with self._saying:
                await self._stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it is dead already; waiting for it returns at once

    async def end(self) -> None:
        """Tell it to end, and wait for that."""
        await self._say(control.stop_frame(grace_s=0.0))
        await gone(self.guard.process)

    async def close(self) -> None:
        """Close our end of its socket."""
        if self._stream is not None:
            await self._stream.aclose()
        else:
            self.guard.control.close()

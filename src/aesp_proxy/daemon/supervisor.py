"""Hold one run together: the listener, the worker, the sealer and the child.

Each can die on its own, and what follows is here, on one page:

- The worker dies: the plane is closed. The child has no way out any more; it is
  ended and the person is told why.
- The sealer dies: it is started once more after a pause; dead again within a minute,
  the run ends, as what cannot be recorded does not pass. When it says that keys or
  configuration are wrong (exit code 3) another start would not help.
- The file guard dies, or stands still: what it served is closed, and the child is ended.
- The child ends: the worker finishes what is under way, then the sealer seals
  everything, and both are collected.
- We are killed: the kernel tells each of them (see ``spawned`` and the child's
  launcher), the journal stays and is sealed at the next start.

Order at the start: bind first, so that the port is known and taken before anything
else runs; the child when worker and file guard have said that what they were given is
good. They may still compile then, seconds where nothing was kept: who connects, asks
for a name or opens a file waits in the kernel until they take it, and nothing passes.
"""

from __future__ import annotations

import math
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, assert_never

import trio

from aesp_proxy.daemon import control
from aesp_proxy.daemon.denials import Denied
from aesp_proxy.daemon.ending import gone, stop
from aesp_proxy.daemon.guarding import Guarding
from aesp_proxy.daemon.process import HelperProcess, Helpers
from aesp_proxy.daemon.questions import Questions
from aesp_proxy.daemon.run_plan import Child, Ended, Plan, RunEnd
from aesp_proxy.daemon.secret_reading import keep_reading
from aesp_proxy.daemon.secret_registry import register_frames, told
from aesp_proxy.daemon.why_door import serve_door
from aesp_proxy.decide.secrets.registered import Entry
from aesp_proxy.errors import InputError, UnavailableError

_READ_BYTES: Final = 65536
_EXIT_S_MAX: Final = 2.0
_EXIT_CONFIG: Final = 3
_RELAYED: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(slots=True, kw_only=True)
class _Run:
    """The state of one run; the first end that is set is the one that counts."""

    plan: Plan
    child: Child
    worker: HelperProcess
    sealer: HelperProcess
    stream: trio.SocketStream
    files: Guarding | None = None
    decoder: control.FrameDecoder = field(default_factory=control.FrameDecoder)
    checked: trio.Event = field(default_factory=trio.Event)
    can_seal: trio.Event = field(default_factory=trio.Event)
    ready: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    child_ended: trio.Event = field(default_factory=trio.Event)
    draining: trio.CancelScope = field(default_factory=trio.CancelScope)
    saying: trio.Lock = field(default_factory=trio.Lock)
    questions: Questions = field(default_factory=Questions)
    released: bool = False
    epoch: int = 0
    end: RunEnd | None = None
    failed: control.Failed | None = None

    @property
    def is_ready(self) -> bool:
        """Whether all that decides does."""
        return self.ready.is_set() and (self.files is None or self.files.ready.is_set())

    @property
    def is_checked(self) -> bool:
        """Whether all that decides has what it needs, and will be ready."""
        has_files = self.files is None or self.files.checked.is_set()
        return self.checked.is_set() and self.can_seal.is_set() and has_files

    async def wait_ready(self) -> None:
        """Wait until all that decides does."""
        await self.ready.wait()
        if self.files is not None:
            await self.files.ready.wait()

    async def say(self, frame: bytes) -> None:
        """Tell the worker; one that is dead hears nothing, and its end is told elsewhere."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self.saying:
                await self.stream.send_all(frame)

    async def denials(self) -> list[tuple[Denied, ...]]:
        """Have all that decide say what they refused last; UnavailableError when one does not."""
        told = [await self.questions.ask(self.say, "the proxy")]
        if self.files is not None:
            told.append(await self.files.denials())
        return told

    def finish(self, ended: Ended, exit_code: int, message: str = "") -> None:
        """Set the end of the run, unless it has one."""
        if self.end is None:
            self.end = RunEnd(
                ended=ended,
                exit_code=exit_code,
                epoch=self.epoch,
                message=message,
                files_epoch=self.files.epoch if self.files is not None else 0,
            )
        self.over.set()


async def supervise(plan: Plan, child: Child, helpers: Helpers) -> RunEnd:
    """Run ``child`` behind the worker of ``helpers``, and end all in order.

    What goes wrong is in the answer. Whatever happens, no process is left.
    """
    run = _Run(
        plan=plan,
        child=child,
        worker=helpers.worker,
        sealer=helpers.sealer,
        stream=trio.SocketStream(trio.socket.from_stdlib_socket(helpers.control)),
        files=_guarding(plan, helpers),
    )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_take_signals, run)
            await _until_over(run)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _put_down(run)
    return run.end or RunEnd(ended=Ended.WORKER_DIED, exit_code=4, epoch=run.epoch)


def _guarding(plan: Plan, helpers: Helpers) -> Guarding | None:
    if helpers.files is None:
        return None
    return Guarding(guard=helpers.files, silence_s_max=plan.guard_silence_s_max)


async def _until_over(run: _Run) -> None:
    """Watch everything until the first end, then end the rest in order."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_worker, run)
        nursery.start_soon(_watch_sealer, run)
        nursery.start_soon(_watch_files, run)
        nursery.start_soon(_keep_sources, run)
        if run.plan.door is not None:
            nursery.start_soon(serve_door, run.plan.door, run.denials)
        nursery.start_soon(_let_child_run, run)
        await run.over.wait()
        if run.end is not None and run.end.ended is not Ended.CHILD:
            await _end_child(run, run.end)
        nursery.cancel_scope.cancel()
    await _drain(run)


async def _let_child_run(run: _Run) -> None:
    late = trio.current_time() + run.plan.start_s_max
    with trio.move_on_at(late):
        await run.checked.wait()
        await run.can_seal.wait()
        if run.files is not None:
            await run.files.checked.wait()
    if run.over.is_set():
        return
    if not run.is_checked:
        _not_ready(run)
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_be_ready, run, late)
        await run.child.release()
        run.released = True
        code = await run.child.run()
        run.child_ended.set()
        # A command may be quicker than what watches it, which records that it was there.
        with trio.move_on_at(late):
            await run.wait_ready()
        nursery.cancel_scope.cancel()
    run.finish(Ended.CHILD, code)


async def _be_ready(run: _Run, late: float) -> None:
    """Give up a run that does not get ready: its command waits for nothing."""
    with trio.move_on_at(late):
        await run.wait_ready()
    if not run.is_ready:
        _not_ready(run)


def _not_ready(run: _Run) -> None:
    waited = f"the proxy was not ready after {run.plan.start_s_max:g} s, see {run.plan.log}"
    run.finish(Ended.WORKER_FAILED, 4, waited)


async def _end_child(run: _Run, end: RunEnd) -> None:
    """End a child whose plane is closed, having said why. ``_let_child_run`` awaits its end."""
    if not run.released:
        return
    run.plan.notice(f"{end.message}; ending the command, which has no way out any more")
    await run.child.end(grace_s=run.plan.child_grace_s)
    with trio.move_on_after(run.plan.child_grace_s + 10.0):
        await run.child_ended.wait()


def _first_frames(plan: Plan) -> list[bytes]:
    """Return the configuration and the registered values, as each guard of a run gets them."""
    settings, registry = plan.settings, plan.registry
    frames = registry.frames() if registry is not None else []
    first = control.config_frame(
        settings.to_worker(),
        session_id=plan.session_id,
        ca_dir=str(settings.ca_dir),
        exact_key=registry.key if registry is not None else b"",
        registrations=len(frames),
    )
    return [first, *frames]


async def _watch_files(run: _Run) -> None:
    """Watch the file guard; its end is the run's, but for the one that comes with the child's."""
    if run.files is None:
        return
    failed = await run.files.watch(_first_frames(run.plan))
    if failed is not None:
        run.finish(Ended.FILES_DIED, failed.exit_code, failed.message)


async def _watch_worker(run: _Run) -> None:
    try:
        async with run.saying:
            await run.stream.send_all(b"".join(_first_frames(run.plan)))
        while data := await run.stream.receive_some(_READ_BYTES):
            for message in run.decoder.feed(data):
                _take(run, control.from_worker(message))
    except trio.BrokenResourceError:
        # It closed while bytes of ours were under way: an end of file like any other.
        pass
    except InputError as error:
        run.finish(Ended.WORKER_DIED, 4, f"the proxy sent nonsense ({error}), see {run.plan.log}")
        return
    with trio.move_on_after(_EXIT_S_MAX):
        await gone(run.worker)
    if run.failed is not None:
        run.finish(Ended.WORKER_FAILED, run.failed.exit_code, run.failed.message)
    else:
        how = run.worker.ended()
        run.finish(Ended.WORKER_DIED, 4, f"the proxy {how}, see {run.plan.log}")


async def _keep_sources(run: _Run) -> None:
    """Register what the files of sources say when they change."""
    registry = run.plan.registry
    if registry is None:
        return

    async def give(added: list[Entry]) -> None:
        for line in told(added, ()):
            run.plan.notice(line)
        frames = list(register_frames(added))
        for frame in frames:
            await run.say(frame)
        if run.files is not None:
            await run.files.register(frames)

    await run.wait_ready()
    await keep_reading(registry, give, run.plan.notice)


def _take(run: _Run, message: control.FromWorker) -> None:
    match message:
        case control.Checked():
            run.checked.set()
        case control.Ready():
            run.epoch = message.epoch
            run.checked.set()
            run.ready.set()
        case control.Failed():
            run.failed = message
        case control.Notice():
            run.plan.notice(message.message)
        case control.DenialsTold():
            run.questions.answer(message)
        case control.Serving() | control.Counts() | control.Registered():
            pass  # a run asks for none of them
        case _:
            assert_never(message)


async def _watch_sealer(run: _Run) -> None:
    died_at = -math.inf
    while True:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear_sealer, run)
            await gone(run.sealer)
            nursery.cancel_scope.cancel()
        if run.sealer.exit_code == _EXIT_CONFIG:
            run.finish(Ended.SEALER_FAILED, _EXIT_CONFIG, run.sealer.last_words())
            return
        if trio.current_time() - died_at < run.plan.sealer_steady_s:
            break
        died_at = trio.current_time()
        await trio.sleep(run.plan.sealer_pause_s)
        try:
            run.sealer.start()
        except UnavailableError:
            break
    message = f"the sealer {run.sealer.ended()} twice: {run.sealer.last_words()}"
    run.finish(Ended.SEALER_DIED, 4, message)


async def _hear_sealer(run: _Run) -> None:
    """Wait until it can seal: a command whose record nobody can sign is not begun."""
    stdin = run.sealer.stdin
    if stdin is not None:
        await trio.lowlevel.wait_readable(stdin)
        with suppress(ConnectionResetError):  # it has died, which is seen elsewhere
            if stdin.recv(1):
                run.can_seal.set()


async def _take_signals(
    run: _Run, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Relay signals to the child; before it runs they end the run, after it they hurry the end.

    Ctrl-C reaches the child from the terminal, and what it means is the child's
    affair: we do nothing of our own however often it comes.
    """
    # What we were told to ignore (nohup) stays ignored, here and in the child.
    numbers = [n for n in _RELAYED if signal.getsignal(n) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*numbers) as received:
        task_status.started()
        async for number in received:
            if run.over.is_set():
                run.draining.cancel()
            elif run.released:
                await run.child.signal(number)
            else:
                run.finish(Ended.INTERRUPTED, 128 + number, signal.Signals(number).name)


async def _drain(run: _Run) -> None:
    """Let the worker finish what is under way, and the sealer seal everything."""
    with run.draining:
        if run.ready.is_set():
            with trio.move_on_after(run.plan.drain_s_max + 1.0):
                await _ask_to_stop(run)
                await gone(run.worker)
        await _stop(run, run.worker, grace_s=0.0)
        if run.files is not None:
            with trio.move_on_after(_EXIT_S_MAX):
                await run.files.end()
            await _stop(run, run.files.guard.process, grace_s=0.0)
        run.sealer.close_stdin()
        if not await _stop(run, run.sealer, grace_s=run.plan.seal_s_max):
            run.plan.notice("not everything is sealed; the next start seals the rest")


async def _ask_to_stop(run: _Run) -> None:
    # One that is dead already hears nothing; waiting for it returns at once.
    await run.say(control.stop_frame(grace_s=run.plan.drain_s_max))


async def _put_down(run: _Run) -> None:
    """Whatever happened before: no process of ours is left when this returns."""
    if not run.released:
        await run.child.end(grace_s=0.0)
    await run.stream.aclose()
    await _stop(run, run.worker, grace_s=0.0)
    if run.files is not None:
        await run.files.close()
        await _stop(run, run.files.guard.process, grace_s=0.0)
    run.sealer.close_stdin()
    await _stop(run, run.sealer, grace_s=0.0)


async def _stop(run: _Run, process: HelperProcess, *, grace_s: float) -> bool:
    return await stop(process, grace_s=grace_s, stop_s_max=run.plan.stop_s_max)

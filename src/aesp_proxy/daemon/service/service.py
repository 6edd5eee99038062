"""Hold the service together, from its start to its end, on one page.

1. The packet rules of a capture are put in, before anything else may fail. Files are
   watched as soon as there is a policy. The policy is
   checked; the sealer starts meanwhile. A wrong one ends the start (3).
2. Sockets are bound, for each worker, and workers started. When all decide: READY.
3. A worker or sealer that dies is started again; one that keeps dying ends it all (4).
4. SIGHUP, or a change of its files, has the policy read again: whole or not at all.
5. SIGTERM or SIGINT: nothing new is accepted, what is under way is finished, everything
   is sealed. A second one hurries.

Killed, we take all with us: the kernel tells each of our processes (see ``spawned``).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from aesp_proxy import __version__
from aesp_proxy.daemon.listener import Given, bind_captured, bind_shared, queues_of
from aesp_proxy.daemon.refusals import last_refusals
from aesp_proxy.daemon.service.answer import Question, answer_questions
from aesp_proxy.daemon.service.capture_slot import CaptureSlot
from aesp_proxy.daemon.service.files_slot import FilesSlot
from aesp_proxy.daemon.service.notify import Notifier
from aesp_proxy.daemon.service.plan import ServiceEnd, ServicePlan
from aesp_proxy.daemon.service.policy import Active, PolicyState
from aesp_proxy.daemon.service.registering import Registering
from aesp_proxy.daemon.service.reloading import Reloading
from aesp_proxy.daemon.service.report import report
from aesp_proxy.daemon.service.rules_news import RulesNews
from aesp_proxy.daemon.service.run_dir import RunDir
from aesp_proxy.daemon.service.sealer_slot import SealerSlot
from aesp_proxy.daemon.service.worker_slot import WorkerSlot
from aesp_proxy.errors import AespError, InputError
from aesp_proxy.record.state import audit_paths

_REFUSALS_MAX: Final = 1_000
_COUNT_S_MAX: Final = 1.0
_TOLD: Final = ServiceEnd(exit_code=0)
_NEWS_MAX: Final = 100
_RETRY_S: Final = 1.0


@dataclass(slots=True, kw_only=True)
class _Service:
    """What runs; the first end that is set is the one that counts."""

    plan: ServicePlan
    notifier: Notifier
    policy: PolicyState
    sealer: SealerSlot
    capture: CaptureSlot
    files: FilesSlot
    rules_news: trio.MemoryReceiveChannel[RulesNews]
    started_ns: int
    port: int = 0
    slots: tuple[WorkerSlot, ...] = ()
    reloading: Reloading | None = None
    end: ServiceEnd | None = None
    over: trio.Event = field(default_factory=trio.Event)
    draining: trio.CancelScope = field(default_factory=trio.CancelScope)

    def finish(self, end: ServiceEnd) -> None:
        """Set the end, unless it has one."""
        self.end = self.end or end
        self.over.set()

    def active(self) -> Active:
        """Return the policy that is decided by."""
        return self.policy.taken()

    def summary(self) -> str:
        """Say how it is in a line."""
        ready = sum(slot.is_ready for slot in self.slots)
        active = self.active()
        error = self.policy.last.error
        kept = f"; the last reload was not taken: {error}" if error else ""
        rules = "" if self.capture.holds else "; THE PACKET RULES DO NOT STAND"
        rules += "" if self.files.holds else "; NOBODY WATCHES FILES"
        return (
            f"{ready} of {len(self.slots)} workers on port {self.port}, "
            f"policy {active.name!a} serial {active.serial}{kept}{rules}"
        )

    async def refusals(self, question: Question) -> dict[str, object]:
        """Say what was refused last; ``what`` and ``last`` of the question choose."""
        last = question.get("last", 5)
        if not isinstance(last, int) or not 0 < last <= _REFUSALS_MAX:
            raise InputError(f"last is a number from 1 to {_REFUSALS_MAX}")
        read = partial(
            last_refusals,
            audit_paths(self.plan.settings.state_dir),
            str(question.get("what", "")),
            last=last,
        )
        found = await trio.to_thread.run_sync(read)
        return {"refusals": [each.told() for each in found]}

    async def status(self, question: Question) -> dict[str, object]:
        """Return what ``aesp-proxy status`` shows, counted now."""
        del question
        await self.count()
        return report(
            plan=self.plan,
            policy=self.policy,
            slots=self.slots,
            sealer=self.sealer,
            capture=self.capture,
            files=self.files,
            port=self.port,
            started_ns=self.started_ns,
        )

    async def count(self) -> None:
        """Ask every worker how much is under way."""
        async with trio.open_nursery() as nursery:
            for slot in self.slots:
                nursery.start_soon(slot.count, _COUNT_S_MAX)


async def serve(plan: ServicePlan, run_dir: RunDir, notifier: Notifier) -> ServiceEnd:
    """Run the service until it is told to stop, or cannot go on; no process is left.

    What goes wrong is in the answer.
    """
    policy = PolicyState(settings=plan.settings, log=plan.log)
    heard, unheard = trio.open_memory_channel[RulesNews](_NEWS_MAX)
    keep = _kept_for_record(plan, heard)
    service = _Service(
        plan=plan,
        notifier=notifier,
        policy=policy,
        sealer=SealerSlot(plan),
        capture=CaptureSlot(plan, run_dir.capture_listener, keep),
        files=FilesSlot(plan, run_dir.files_listener, policy.taken, keep),
        rules_news=unheard,
        started_ns=policy.wall_ns(),
    )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_take_signals, service)
            nursery.start_soon(_keep_watchdog, service)
            await _until_over(service, run_dir)
            nursery.cancel_scope.cancel()
    except* AespError as group:
        error = group.exceptions[0]
        service.finish(ServiceEnd(exit_code=3, message=str(error)))
    finally:
        with trio.CancelScope(shield=True):
            await _put_down(service)
    return service.end or _TOLD


async def _until_over(service: _Service, run_dir: RunDir) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_capture, service)
        nursery.start_soon(_keep_sealer, service)
        nursery.start_soon(_start, service, run_dir, nursery)
        await service.over.wait()
        service.notifier.say("STOPPING=1", f"STATUS={_why(service)}")
        # Workers are still listened to while they finish; nothing else goes on.
        await _drain(service)
        nursery.cancel_scope.cancel()


async def _start(service: _Service, run_dir: RunDir, nursery: trio.Nursery) -> None:
    plan, count = service.plan, service.plan.settings.daemon.workers
    # First of all: what fails after it leaves the captured without a way out.
    own = service.capture.by == "daemon"
    if own and not await service.capture.heard(plan.start_s_max):
        service.finish(service.capture.failure())
        return
    try:
        service.policy.start()
        await service.policy.load(forced=True)
        listeners = bind_shared(plan.settings, count)
        more: list[list[Given]] = queues_of("pieces", count)
        if service.capture.is_on:
            names = queues_of("names", count)
            every = zip(more, bind_captured(plan.settings, count), names, strict=True)
            more = [[*pieces, *sockets, *queues] for pieces, sockets, queues in every]
    except (AespError, OSError) as error:
        service.finish(ServiceEnd(exit_code=3, message=str(error)))
        return
    for warning in service.active().warnings:
        plan.notice(f"policy: {warning}")
    service.port = listeners[0].getsockname()[1]
    service.slots = tuple(
        WorkerSlot(number, plan, listener, service.active, count, each)
        for number, (listener, each) in enumerate(zip(listeners, more, strict=True), start=1)
    )
    service.reloading = Reloading(
        plan, service.policy, service.slots, service.files, service.notifier, service.summary
    )
    nursery.start_soon(_keep_files, service)
    for slot in service.slots:
        nursery.start_soon(_keep_worker, service, slot)
    nursery.start_soon(_record_rules, service)
    registering = Registering(plan, plan.registry, service.slots, service.files.reload)
    answers = {
        "status": service.status,
        "refusals": service.refusals,
        "secrets.register": registering.register,
        "secrets.forget": registering.forget,
        "secrets.list": registering.listed,
    }
    nursery.start_soon(answer_questions, run_dir.listener, answers)
    if not await _all_ready(service):
        return
    nursery.start_soon(registering.keep_reading)
    nursery.start_soon(service.reloading.run)
    nursery.start_soon(service.reloading.watch)
    nursery.start_soon(_beat, service)
    service.notifier.ready(service.summary())
    plan.notice(f"{service.summary()}; version {__version__}")


async def _all_ready(service: _Service) -> bool:
    limit_s = service.plan.start_s_max
    with trio.move_on_after(limit_s):
        for slot in service.slots:
            await slot.heard(lambda each: each.is_ready, s_max=limit_s)
        await service.capture.heard(limit_s)
        await service.files.heard(limit_s)
    if not all(slot.is_ready for slot in service.slots):
        message = f"the workers were not ready after {limit_s:g} s, see {service.plan.log}"
        service.finish(ServiceEnd(exit_code=4, message=message))
    elif not service.capture.holds:
        service.finish(service.capture.failure())
    elif not service.files.holds:
        service.finish(service.files.failure())
    else:
        return True
    return False


async def _keep_worker(service: _Service, slot: WorkerSlot) -> None:
    end = await slot.keep_running()
    if end is not None:
        service.finish(end)


async def _keep_files(service: _Service) -> None:
    end = await service.files.keep_running()
    if end is not None:
        service.finish(end)


async def _keep_capture(service: _Service) -> None:
    end = await service.capture.keep_running()
    if end is not None:
        service.finish(end)


def _kept_for_record(
    plan: ServicePlan, channel: trio.MemorySendChannel[RulesNews]
) -> Callable[[RulesNews], None]:
    """Return what takes news until a worker records them."""

    def take(news: RulesNews) -> None:
        try:
            channel.send_nowait(news)
        except trio.WouldBlock:
            plan.notice("too much happens to the packet rules to be recorded")

    return take


async def _record_rules(service: _Service) -> None:
    """Have a worker record what happens to the packet rules, whichever is there."""
    async for news in service.rules_news:
        slot = await _ready_slot(service)
        await slot.note_rules(news)


async def _ready_slot(service: _Service) -> WorkerSlot:
    while True:
        for slot in service.slots:
            if slot.is_ready:
                return slot
        await service.slots[0].heard(lambda each: each.is_ready, s_max=_RETRY_S)


async def _keep_sealer(service: _Service) -> None:
    end = await service.sealer.keep_running()
    if end is not None:
        service.finish(end)


async def _keep_watchdog(service: _Service) -> None:
    """Tell systemd that this loop turns, also while it starts and ends."""
    if service.notifier.watchdog_s <= 0:
        return
    while True:
        service.notifier.say("WATCHDOG=1")
        await trio.sleep(service.notifier.watchdog_s / 3)


async def _beat(service: _Service) -> None:
    """Find workers that are stuck, and tell systemd how it is when that changes."""
    said = service.summary()
    while True:
        await trio.sleep(service.plan.beat_s)
        await service.count()
        if (now := service.summary()) != said:
            service.notifier.say(f"STATUS={now}")
            said = now


async def _take_signals(
    service: _Service, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                if service.reloading is not None:
                    service.reloading.ask(forced=True)
            elif service.over.is_set():
                service.draining.cancel()
            else:
                service.finish(_TOLD)


async def _drain(service: _Service) -> None:
    """Let workers finish what is under way, and the sealer seal everything."""
    with service.draining:
        is_told = service.end is _TOLD
        if is_told and service.plan.settings.capture.on_stop == "release":
            # First, so that a worker is there to record it.
            await service.capture.finish(release=True)
            await _record_rest(service)
        async with trio.open_nursery() as nursery:
            for slot in service.slots:
                slot.close_listeners()
                nursery.start_soon(slot.stop, service.plan.drain_s_max)
        await service.capture.finish(release=False)
        await service.files.finish()
        await service.sealer.finish()


async def _record_rest(service: _Service) -> None:
    """Have recorded what has not been yet, by a worker that is there."""
    slot = next((slot for slot in service.slots if slot.is_ready), None)
    while slot is not None:
        try:
            news = service.rules_news.receive_nowait()
        except trio.WouldBlock:
            return
        await slot.note_rules(news)


async def _put_down(service: _Service) -> None:
    for slot in service.slots:
        await slot.put_down()
    await service.capture.put_down()
    await service.files.put_down()
    await service.sealer.put_down()


def _why(service: _Service) -> str:
    message = service.end.message if service.end else ""
    return message or f"stopping, pid {os.getpid()}"

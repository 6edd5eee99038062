"""When the policy is read again: on SIGHUP, and when its files changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from aesp_proxy.daemon.service.files_slot import FilesSlot
from aesp_proxy.daemon.service.notify import Notifier
from aesp_proxy.daemon.service.plan import ServicePlan
from aesp_proxy.daemon.service.policy import PolicyState
from aesp_proxy.daemon.service.watch import FilesWatch, signature
from aesp_proxy.daemon.service.worker_slot import WorkerSlot
from aesp_proxy.errors import ConfigError


class Reloading:
    """Reads the policy again, one time after another, whole or not at all."""

    def __init__(
        self,
        plan: ServicePlan,
        state: PolicyState,
        slots: Sequence[WorkerSlot],
        files: FilesSlot,
        notifier: Notifier,
        summary: Callable[[], str],
    ) -> None:
        self._plan, self._state, self._slots, self._files = plan, state, slots, files
        self._notifier, self._summary = notifier, summary
        self._wanted, self._reread = trio.Event(), trio.Event()
        self._forced = False
        if state.in_doubt:
            self.ask(forced=False)

    def ask(self, *, forced: bool) -> None:
        """Ask for a reload; what is asked while one is under way is done after it."""
        self._forced = self._forced or forced
        self._wanted.set()

    async def run(self) -> None:
        """Reload whenever that is asked for."""
        while True:
            await self._wanted.wait()
            self._wanted, forced, self._forced = trio.Event(), self._forced, False
            self._notifier.reloading()
            await self._reload(forced=forced)
            self._notifier.ready(self._summary())
            if self._state.in_doubt:
                self.ask(forced=False)
            self._reread.set()

    async def watch(self) -> None:
        """Ask for a reload when the files of the policy changed."""
        with FilesWatch() as watch:
            while True:
                try:
                    is_new = watch.follow(self._state.files)
                except OSError as error:
                    self._plan.notice(
                        f"the policy's files cannot be watched ({error.strerror}): "
                        "a change is taken on SIGHUP only"
                    )
                    return
                if not is_new:
                    await self._something(watch)
                now = signature(self._state.files)
                if now != self._state.seen:
                    self._state.seen = now
                    self.ask(forced=False)
                await trio.lowlevel.checkpoint()

    async def _something(self, watch: FilesWatch) -> None:
        """Wait until a folder changed, or other files are to be watched."""
        self._reread = trio.Event()
        async with trio.open_nursery() as nursery:

            async def first(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, watch.changed)
            nursery.start_soon(first, self._reread.wait)

    async def _reload(self, *, forced: bool) -> None:
        try:
            is_other = await self._state.load(forced=forced)
        except ConfigError as error:
            self._plan.notice(f"the policy is not taken, the old one stays: {error}")
            ready = next((slot for slot in self._slots if slot.is_ready), None)
            if ready is not None:
                await ready.refused_reload(f"not taken, the old one stays: {error}")
            return
        active = self._state.active
        if not is_other or active is None:
            return
        for warning in active.warnings:
            self._plan.notice(f"policy: {warning}")
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                nursery.start_soon(slot.reload, active)
            nursery.start_soon(self._files.reload)
        self._state.forget_old()
        self._plan.notice(f"decides by {active.name!a}, serial {active.serial}, from now on")

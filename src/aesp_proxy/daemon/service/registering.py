"""Register and forget secret values in a service that runs, in every worker at once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from aesp_proxy.daemon.secret_reading import keep_reading
from aesp_proxy.daemon.secret_registry import (
    Registry,
    forget_frame,
    register_frames,
    told,
)
from aesp_proxy.daemon.secret_sources import Value
from aesp_proxy.daemon.service.answer import Question
from aesp_proxy.daemon.service.plan import ServicePlan
from aesp_proxy.daemon.service.worker_slot import WorkerSlot
from aesp_proxy.decide.secrets.registered import Entry
from aesp_proxy.errors import InputError, UnavailableError

_TAKEN_S_MAX: Final = 10.0


class Registering:
    """The registry of a service, and its workers, which look for what is in it.

    True when a question is answered: every worker that decides looks for the values from
    the next byte on, and one that starts is given them before it accepts.
    """

    def __init__(
        self,
        plan: ServicePlan,
        registry: Registry,
        slots: Sequence[WorkerSlot],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """``changed`` tells those who take all that is registered anew: who watches files."""
        self._plan, self._registry, self._slots = plan, registry, slots
        self._changed = changed

    async def register(self, question: Question) -> dict[str, object]:
        """Take values; answer by name what is looked for, and what is not and why."""
        added, refused = self._registry.add(_values(question))
        await self._send(list(register_frames(added)))
        for line in told(added, ()):
            self._plan.notice(line)
        return {
            "registered": [{"name": one.name, "source": one.source} for one in added],
            "refused": [
                {"name": one.name, "source": one.source, "reason": one.reason} for one in refused
            ],
        }

    async def keep_reading(self) -> None:
        """Register what the files of sources say when they change."""
        await keep_reading(self._registry, self._take, self._plan.notice)

    async def _take(self, added: list[Entry]) -> None:
        for line in told(added, ()):
            self._plan.notice(line)
        try:
            await self._send(list(register_frames(added)))
        except UnavailableError as error:
            self._plan.notice(str(error))  # the worker that comes is given them

    async def forget(self, question: Question) -> dict[str, object]:
        """Let the values of a name go."""
        name = str(question.get("name", ""))
        count = self._registry.forget(name)
        if count:
            await self._send([forget_frame(name)])
        return {"forgotten": count}

    async def listed(self, question: Question) -> dict[str, object]:
        """Answer names and sources; never values, which are not known any more."""
        del question
        return {"secrets": self._registry.listed()}

    async def _send(self, frames: Sequence[bytes]) -> None:
        if not frames:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._changed)
            for slot in self._slots:
                nursery.start_soon(self._give, slot, frames)

    async def _give(self, slot: WorkerSlot, frames: Sequence[bytes]) -> None:
        if not await slot.register(frames, s_max=_TAKEN_S_MAX):
            slot.kill()  # the one that takes its place is given them before it accepts
            raise UnavailableError(f"worker {slot.number} does not answer; it is started again")


def _values(question: Question) -> list[Value]:
    given = question.get("values")
    if not isinstance(given, list):
        raise InputError("no values were given")
    return [_value(one) for one in given]


def _value(one: object) -> Value:
    match one:
        case {"name": str(name), "source": str(source), "value": str(text)}:
            try:
                return Value(name=name, source=source, value=base64.b64decode(text, validate=True))
            except binascii.Error:
                raise InputError("a value is not base64") from None
        case _:
            raise InputError("what was given is no value")

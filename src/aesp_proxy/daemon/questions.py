"""Ask a helper process what it has refused, over its control socket, and wait for the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from aesp_proxy.daemon import control
from aesp_proxy.daemon.denials import Denied
from aesp_proxy.errors import UnavailableError

_PATIENCE_S: Final = 2.0


@dataclass(slots=True)
class Questions:
    """What is asked of one process; one question at a time."""

    _answer: tuple[Denied, ...] = ()
    _answered: trio.Event = field(default_factory=trio.Event)

    def answer(self, told: control.DenialsTold) -> None:
        """Take what it says."""
        self._answer = told.denials
        self._answered.set()

    async def ask(self, say: Callable[[bytes], Awaitable[None]], who: str) -> tuple[Denied, ...]:
        """Ask for its last refusals; UnavailableError when it does not answer soon."""
        self._answered = trio.Event()
        with trio.move_on_after(_PATIENCE_S):
            await say(control.why_frame())
            await self._answered.wait()
            return self._answer
        raise UnavailableError(f"{who} does not answer")

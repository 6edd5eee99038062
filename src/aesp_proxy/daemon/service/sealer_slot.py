"""The sealer of the service: started again when it dies; what is recorded waits meanwhile."""

from __future__ import annotations

from typing import Final

import trio

from aesp_proxy.daemon.ending import gone, stop
from aesp_proxy.daemon.process import sealer_arguments, sealer_process
from aesp_proxy.daemon.service.plan import ServiceEnd, ServicePlan
from aesp_proxy.daemon.service.restarts import RESTARTS_MAX, WINDOW_S, Restarts
from aesp_proxy.errors import UnavailableError

_EXIT_CONFIG: Final = 3


class SealerSlot:
    """The sealer process, whichever runs now."""

    def __init__(self, plan: ServicePlan) -> None:
        self._plan = plan
        arguments = sealer_arguments(plan.settings)
        self._process = sealer_process(plan.settings, log=plan.log, arguments=arguments)
        self.restarts = Restarts()
        self._stopping = False

    @property
    def forwards(self) -> bool:
        """Whether there is where to ship to now."""
        return (self._plan.settings.forward_dir / "url").is_file()

    @property
    def pid(self) -> int:
        """Process id, 0 while there is none."""
        return self._process.pid if self._process.exit_code is None else 0

    async def keep_running(self) -> ServiceEnd | None:
        """Run sealers until told to stop (None), or that has no sense any more.

        That is with wrong keys, and after one death after another.
        """
        while True:
            try:
                self._process.start()
                await gone(self._process)
                problem = self._process.ended()
            except UnavailableError as error:
                problem = f"could not be started: {error}"
            if self._stopping:
                return None
            words = self._process.last_words()
            if self._process.exit_code == _EXIT_CONFIG:
                return ServiceEnd(exit_code=_EXIT_CONFIG, message=words)
            pause_s = self.restarts.died(trio.current_time())
            if pause_s is None:
                return ServiceEnd(
                    exit_code=4,
                    message=f"the sealer {problem}, and died more than {RESTARTS_MAX} times in "
                    f"{WINDOW_S:g} s: {words}",
                )
            self._plan.notice(f"the sealer {problem}; starting it again")
            await trio.sleep(pause_s)

    async def finish(self) -> None:
        """Let it seal everything, and end."""
        self._stopping = True
        self._process.close_stdin()
        limit_s = self._plan.seal_s_max
        if not await stop(self._process, grace_s=limit_s, stop_s_max=self._plan.stop_s_max):
            self._plan.notice("not everything is sealed; the next start seals the rest")

    async def put_down(self) -> None:
        """Leave no process."""
        self._process.close_stdin()
        await stop(self._process, grace_s=0.0, stop_s_max=self._plan.stop_s_max)

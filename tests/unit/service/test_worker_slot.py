"""One place among the workers, played with workers that do as they are told, or do not."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from aesp_proxy.daemon.config import build
from aesp_proxy.daemon.config_values import Given
from aesp_proxy.daemon.secret_registry import Registry
from aesp_proxy.daemon.service.plan import ServiceEnd, ServicePlan
from aesp_proxy.daemon.service.policy import Active
from aesp_proxy.daemon.service.worker_slot import WorkerSlot

DOUBLE = Path(__file__).parent / "doubles/worker.py"
WAIT_S = 30.0
FIRST = Active(serial=1, kept=Path("/k/1"), name="a", hash="b", stamp="", since_ns=0)


class Stage:
    """A slot whose workers are doubles of a mode."""

    def __init__(self, folder: Path, mode: str, **bounds: float) -> None:
        self.notices: list[str] = []
        self.active = FIRST
        self.plan = ServicePlan(
            settings=build([{"state_dir": Given(value=str(folder), where="-")}]),
            session_id="s",
            log=folder / "log",
            notice=self.notices.append,
            registry=Registry(b"k" * 32),
            **bounds,
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.slot = WorkerSlot(1, self.plan, self.listener, lambda: self.active, 1)
        self.end: ServiceEnd | None = None

    def play(self, script: Callable[[Stage], Awaitable[None]]) -> None:
        async def run() -> None:
            with trio.fail_after(WAIT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep)
                    try:
                        await script(self)
                    finally:
                        with trio.CancelScope(shield=True):
                            await self.slot.put_down()

        with self.listener:
            trio.run(run)
        assert self.slot.pid == 0

    async def _keep(self) -> None:
        self.end = await self.slot.keep_running()

    async def ready(self, serial: int = 1, restarts: int = 0) -> None:
        def is_so(slot: WorkerSlot) -> bool:
            served = slot.serving.serial if slot.serving else 0
            return slot.is_ready and served == serial and slot.restarts.total == restarts

        assert await self.slot.heard(is_so, s_max=WAIT_S)


@pytest.fixture
def stage(tmp_path, monkeypatch) -> Callable[..., Stage]:
    def begin(mode: str, **bounds: float) -> Stage:
        from aesp_proxy.daemon import process
        from aesp_proxy.daemon.service import worker_slot

        def double(given, *, log):
            return process.worker_process(
                given, log=log, command=(sys.executable, str(DOUBLE), mode)
            )

        monkeypatch.setattr(worker_slot, "worker_process", double)
        return Stage(tmp_path, mode, **bounds)

    return begin


def test_a_worker_says_what_it_serves_and_counts_and_ends_when_told(stage):
    async def script(stage: Stage) -> None:
        await stage.ready()
        await stage.slot.count(WAIT_S)
        assert stage.slot.counts is not None
        assert (stage.slot.epoch, stage.slot.counts.allowed) == (7, 2)
        await stage.slot.stop(5.0)

    one = stage("good")
    one.play(script)
    assert one.end is None
    assert one.notices == []


def test_a_worker_that_takes_another_policy_goes_on(stage):
    async def script(stage: Stage) -> None:
        await stage.ready()
        pid = stage.slot.pid
        stage.active = replace(FIRST, serial=2)
        assert await stage.slot.reload(stage.active)
        assert stage.slot.pid == pid

    stage("good").play(script)


def test_a_worker_that_does_not_take_the_policy_is_replaced_by_one_that_has_it(stage):
    async def script(stage: Stage) -> None:
        await stage.ready()
        stage.active = replace(FIRST, serial=2)
        assert not await stage.slot.reload(stage.active)
        await stage.ready(serial=2, restarts=1)

    one = stage("deaf", reload_s_max=0.2)
    one.play(script)
    assert "was killed by SIGKILL" in one.notices[0]


def test_a_worker_that_does_not_answer_is_replaced(stage):
    async def script(stage: Stage) -> None:
        await stage.ready()
        while stage.slot.restarts.total == 0:
            await stage.slot.count(0.1)
            await trio.lowlevel.checkpoint()
        await stage.ready(restarts=1)

    one = stage("stuck", hung_s_max=0.3)
    one.play(script)
    assert "does not answer" in one.notices[0]


def test_one_that_cannot_start_the_first_time_ends_the_service_and_says_why(stage):
    async def script(stage: Stage) -> None:
        while stage.end is None:
            await stage.slot.heard(lambda _: stage.end is not None, s_max=0.05)

    one = stage("fail")
    one.play(script)
    assert one.end == ServiceEnd(exit_code=3, message="policy.yaml: wrong")

"""The supervisor, with real processes for worker, sealer and command."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.listener import bind
from aesp_proxy.daemon.process import start_file_guard, start_helpers
from aesp_proxy.daemon.run_plan import Ended, Plan, RunEnd
from aesp_proxy.daemon.supervisor import supervise
from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.launch import reaper
from aesp_proxy.launch.child import Child

DOUBLES = Path(__file__).parent / "doubles"


@dataclass
class Ran:
    end: RunEnd
    child: Child
    state: Path
    notices: list[str] = field(default_factory=list)

    def marks(self) -> set[str]:
        return {entry.name for entry in self.state.iterdir()}


def supervised(
    state: Path,
    command: list[str],
    *,
    worker: str = "ready",
    sealer: str = "ready",
    files: str = "",
    meanwhile=None,
    **plan_fields,
) -> Ran:
    """Run ``command`` to its end; ``meanwhile(child)`` is a task beside it."""
    settings = Settings(state_dir=state)
    notices: list[str] = []
    given = {
        "child_grace_s": 0.5,
        "drain_s_max": 0.5,
        "seal_s_max": 5.0,
        "sealer_pause_s": 0.05,
        "stop_s_max": 0.3,
        "start_s_max": 10.0,
    } | plan_fields
    plan = Plan(
        settings=settings,
        session_id="s",
        log=state / "log.txt",
        notice=notices.append,
        **given,
    )
    child = Child(command, os.environ)
    child.prepare()
    helpers = start_helpers(
        settings,
        bind(settings),
        log=plan.log,
        worker_command=(sys.executable, str(DOUBLES / "worker.py"), worker),
        sealer_command=(sys.executable, str(DOUBLES / "sealer.py"), sealer),
    )
    if files:
        double = (sys.executable, str(DOUBLES / "file_guard.py"), files, str(state))
        guard = start_file_guard("fuse", (), log=plan.log, command=double)
        helpers = replace(helpers, files=guard)

    async def main() -> RunEnd:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                if meanwhile is not None:
                    nursery.start_soon(meanwhile, state)
                end = await supervise(plan, child, helpers)
                nursery.cancel_scope.cancel()
        return end

    return Ran(trio.run(main), child, state, notices)


def gone(pid_file: Path) -> bool:
    return not Path("/proc", pid_file.read_text()).exists()


async def wait_for(path: Path) -> None:
    while not path.exists():
        await trio.sleep(0.005)


def test_the_commands_exit_code_is_the_answer_and_both_helpers_end_in_order(tmp_path):
    ran = supervised(tmp_path, ["sh", "-c", "exit 23"])
    assert ran.end == RunEnd(ended=Ended.CHILD, exit_code=23, epoch=7)
    assert {"worker.stopped", "sealed"} <= ran.marks()
    assert gone(tmp_path / "worker.pid")
    assert gone(tmp_path / "sealer.pid")
    assert ran.notices == []


def test_the_command_does_not_start_when_the_worker_refuses(tmp_path):
    ran = supervised(tmp_path, ["touch", str(tmp_path / "ran")], worker="fail")
    assert ran.end.ended is Ended.WORKER_FAILED
    assert ran.end.exit_code == 3
    assert ran.end.message == "p.yaml:1:1: no such guard (mend it)"
    assert "ran" not in ran.marks()
    assert "sealed" in ran.marks()


@pytest.mark.parametrize(
    ("worker", "says"), [("crash", "killed by SIGSEGV"), ("nonsense", "nonsense"), ("mute", "not")]
)
def test_the_command_does_not_start_without_a_ready_worker(tmp_path, worker, says):
    ran = supervised(tmp_path, ["touch", str(tmp_path / "ran")], worker=worker, start_s_max=1.0)
    assert ran.end.exit_code == 4
    assert says in ran.end.message
    assert "ran" not in ran.marks()


def test_the_command_starts_while_the_rules_are_compiled_and_the_run_waits_for_them(tmp_path):
    ran = supervised(tmp_path, ["touch", str(tmp_path / "child-runs")], worker="slow")
    assert ran.end == RunEnd(ended=Ended.CHILD, exit_code=0, epoch=7)
    assert {"worker.stopped", "sealed"} <= ran.marks()


def test_a_worker_that_was_checked_and_never_gets_ready_ends_the_command(tmp_path):
    ran = supervised(tmp_path, ["sleep", "60"], worker="late", start_s_max=1.0)
    assert (ran.end.ended, ran.end.exit_code) == (Ended.WORKER_FAILED, 4)
    assert "not ready after 1 s" in ran.end.message
    assert "no way out" in ran.notices[0]


def test_a_dead_worker_ends_the_command_and_says_why(tmp_path):
    command = f"touch {tmp_path}/child-runs; sleep 60"
    ran = supervised(tmp_path, ["sh", "-c", command], worker="die")
    assert ran.end.ended is Ended.WORKER_DIED
    assert ran.end.exit_code == 4
    assert "killed by SIGKILL" in ran.notices[0]
    assert "no way out" in ran.notices[0]
    assert ran.child.exit is not None
    assert ran.child.exit.code == 128 + signal.SIGTERM
    assert "sealed" in ran.marks()


def test_a_dead_worker_ends_even_a_command_that_ignores_being_asked(tmp_path):
    command = f"trap '' TERM; touch {tmp_path}/child-runs; sleep 60 & wait; wait"
    ran = supervised(tmp_path, ["sh", "-c", command], worker="die")
    assert ran.child.exit is not None
    assert ran.child.exit.code == 128 + signal.SIGKILL


def test_a_sealer_that_dies_once_is_started_again(tmp_path):
    command = f"until grep -q xx {tmp_path}/sealer.starts; do sleep 0.01; done; sleep 0.1"
    ran = supervised(tmp_path, ["sh", "-c", command], sealer="die-once")
    assert ran.end.ended is Ended.CHILD
    assert "sealed" in ran.marks()


def test_a_sealer_that_keeps_dying_ends_the_run(tmp_path):
    ran = supervised(tmp_path, ["sleep", "60"], sealer="die")
    assert ran.end.ended is Ended.SEALER_DIED
    assert ran.end.exit_code == 4
    assert (tmp_path / "sealer.starts").read_text() == "xx"


def test_a_worker_that_does_not_stop_is_killed(tmp_path):
    ran = supervised(tmp_path, ["true"], worker="stubborn", drain_s_max=0.1)
    assert ran.end.ended is Ended.CHILD
    assert gone(tmp_path / "worker.pid")
    assert "sealed" in ran.marks()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_relayed_to_the_command(tmp_path, number):
    async def send(state: Path) -> None:
        await wait_for(state / "child-runs")
        os.kill(os.getpid(), number)

    script = (
        "import pathlib, signal, sys\n"
        "numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "sys.exit(50 + signal.sigwait(numbers))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "child-runs")]
    ran = supervised(tmp_path, command, meanwhile=send)
    assert ran.end == RunEnd(ended=Ended.CHILD, exit_code=50 + number, epoch=7)


def test_a_signal_before_the_command_runs_ends_the_run(tmp_path):
    async def send(state: Path) -> None:
        await wait_for(state / "sealer.pid")
        os.kill(os.getpid(), signal.SIGINT)

    ran = supervised(tmp_path, ["touch", str(tmp_path / "ran")], worker="mute", meanwhile=send)
    assert ran.end.ended is Ended.INTERRUPTED
    assert ran.end.exit_code == 130
    assert "ran" not in ran.marks()


def test_a_helper_that_cannot_be_started_leaves_nothing(tmp_path):
    settings = Settings(state_dir=tmp_path)
    worker = (sys.executable, str(DOUBLES / "worker.py"), "mute")
    listener = bind(settings)
    with pytest.raises(UnavailableError, match="sealer: cannot start"):
        start_helpers(
            settings,
            listener,
            log=tmp_path / "log.txt",
            worker_command=worker,
            sealer_command=(str(tmp_path / "no-such-program"),),
        )
    assert listener.fileno() == -1
    assert reaper.descendants(os.getpid()) == []


def test_a_port_in_use_is_the_operators_to_mend():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(state_dir=Path("/s"))

        settings = replace(settings, listen=replace(settings.listen, port=port))
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: cannot listen") as caught:
            bind(settings)
    assert "--listen" in caught.value.remedy


def test_a_file_guard_is_told_all_and_ends_with_the_command(tmp_path):
    ran = supervised(tmp_path, ["sh", "-c", "exit 23"], files="ready")
    assert (ran.end.exit_code, ran.end.epoch, ran.end.files_epoch) == (23, 7, 9)
    assert {"guard.stopped", "worker.stopped", "sealed"} <= ran.marks()
    assert gone(tmp_path / "guard.pid")


def test_a_file_guard_that_ends_because_what_it_served_is_gone_is_no_failure(tmp_path):
    ran = supervised(tmp_path, ["sh", "-c", f"touch {tmp_path}/child-runs"], files="leave")
    assert ran.end.ended is Ended.CHILD


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [("fail", 3, "no such file system"), ("crash", 4, "SIGSEGV"), ("nonsense", 4, "nonsense")],
)
def test_the_command_does_not_start_without_the_file_guard_that_was_asked_for(
    tmp_path, how, code, says
):
    ran = supervised(tmp_path, ["touch", str(tmp_path / "ran")], files=how)
    assert ran.end.ended is Ended.FILES_DIED
    assert ran.end.exit_code == code
    assert says in ran.end.message
    assert {"ran"} & ran.marks() == set()


def test_a_dead_file_guard_ends_the_command_and_says_why(tmp_path):
    command = f"touch {tmp_path}/child-runs; sleep 60"
    ran = supervised(tmp_path, ["sh", "-c", command], files="die")
    assert ran.end.ended is Ended.FILES_DIED
    assert "file guard was killed by SIGKILL" in ran.notices[0]
    assert ran.child.exit is not None
    assert ran.child.exit.code == 128 + signal.SIGTERM


def test_a_file_guard_that_stands_still_is_killed(tmp_path):
    command = f"touch {tmp_path}/child-runs; sleep 60"
    ran = supervised(tmp_path, ["sh", "-c", command], files="stuck", guard_silence_s_max=0.2)
    assert ran.end.ended is Ended.FILES_DIED
    assert "did not answer for 0.2 s" in ran.end.message
    assert gone(tmp_path / "guard.pid")

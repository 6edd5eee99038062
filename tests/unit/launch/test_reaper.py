"""The reaper and the launcher's side of it: how a command starts and that nothing stays."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from aesp_proxy.errors import ConfigError
from aesp_proxy.launch import reaper
from aesp_proxy.launch.child import Child, Exit

# What the dynamic loader may need to find Python at all.
LOADER = {name: text for name, text in os.environ.items() if name.startswith("LD_LIBRARY")}


def run(
    command: list[str],
    *,
    environment: dict[str, str] | None = None,
    meanwhile: Callable[[Child], Awaitable[None]] | None = None,
) -> Exit:
    child = Child(command, os.environ if environment is None else environment)
    child.prepare()

    async def main() -> None:
        with trio.fail_after(20):
            await child.release()
            async with trio.open_nursery() as nursery:
                if meanwhile is not None:
                    nursery.start_soon(meanwhile, child)
                await child.run()

    trio.run(main)
    assert child.exit is not None
    assert not Path("/proc", str(child.pid)).exists()
    return child.exit


async def made(path: Path) -> None:
    while not path.exists():
        await trio.sleep(0.005)


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_the_exit_code_is_the_commands(code):
    assert run(["sh", "-c", f"exit {code}"]) == Exit(code=code)


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "PIPE"])
def test_a_signal_is_128_and_its_number(name):
    number = getattr(signal, f"SIG{name}")
    assert run(["sh", "-c", f"ulimit -c 0; kill -{name} $$"]) == Exit(code=128 + number)


def test_a_script_without_an_interpreter_line_is_the_shells(tmp_path):
    script = tmp_path / "script"
    script.write_text('exit "$1"\n')
    script.chmod(0o755)
    assert run([str(script), "9"]) == Exit(code=9)
    assert run(["script", "8"], environment=LOADER | {"PATH": str(tmp_path)}) == Exit(code=8)


def test_a_file_that_is_not_executable_is_126(tmp_path):
    (tmp_path / "plain").write_text("x")
    answer = run([str(tmp_path / "plain")])
    assert (answer.code, answer.started, answer.problem) == (126, False, "Permission denied")


def test_a_nul_in_the_command_is_a_config_error():
    with pytest.raises(ConfigError, match="NUL"):
        Child(["a\0b"], {}).prepare()


def test_the_commands_environment_is_exactly_what_was_given(tmp_path):
    out = tmp_path / "out"
    script = f"import os; open({str(out)!r}, 'w').write(repr(sorted(os.environ)))"
    environment = LOADER | {"PYTHONHOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    # -I: the command ignores the broken PYTHONHOME, and so must the reaper before it.
    assert run([sys.executable, "-I", "-c", script], environment=environment).code == 0
    assert out.read_text() == repr(sorted(environment))


def test_descriptors_of_ours_do_not_reach_the_command():
    leak = os.open(os.devnull, os.O_RDONLY)
    try:
        os.set_inheritable(leak, True)
        script = "import os, sys; sys.exit(len(os.listdir('/proc/self/fd')))"
        # 0, 1, 2 and the directory being listed.
        assert run([sys.executable, "-c", script]).code == 4
    finally:
        os.close(leak)


def test_signal_dispositions_of_the_command_are_those_of_a_fresh_process():
    script = (
        "import signal, sys\n"
        "handled = [s for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)"
        " if signal.getsignal(s) != signal.SIG_DFL]\n"
        "sys.exit(len(handled) + len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
    )
    assert run([sys.executable, "-c", script]).code == 0
    # SIGPIPE, which Python ignores in itself, ends a shell's child as it should.
    assert run(["sh", "-c", "yes | head -1 >/dev/null; kill -PIPE $$"]).code == 128 + 13


def test_what_we_were_told_to_ignore_the_command_ignores():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(["sh", "-c", "kill -HUP $$; exit 6"]).code == 6
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_relayed_signal_reaches_a_command_that_did_not_get_it(tmp_path):
    async def relay(child: Child) -> None:
        await made(tmp_path / "up")
        await child.signal(signal.SIGUSR1)

    script = f"trap 'exit 5' USR1; touch {tmp_path}/up; while :; do sleep 0.01; done"
    assert run(["sh", "-c", script], meanwhile=relay).code == 5


def test_a_command_that_is_asked_to_end_may_take_its_time(tmp_path):
    async def end(child: Child) -> None:
        await made(tmp_path / "up")
        await child.end(grace_s=10)

    script = f"trap 'exit 4' TERM; touch {tmp_path}/up; while :; do sleep 0.01; done"
    assert run(["sh", "-c", script], meanwhile=end).code == 4


def test_a_command_that_ignores_it_is_killed_with_all_below_it(tmp_path):
    async def end(child: Child) -> None:
        await made(tmp_path / "up")
        await child.end(grace_s=0.1)

    script = (
        f"trap '' TERM; (trap '' TERM; echo $BASHPID >{tmp_path}/below; exec sleep 300) &"
        f" touch {tmp_path}/up; while :; do sleep 0.01; done"
    )
    assert run(["bash", "-c", script], meanwhile=end).code == 137
    assert not Path("/proc", (tmp_path / "below").read_text().strip()).exists()


def test_a_stopped_command_can_be_ended(tmp_path):
    async def end(child: Child) -> None:
        await made(tmp_path / "up")
        await child.end(grace_s=5)

    assert run(["sh", "-c", f"touch {tmp_path}/up; kill -STOP $$"], meanwhile=end).code == 143


def test_a_daemon_that_detached_twice_is_found_and_ended(tmp_path):
    script = f"setsid sh -c 'setsid sleep 300 & echo $! >{tmp_path}/pid' </dev/null; exit 0"
    answer = run(["sh", "-c", script])
    assert answer == Exit(code=0, left=1)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_an_abandoned_reaper_ends_what_it_holds(tmp_path):
    child = Child(["sh", "-c", f"touch {tmp_path}/up; trap '' TERM; sleep 300"], os.environ)
    child.prepare()

    async def main() -> None:
        with trio.fail_after(20):
            await child.release()
            await made(tmp_path / "up")
            child.abandon()

    trio.run(main)
    os.waitpid(child.pid, 0)
    assert not Path("/proc", str(child.pid)).exists()
    child._process.returncode = 0  # collected above, past Popen's back


def test_a_reaper_that_was_never_let_go_starts_nothing(tmp_path):
    child = Child(["touch", str(tmp_path / "ran")], os.environ)
    child.prepare()
    trio.run(lambda: child.end(grace_s=0))
    assert not Path("/proc", str(child.pid)).exists()
    assert not (tmp_path / "ran").exists()


def test_the_command_dies_with_a_reaper_that_is_killed(tmp_path):
    async def kill(child: Child) -> None:
        await made(tmp_path / "pid")
        os.kill(child.pid, signal.SIGKILL)

    script = f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 300"
    assert run(["sh", "-c", script], meanwhile=kill).code == 137
    watched = Path("/proc", (tmp_path / "pid").read_text().strip())
    pause, end = select.poll(), time.monotonic() + 10
    while watched.exists() and "Z" not in (watched / "stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < end
        pause.poll(5)


def test_descendants_are_found_whatever_their_names_are(tmp_path):
    proc = tmp_path / "proc"
    for pid, parent, name, state in [
        (10, 1, "a", "S"),
        (11, 10, "b) R 99 (", "S"),
        (12, 11, "c d", "R"),
        (13, 10, "dead", "Z"),
        (14, 99, "other", "S"),
    ]:
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {state} {parent} 0 0\n")
    (proc / "self").mkdir()
    assert sorted(reaper.descendants(10, proc=str(proc))) == [11, 12]


def test_ending_descendants_spares_those_that_somebody_else_waits_for():
    spared = subprocess.Popen(["sleep", "300"])
    ended = subprocess.Popen(["sleep", "300"])
    try:
        assert reaper.end_descendants(grace_s=5, spare=frozenset({spared.pid})) == 1
        assert ended.wait(timeout=5) == -signal.SIGTERM
        assert spared.poll() is None
    finally:
        spared.kill()
        spared.wait()


def test_a_helper_dies_with_its_parent(tmp_path):
    """``spawned`` in the middle of three generations, the first of which is killed."""
    module = tmp_path / "waiting.py"
    module.write_text(
        "import os, pathlib, signal, sys\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "signal.pause()\n"
    )
    mark = tmp_path / "pid"
    parent = (
        "import os, subprocess, sys, signal\n"
        "subprocess.Popen([sys.executable, '-m', 'aesp_proxy.daemon.spawned', str(os.getpid()),"
        f" '9', 'waiting', {str(mark)!r}], cwd={str(tmp_path)!r})\n"
        "signal.pause()\n"
    )
    first = subprocess.Popen([sys.executable, "-c", parent])
    pause = select.poll()
    end = time.monotonic() + 20
    while not mark.exists() or not mark.read_text():
        assert time.monotonic() < end
        pause.poll(5)
    pid = int(mark.read_text())
    watched = os.pidfd_open(pid)
    try:
        first.kill()
        first.wait()
        assert select.select([watched], [], [], 10)[0] == [watched]
    finally:
        os.close(watched)

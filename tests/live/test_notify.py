"""Held system calls: honest programs, races, failures, and whole runs, as in a container too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import file_attacks
import other_user
import pytest
import without_namespaces
from file_attacks import SECRET
from file_lab import FILES_POLICY
from honest_files import HEAD, HONEST
from notify_lab import Guarded, run_guarded

PYTHON = sys.executable
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
TIME_S = 300
POLICY = f"""\
version: "1.2.0"
name: files
guards:
  egress_allowlist: {{default_action: block, allow: []}}
  forbidden_path: {{enabled: true, patterns: {list(file_attacks.PATTERNS)}}}
"""
PLAIN = FILES_POLICY.replace(", max_additions: 50, max_deletions: 50", "")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_are_unbroken(tree, name):
    needs, script = HONEST[name]
    if needs != "pytest" and shutil.which(needs) is None:
        pytest.skip(f"{needs} is not installed")
    path = f"{Path(PYTHON).parent}:{os.environ['PATH']}"
    ran = run_guarded(
        ["bash", "-c", f"{HEAD}{script}"],
        trees=[tree],
        policies=[PLAIN],
        walls=True,
        environment={**os.environ, "PATH": path},
    )
    assert ran.code == 0, f"{ran.out}\n{ran.err}\n{ran.refused()}"


RACE = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
tries, read = int(sys.argv[1]), 0
good, bad = b"ok\\0", b".env\\0"
path = ctypes.create_string_buffer(8)
over = False
def rewrite():
    while not over:
        ctypes.memmove(path, bad, 5)
        ctypes.memmove(path, good, 3)
threads = [threading.Thread(target=rewrite) for _ in range(2)]
[each.start() for each in threads]
found = set()
for _ in range(tries):
    descriptor = libc.openat(-100, path, os.O_RDONLY)
    if descriptor >= 0:
        found.add(os.read(descriptor, 100))
        os.close(descriptor)
over = True
print(sorted(found))
"""


@pytest.mark.parametrize(
    "tries", [2_000, pytest.param(100_000, marks=pytest.mark.long)], ids=["short", "long"]
)
@pytest.mark.timeout(900)
def test_a_path_that_is_rewritten_in_flight_never_opens_the_forbidden(tree, tries):
    (tree / "ok").write_text("fine")
    (tree / ".env").write_bytes(SECRET)
    ran = run_guarded([PYTHON, "-I", "-c", RACE, tries], trees=[tree], timeout=850)
    assert ran.out == "[b'fine']\n", ran.err
    assert ran.refused()


SIGNALS = """
import os, signal
def nothing(*_): pass
signal.signal(signal.SIGALRM, nothing)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
def once(call, *words):
    # Before anybody has taken a call up a signal may end it: then nothing was done.
    while True:
        try:
            return call(*words)
        except InterruptedError:
            continue
for number in range(1500):
    os.close(os.open(f"n{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    once(os.rename, f"n{number}", f"m{number}")
    once(os.unlink, f"m{number}")
print("each once")
"""


def test_no_call_is_done_twice_when_signals_come(tree):
    ran = run_guarded([PYTHON, "-I", "-c", SIGNALS], trees=[tree])
    assert ran.out == "each once\n", ran.err


def test_while_the_server_is_stopped_everybody_waits_and_can_be_killed(tree):
    (tree / "a").write_text("x")
    with Guarded(["sh", "-c", "cat a; cat a"], trees=[tree]) as guarded:
        os.kill(guarded.server_pid, signal.SIGSTOP)
        guarded.process.send_signal(signal.SIGKILL)
        assert guarded.process.wait(timeout=20) == -signal.SIGKILL
    with Guarded(["sh", "-c", "cat a; cat a"], trees=[tree]) as guarded:
        os.kill(guarded.server_pid, signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            guarded.process.wait(timeout=0.3)
        os.kill(guarded.server_pid, signal.SIGCONT)
        assert guarded.finish().out.count("x") == 2


class Place:
    """A home, a project in it and a state directory of one user."""

    def __init__(self, folder: Path, user: int, how: str) -> None:
        self.user, self.how = user, how
        self.project, self.state = folder / "p", folder / "state"
        self.project.mkdir()
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY)
        self.folder = folder

    def own(self) -> None:
        for path in (self.folder, *self.folder.rglob("*")):
            os.lchown(path, self.user, self.user)

    def words(self, *command: str | Path) -> list[str]:
        words = [PROGRAM, "run", "--state", self.state, "--policy", self.policy]
        words += ["--files", "notify"]
        words += ["--allow-degraded"] if self.how == "container" else []
        words += ["--", *command]
        if self.how == "container":
            words = [PYTHON, without_namespaces.__file__, "unshare", *words]
        if self.user:
            words = [PYTHON, other_user.__file__, *words]
        return list(map(str, words))

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*command),
            cwd=self.project,
            env={**os.environ, "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_S,
            check=False,
        )


@pytest.fixture(
    params=[
        (0, "walls"), (0, "container"), (other_user.USER, "walls"), (other_user.USER, "container"),
    ],
    ids=["root", "root-in-a-container", "user", "user-in-a-container"],
)  # fmt: skip
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    user, how = request.param
    if user and os.geteuid() != 0:
        pytest.skip("needs root: it becomes an ordinary user")
    folder = Path(tempfile.mkdtemp())
    try:
        yield Place(folder, user, how)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(TIME_S)
def test_a_run_ends_when_its_file_guard_is_killed(place):
    place.own()
    script = "echo started; while cat ../policy.yaml > /dev/null; do :; done; sleep 60"
    process = subprocess.Popen(
        place.words("sh", "-c", script),
        cwd=place.project,
        env={**os.environ, "HOME": str(place.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        os.kill(guard_of(process.pid), signal.SIGKILL)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert "file guard" in told


def guard_of(pid: int) -> int:
    """The file guard below a process."""
    from aesp_proxy.launch.reaper import descendants

    for each in descendants(pid):
        words = Path(f"/proc/{each}/cmdline").read_bytes()
        if b"file_guard" in words:
            return each
    raise AssertionError("no file guard")

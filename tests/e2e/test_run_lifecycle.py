"""``aesp-proxy run`` as a person uses it: real processes, a real terminal, real signals."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from isolation_probe import run_options

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
WAIT_S = 30.0
POLICY = """\
version: "1.2.0"
name: lifecycle
guards:
  egress_allowlist: {default_action: block, allow: []}
  secret_leak: {enabled: false}
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that other processes bring about."""
    pause = select.poll()
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"not in {WAIT_S} s: {what}"
        pause.poll(10)


@dataclass
class Place:
    """A state directory, a policy, and a mark by which every process of a run is found."""

    state: Path
    policy: Path
    scratch: Path
    mark: str

    def command(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        own = ["--state", str(self.state), "--policy", str(self.policy), *run_options(), *options]
        return [str(PROGRAM), "run", *own, "--", *words]

    @property
    def environment(self) -> dict[str, str]:
        # Of a kind that helper processes are given, too: their libraries read XDG_ variables.
        return {**os.environ, "XDG_LIFECYCLE_MARK": self.mark}

    def run(self, *words: str, options: tuple[str, ...] = (), **more):
        return subprocess.run(
            self.command(*words, options=options),
            env=self.environment,
            timeout=WAIT_S,
            check=False,
            text=True,
            capture_output=True,
            **more,
        )

    def start(self, *words: str, **more) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )

    def processes(self) -> dict[int, str]:
        """Every living process that carries the mark, and its command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                marked = self.mark.encode() in (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if marked and state not in "ZX":
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = line
            except OSError:
                continue
        return found

    def one(self, part: str) -> int:
        """The process whose command line holds ``part``."""
        matching = [pid for pid, line in self.processes().items() if part in line]
        assert len(matching) == 1, (part, self.processes())
        return matching[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    here = Place(
        state=tmp_path / "state", policy=policy, scratch=tmp_path, mark=f"mark-{uuid.uuid4()}"
    )
    try:
        yield here
        until(lambda: not here.processes(), f"all processes gone: {here.processes()}")
    finally:
        for pid in here.processes():
            os.kill(pid, signal.SIGKILL)


def wait_file(path: Path) -> None:
    until(path.exists, f"{path.name} made by the command")


# --- the command is run as if we were not there -------------------------------------


def test_exit_code_standard_streams_and_arguments_are_the_commands_own(place):
    script = 'read line; echo "out:$line:$1"; echo err >&2; exit 7'
    ran = place.run("sh", "-c", script, "sh", "--quiet", input="in\n")
    assert ran.returncode == 7
    assert ran.stdout == "out:in:--quiet\n"
    said = [text for text in ran.stderr.splitlines() if "not enforced: " not in text]
    assert said[0] == "err"
    assert "aesp-proxy: allowed 0, refused 0" in ran.stderr


def test_quiet_says_nothing(place):
    ran = place.run("true", options=("--quiet",))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_command_is_told_of_the_proxy_and_the_ca(place):
    ran = place.run("sh", "-c", 'echo "$https_proxy|$NO_PROXY|$SSL_CERT_FILE"')
    proxy, no_proxy, bundle = ran.stdout.strip().split("|")
    assert proxy.startswith("http://127.0.0.1:")
    assert no_proxy == ""
    assert (place.state / "ca/ca-cert.pem").read_text() in Path(bundle).read_text()


FETCH_REFUSED = (
    "import http.client, os, urllib.parse\n"
    "proxy = urllib.parse.urlsplit(os.environ['http_proxy'])\n"
    "link = http.client.HTTPConnection(proxy.hostname, proxy.port)\n"
    "link.request('GET', 'http://refused.example/x')\n"
    "print(link.getresponse().status)\n"
)


def test_a_refused_request_is_refused_counted_and_named(place):
    ran = place.run(sys.executable, "-c", FETCH_REFUSED)
    assert ran.stdout == "403\n"
    assert "allowed 0, refused 1" in ran.stderr
    assert "1 x host_not_allowed: refused.example" in ran.stderr
    assert "audit verify" in ran.stderr


def test_a_command_ended_by_a_signal_is_reported_as_a_shell_does(place):
    assert place.run("sh", "-c", "kill -9 $$").returncode == 137


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("no-such-command-here", 127, "command not found"),
        ("./no-such-file", 127, "no such file"),
        ("/", 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_run_is_told_as_a_shell_does(place, command, code, says):
    ran = place.run(command, cwd=place.scratch)
    assert ran.returncode == code
    assert f"aesp-proxy: {command}: {says}\n" in ran.stderr


def test_processes_that_the_command_left_behind_are_ended(place):
    ran = place.run("sh", "-c", "(setsid sleep 300 </dev/null >/dev/null 2>&1 &); exit 3")
    assert ran.returncode == 3
    assert "ended 1 process that the command left behind" in ran.stderr


def test_two_runs_share_a_state_directory(place):
    first = place.start("sh", "-c", f"touch {place.scratch}/first; sleep 300")
    wait_file(place.scratch / "first")
    second = place.run("true")
    assert second.returncode == 0, second.stderr
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=WAIT_S)
    assert first.returncode == 143
    assert "(epoch 1)" in said
    assert "(epoch 2)" in second.stderr


# --- the terminal -------------------------------------------------------------------


class Terminal:
    """A session with a terminal of its own, whose leader runs one command like a shell."""

    def __init__(self, place: Place, *words: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            _lead(place.command(*words), place.environment)
        self.seen = ""

    def expect(self, text: str) -> None:
        end = time.monotonic() + WAIT_S
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} not seen in {self.seen!r}"
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                try:
                    self.seen += os.read(self.master, 4096).decode()
                except OSError:
                    break
        assert text in self.seen
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        os.close(self.master)
        os.waitpid(self.pid, 0)


def _lead(command: list[str], environment: dict[str, str]) -> None:
    """Do what a shell with job control does for one foreground job, and say what it sees."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execve(command[0], command, environment)
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        os.tcsetpgrp(0, os.getpgrp())
        if os.WIFSTOPPED(status):
            # Our job's leader has stopped; a reader that has not yet would take what is typed.
            until(lambda: _all_stopped(job), "all of the job stopped")
            os.write(1, b"[job stopped]\n")
            os.read(0, 100)
            os.tcsetpgrp(0, job)
            os.killpg(job, signal.SIGCONT)
            continue
        os.write(1, b"[job ended %d]\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)


def _all_stopped(group: int) -> bool:
    states = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(pgrp) == group:
                states.add(state)
    return states <= {"T", "Z"}


@pytest.fixture
def terminal(place: Place) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*words: str) -> Terminal:
        opened.append(Terminal(place, *words))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


COUNT_INTERRUPTS = """
import os, signal, sys
count = 0
def interrupted(*_):
    global count
    count += 1
    os.write(1, b"<%d>" % count)  # it may interrupt a print, which cannot be entered twice
signal.signal(signal.SIGINT, interrupted)
print("<tty>" if sys.stdin.isatty() else "<no tty>", flush=True)
sys.stdin.readline()
sys.exit(40 + count)
"""


def test_ctrl_c_is_the_commands_and_reaches_it_once(terminal):
    session = terminal(sys.executable, "-c", COUNT_INTERRUPTS)
    session.expect("<tty>")
    session.type("\x03")
    session.expect("<1>")
    session.type("\x03")
    session.expect("<2>")
    session.type("that was all\n")
    session.expect("[job ended 42]")


def test_ctrl_c_twice_while_the_reaper_has_no_processor_reaches_the_command_twice(terminal, place):
    session = terminal(sys.executable, "-c", COUNT_INTERRUPTS)
    session.expect("<tty>")
    launcher, reaper = (_process(place, each) for each in ("aesp-proxy", "reaper.py"))
    os.kill(reaper, signal.SIGSTOP)
    try:
        # Both wait for the reaper as one: signals do not queue.
        for count in (1, 2):
            session.type("\x03")
            session.expect(f"<{count}>")
            until(lambda: _idle(launcher), "the launcher has relayed what it got")
    finally:
        os.kill(reaper, signal.SIGCONT)
    session.type("that was all\n")
    session.expect("[job ended 42]")


def _process(place: Place, name: str) -> int:
    """Return the oldest process of this place one of whose first words ends in ``name``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")[:6]
            ours = place.mark.encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if ours and any(word.endswith(name.encode()) for word in words):
            found.append(int(entry.name))
    return min(found)


def _idle(pid: int) -> bool:
    """Say whether a process sleeps and has no signal to take."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return fields["State"][0] == "S" and not int(fields["ShdPnd"], 16)


def test_ctrl_z_stops_the_job_and_fg_brings_it_back(terminal):
    session = terminal("sh", "-c", "echo '<up>'; read line; echo \"<got $line>\"; exit 5")
    session.expect("<up>")
    session.type("\x1a")
    session.expect("[job stopped]")
    session.type("fg\n")
    session.type("hello\n")
    session.expect("<got hello>")
    session.expect("[job ended 5]")


def test_a_command_killed_in_raw_mode_leaves_the_terminal_as_it_was(terminal):
    script = (
        "import os, signal, sys, tty; tty.setraw(0); "
        "sys.stdout.write('<raw>'); sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    session = terminal(sys.executable, "-c", script)
    session.expect("<raw>")
    session.expect("[job ended 137]")
    settings = termios.tcgetattr(session.master)
    assert settings[3] & termios.ECHO
    assert settings[3] & termios.ICANON


def test_closed_standard_descriptors_do_not_confuse_it(place):
    words = shlex.join(place.command("sh", "-c", f"touch {place.scratch}/ran; exit 3"))
    ran = subprocess.run(
        ["sh", "-c", f"exec 0<&- 1>&- 2>&-; exec {words}"],
        env=place.environment,
        check=False,
        timeout=WAIT_S,
    )
    assert ran.returncode == 3
    assert (place.scratch / "ran").exists()


def test_what_lies_in_the_working_directory_is_never_imported(place):
    """The agent writes there: a module of ours must not be found there before our own."""
    (place.scratch / "aesp_proxy").mkdir()
    trap = f"open({str(place.scratch / 'caught')!r}, 'w')\n"
    for name in ("aesp_proxy/__init__.py", "ssl.py", "ctypes.py", "trio.py", "asyncio.py"):
        (place.scratch / name).write_text(trap)
    forward = place.state / "forward"
    forward.mkdir(parents=True, mode=0o700)
    place.state.chmod(0o700)
    ran = place.run("true", cwd=place.scratch, options=("--forward", str(forward)))
    assert ran.returncode == 0, ran.stderr
    assert not (place.scratch / "caught").exists()


# --- killed, each of them -----------------------------------------------------------


def test_terminate_is_passed_on_to_the_command(place):
    script = "trap 'echo asked; exit 9' TERM; touch up; while :; do sleep 0.02; done"
    running = place.start("sh", "-c", script, cwd=place.scratch)
    wait_file(place.scratch / "up")
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=WAIT_S)
    assert (running.returncode, out) == (9, "asked\n")


def test_a_killed_command_leaves_nothing(place):
    running = place.start("sh", "-c", "sleep 300 & touch up; wait", cwd=place.scratch)
    wait_file(place.scratch / "up")
    # By its name out here: it does not know its own id.
    shells = [pid for pid, line in place.processes().items() if line.startswith("sh -c ")]
    os.kill(shells[0], signal.SIGKILL)
    running.communicate(timeout=WAIT_S)
    assert running.returncode == 137
    assert not place.processes()


def test_a_killed_proxy_ends_the_command_and_says_why(place):
    running = place.start("sh", "-c", "touch up; sleep 300", cwd=place.scratch)
    wait_file(place.scratch / "up")
    os.kill(place.one("daemon.worker"), signal.SIGKILL)
    _, said = running.communicate(timeout=WAIT_S)
    assert running.returncode == 4
    assert "the proxy was killed by SIGKILL" in said
    assert "no way out" in said
    assert "Traceback" not in said


def test_a_killed_sealer_is_started_again_and_nothing_is_lost(place):
    running = place.start("sh", "-c", "touch up; until test -e go; do sleep 0.02; done",
                          cwd=place.scratch)  # fmt: skip
    wait_file(place.scratch / "up")
    before = place.one("sealer_process")
    os.kill(before, signal.SIGKILL)
    until(
        lambda: any(
            "sealer_process" in line and pid != before for pid, line in place.processes().items()
        ),
        "a new sealer",
    )
    (place.scratch / "go").touch()
    running.communicate(timeout=WAIT_S)
    assert running.returncode == 0


def test_a_killed_launcher_leaves_no_process_and_the_next_run_goes_on(place):
    script = "(setsid sleep 300 &) ; sleep 300 & touch up; trap '' TERM HUP; wait; sleep 300"
    running = place.start("sh", "-c", script, cwd=place.scratch)
    wait_file(place.scratch / "up")
    assert len(place.processes()) >= 6
    running.kill()
    running.communicate(timeout=WAIT_S)
    until(lambda: not place.processes(), "all processes gone")
    assert place.run("true").returncode == 0


def test_a_killed_reaper_leaves_no_process(place):
    running = place.start("sh", "-c", "(setsid sleep 300 &) ; touch up; sleep 300",
                          cwd=place.scratch)  # fmt: skip
    wait_file(place.scratch / "up")
    os.kill(place.one("reaper.py"), signal.SIGKILL)
    running.communicate(timeout=WAIT_S)
    assert running.returncode == 137
    assert not place.processes()


# --- what the operator has wrong is told in a line, before the command starts -------


def refused_start(place: Place, *options: str, environment: dict[str, str] | None = None) -> str:
    """Run a command that must not start; return the one line that says why."""
    ran = subprocess.run(
        place.command("touch", str(place.scratch / "started"), options=options),
        env=place.environment | (environment or {}),
        timeout=WAIT_S,
        check=False,
        text=True,
        capture_output=True,
    )
    besides = ("record: ", "not enforced: ")
    lines = [text for text in ran.stderr.splitlines() if not any(word in text for word in besides)]
    assert ran.returncode == 3, ran.stderr
    assert ran.stdout == ""
    assert not (place.scratch / "started").exists()
    assert lines[0].startswith("aesp-proxy: ")
    assert len(lines) == 1, ran.stderr
    return lines[0]


def test_a_missing_policy(place):
    place.policy.unlink()
    assert str(place.policy) in refused_start(place)


def test_a_wrong_policy(place):
    place.policy.write_text(POLICY + "  egres: {}\n")
    assert f"{place.policy}:" in refused_start(place)


def test_a_state_directory_that_cannot_be_made(place):
    place.state.write_text("a file")
    assert "is not a directory" in refused_start(place)
    place.state.unlink()
    place.state = Path("/proc/aesp-proxy-state")
    assert "give --state DIR" in refused_start(place)


def test_a_state_directory_full_of_other_things_is_not_taken_over(place):
    place.state.mkdir(mode=0o755)
    (place.state / "letters").mkdir()
    assert "letters" in refused_start(place)
    assert place.state.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("damage", ["", "-----BEGIN PRIVATE KEY-----\nbm8=\n"])
def test_a_corrupt_ca(place, damage):
    assert place.run("true").returncode == 0
    (place.state / "ca/mitmproxy-ca.pem").write_text(damage)
    said = refused_start(place)
    assert "the host CA cannot be used" in said
    assert "the next run makes a new CA" in said


def test_a_corrupt_audit_key(place):
    assert place.run("true").returncode == 0
    for key in (place.state / "audit/keys").glob("*.key"):
        key.write_bytes(b"damaged")
    assert "audit/keys" in refused_start(place)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_corrupt_spool(place, damage):
    assert place.run(sys.executable, "-c", FETCH_REFUSED).returncode == 0
    newest = max((place.state / "audit/batches").glob("*.batch"))
    data = newest.read_bytes()
    newest.write_bytes(data[:-9] if damage == "cut" else data[:-9] + b"\xff" + data[-8:])
    said = refused_start(place)
    assert newest.name in said
    assert "aesp-proxy audit verify" in said
    newest.write_bytes(data)
    assert place.run("true").returncode == 0


def test_a_port_that_a_program_of_the_host_holds(place):
    """In the agent's own network it is free; without one it is told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        if run_options():
            assert f"{listen}: cannot listen" in refused_start(place, "--listen", listen)
        else:
            ran = place.run("sh", "-c", "echo $http_proxy", options=("--listen", listen))
            assert ran.stdout == f"http://{listen}\n"


def test_a_setting_nobody_knows(place):
    said = refused_start(place, environment={"AESP_AUDIT_MODES": "batch"})
    assert "did you mean AESP_AUDIT_MODE?" in said


@pytest.mark.parametrize(
    "words",
    [["--nonsense"], ["--listen", "nowhere", "--", "true"], ["--set", "x", "--", "true"], []],
)
def test_wrong_use_is_told_in_a_line(words):
    ran = subprocess.run(
        [str(PROGRAM), "run", *words], check=False, capture_output=True, text=True, timeout=WAIT_S
    )
    assert ran.returncode == 5
    assert ran.stderr.startswith("aesp-proxy: ")
    assert len(ran.stderr.splitlines()) == 1

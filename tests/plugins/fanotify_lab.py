"""A watch as a service keeps it, over a file system made for it, and a user who is watched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from select import poll
from typing import Any, Final

import fanotify_world

PROGRAM: Final = Path(sys.executable).parent / "aesp-proxy"
LISTENER: Final = "aesp_proxy.daemon.file_listener"
GUARD: Final = "aesp_proxy.launch.files"
WATCHED, OTHER = 4242, 4343
POLICY: Final = """\
version: "1.2.0"
name: files
guards:
  forbidden_path: {enabled: true, patterns: ["**/.env", "**/.ssh/**", "**/caf\\u00e9.key"]}
  secret_leak: {enabled: true}
  path_allowlist:
    enabled: true
    file_access_allow: ["/**"]
    file_write_allow: ["/**"]
"""
_START_S: Final = 60


def unusable() -> str:
    """Why no lab can be made here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root: it asks the kernel to wait for its answers"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode:
        return "no mount namespaces here"
    from aesp_proxy.errors import UnavailableError
    from aesp_proxy.intercept.fanotify.marks import make_groups

    try:
        make_groups().close()
    except UnavailableError as error:
        return str(error)
    return ""


def until(condition: Any, what: str, *, s_max: float = 20) -> Any:
    """Wait for what other processes bring about, and return it."""
    pause, end = poll(), time.monotonic() + s_max
    while not (found := condition()):
        assert time.monotonic() < end, f"not in {s_max} s: {what}"
        pause.poll(20)
    return found


class Lab:
    """A tree that is watched, and what is done in it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder, self.tree = folder, folder / "tree"
        self.tree.mkdir()
        (folder / "policy.yaml").write_text(POLICY)
        self.state = folder / "state"
        self.state_inside: Path | None = None
        self.log, self.config = folder / "watch.log", folder / "config.yaml"
        self._stack = stack
        words = [sys.executable, fanotify_world.__file__, str(self.tree)]
        self.world = stack.enter_context(
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        stack.callback(self.world.kill)
        assert self.world.stdout is not None
        assert self.world.stdout.readline() == b"held\n"
        self.watch: subprocess.Popen[bytes] | None = None

    # what is there -------------------------------------------------------------------

    @property
    def inside(self) -> Path:
        """The tree, as it is reached from outside of its namespace."""
        return Path(f"/proc/{self.world.pid}/root{self.tree}")

    def put(self, name: str, text: str = "hello\n", *, owner: int = WATCHED) -> str:
        """Make a file in the tree; return its path in there."""
        path = self.inside / name
        for folder in reversed(path.relative_to(self.inside).parents):
            made = self.inside / folder
            made.mkdir(exist_ok=True)
            os.chown(made, owner, owner)
        path.write_text(text)
        os.chown(path, owner, owner)
        return str(self.tree / name)

    def command(self, uid: int, *words: str) -> list[str]:
        """The words that run a program in there as a user."""
        enter = ["nsenter", f"--mount=/proc/{self.world.pid}/ns/mnt"]
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        return [*enter, *user, *words]

    def run(self, uid: int, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in there to its end."""
        return subprocess.run(
            self.command(uid, *words),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **more,
        )

    def does(self, code: str, *, uid: int = WATCHED) -> str:
        """Run a few lines of Python; return the last line of what they print, or an error."""
        tree = f"import os, sys; os.chdir('/'); T = {str(self.tree)!r}\n"
        wrapped = f"{tree}try:\n" + "".join(f"    {line}\n" for line in code.splitlines())
        wrapped += (
            "except OSError as error:\n    import errno; print(errno.errorcode[error.errno])\n"
        )
        done = self.run(uid, sys.executable, "-I", "-S", "-c", wrapped)
        assert not done.stderr, done.stderr
        return (done.stdout.splitlines() or [""])[-1]

    def reads(self, name: str, *, uid: int = WATCHED) -> str:
        """Read a file of the tree in there."""
        return self.does(f"print(open(T + '/{name}').read().strip())", uid=uid)

    # the watch -----------------------------------------------------------------------

    def begin(self, *settings: str, policy: str | None = None, wrapper: Sequence[str] = ()) -> None:
        """Start it as a service, and wait until the listener answers."""
        self.configure(policy)
        answers = self.said.count("are answered by") if self.log.exists() else 0
        words = [word for each in settings for word in ("--set", each)]
        self._start(
            [*wrapper, str(PROGRAM), "files", "watch", "--config", str(self.config), *words]
        )
        until(lambda: self.said.count("are answered by") > answers
              or self.watch.poll() is not None, "a watch", s_max=_START_S)  # fmt: skip
        assert self.watch.poll() is None, self.said

    def begin_daemon(self, *, by: str = "daemon") -> None:
        """Start the whole service, and wait until it is ready."""
        self.configure(by=by)
        self._start([str(PROGRAM), "daemon", "--config", str(self.config)])
        until(lambda: (self.status() or {}).get("state") == "running" or self.watch.poll(),
              "a service", s_max=_START_S)  # fmt: skip
        assert self.watch.poll() is None, self.said

    def configure(self, policy: str | None = None, *, by: str = "daemon") -> None:
        """Write settings and policy."""
        if policy is not None:
            (self.folder / "policy.yaml").write_text(policy)
        watch = {"users": str(WATCHED), "trees": str(self.tree), "by": by, "hung_s": 2}
        settings = {"state_dir": str(self.state_inside or self.state),
                    "policy": str(self.folder / "policy.yaml"),
                    "daemon": {"run_dir": str(self.folder / "run")},
                    "files": {"watch": watch, "secrets_read": "refuse"}}  # fmt: skip
        self.config.write_text(json.dumps(settings))

    def _start(self, words: list[str]) -> None:
        with self.log.open("ab") as log:
            # Killed with us, whatever the reason: the watch ends with it.
            bound = ["setpriv", "--pdeathsig", "KILL", *words]
            self.watch = subprocess.Popen(self.command(0, *bound), stderr=log)
        self._stack.callback(self.end)

    def status(self) -> dict[str, Any] | None:
        """What the service says of itself; None while there is none."""
        words = [str(PROGRAM), "status", "--config", str(self.config), "--format", "json"]
        told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
        return json.loads(told.stdout) if told.returncode == 0 else None

    @property
    def said(self) -> str:
        """What it has said."""
        return self.log.read_text()

    @property
    def listener(self) -> int:
        """Process id of the listener, 0 while there is none."""
        assert self.watch is not None
        children = _children(self.watch.pid)
        below = [pid for child in children for pid in _children(child)]
        return next((pid for pid in (*children, *below) if _runs(pid, LISTENER)), 0)

    def keep_state_in_the_tree(self) -> None:
        """Have the watch write its record on what it watches."""
        self.state_inside, self.state = self.tree / "state", self.inside / "state"

    def processes(self) -> list[int]:
        """The processes of `files watch` of this lab: guard and holder, and those left behind."""
        mine = [*map(_pid, Path("/proc").iterdir())]
        return [pid for pid in mine if pid and _runs(pid, f"watch\0--config\0{self.config}")]

    def end_of_child(self) -> int:
        """Stop a watch that a wrapper has started, in order."""
        assert self.watch is not None
        os.kill(_children(self.watch.pid)[0], signal.SIGTERM)
        return self.watch.wait(20)

    def end(self) -> int:
        """Stop it in order."""
        if self.watch is None:
            return 0
        if self.watch.poll() is None:
            self.watch.send_signal(signal.SIGTERM)
        code = self.watch.wait(20)
        for pid in self.processes() if code < 0 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # what holds the watch of a killed one
        return code

    def records(self) -> list[dict[str, Any]]:
        """What is in the record, oldest first."""
        words = [
            str(PROGRAM),
            "audit",
            "tail",
            "--json",
            "-n",
            "100000",
            "--state",
            str(self.state),
        ]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return [json.loads(line) for line in told.splitlines()]


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _pid(process: Path) -> int:
    return int(process.name) if process.name.isdecimal() else 0


def _runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

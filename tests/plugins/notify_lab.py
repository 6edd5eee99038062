"""A command whose calls are held, and the server that answers them by a gate of this test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from file_lab import Recorded, file_gate, files_snapshot

from aesp_proxy.daemon.file_gate import JudgedFileGate
from aesp_proxy.intercept.file_port import Given
from aesp_proxy.intercept.notify.kernel import Listener, give_up_privileges
from aesp_proxy.intercept.notify.serve import Server

AGENT = Path(__file__).with_name("notify_agent.py")
TIME_S = 60


@dataclass(slots=True, kw_only=True)
class Ran:
    """What a guarded command said, and what was recorded: (action, path, outcome)."""

    code: int
    out: str
    err: str
    records: list[tuple[str, str, str]] = field(default_factory=list)

    def refused(self) -> list[tuple[str, str]]:
        """What was refused: (action, path)."""
        return [(action, path) for action, path, outcome in self.records if outcome != "SUCCESS"]

    def allowed(self, under: Path) -> list[tuple[str, str]]:
        """What was allowed below a directory, named from it."""
        return [
            (action, os.path.relpath(path, under))
            for action, path, outcome in self.records
            if outcome == "SUCCESS" and path.startswith(f"{under}/")
        ]


class Guarded:
    """One command under a server, for use with ``with``: started, not yet ended.

    ``policies`` are texts: the first is in force, a ``reload`` brings the next.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        *,
        trees: Sequence[Path],
        policies: Sequence[str] = (),
        walls: bool = False,
        entries_max: int = 100_000,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        spoil: Callable[[Server], None] | None = None,
        covers: Sequence[tuple[Path, Path]] = (),
        **gate: bool | int,
    ) -> None:
        program = shutil.which(str(words[0])) or str(words[0])
        self._words = [program, *map(str, words[1:])]
        self._trees, self._policies, self._gate = trees, list(policies), gate
        self._walls, self._entries_max, self._spoil = walls, entries_max, spoil
        self._covers = covers
        self._cwd = cwd or trees[0]
        self._environment = environment
        self.records_file = Path(str(trees[0]) + ".records")

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        walls = ["walls"] if self._walls else []
        self.process = subprocess.Popen(
            [sys.executable, AGENT, str(theirs.fileno()), *walls, *self._words],
            pass_fds=[theirs.fileno()],
            cwd=self._cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )
        theirs.close()
        self.server_pid = os.fork()
        if self.server_pid == 0:
            try:
                self.control.close()
                self._serve(ours, control)
            finally:
                os._exit(1)
        ours.close()
        control.close()
        self.control.settimeout(TIME_S)
        if self.control.recv(1) != b"!":
            self.__exit__()
            raise AssertionError("the server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.control.close()
        with suppress(ProcessLookupError):
            os.kill(self.server_pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.server_pid, 0)
        self.records_file.unlink(missing_ok=True)

    def _serve(self, link: socket.socket, control: socket.socket) -> None:
        _, (listener,), _, _ = socket.recv_fds(link, 100, 1)
        recorded = Recorded()
        policies = self._policies or [""]
        gates = [self._gate_of(text, recorded) for text in policies]
        gate = gates.pop(0)
        give_up_privileges()

        def heard() -> bool:
            word = control.recv(1)
            if word == b"r":
                gate.swap(gates.pop(0)._judge)
                control.send(b"!")
            return word == b"r"

        def ready() -> None:
            control.send(b"!")
            link.send(b"!")
            link.close()

        given = Given(
            descriptors=(("notify", listener),),
            trees=tuple(map(str, self._trees)),
            apart=(),
            covers=tuple((str(target), str(source)) for target, source in self._covers),
            entries_max=self._entries_max,
            control=control.fileno(),
            heard=heard,
            ready=ready,
        )
        server = Server(gate, Listener(listener), given)
        if self._spoil is not None:
            self._spoil(server)
        server.run()
        lines = [(each.action, each.target_path, str(each.outcome)) for each in recorded.records]
        self.records_file.write_text(json.dumps(lines))
        os._exit(0)

    def _gate_of(self, text: str, recorded: Recorded) -> JudgedFileGate:
        snapshot = files_snapshot(text) if text else files_snapshot()
        return file_gate(snapshot, recorded, **self._gate)

    def reload(self) -> None:
        """Put the next policy in force."""
        self.control.send(b"r")
        assert self.control.recv(1) == b"!"

    def finish(self, *, timeout: float = TIME_S) -> Ran:
        """Wait for the command, then for the server and its records."""
        out, err = self.process.communicate(timeout=timeout)
        self.control.send(b"s")
        _, status = os.waitpid(self.server_pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the server did not end well"
        records = [tuple(each) for each in json.loads(self.records_file.read_text())]
        return Ran(code=self.process.returncode, out=out, err=err, records=records)


def run_guarded(
    words: Sequence[str | Path | int], *, timeout: float = TIME_S, **options: object
) -> Ran:
    """Run a command to its end under a server; see ``Guarded``."""
    with Guarded(words, **options) as guarded:  # type: ignore[arg-type]
        return guarded.finish(timeout=timeout)

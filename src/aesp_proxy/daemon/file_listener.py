"""The process that answers the kernel when watched agents open files: it decides and records.

Started by the guard (``intercept.fanotify.guard``), which answers in its place until it
says that it is ready, and after it has died. It has read what it needs before that: from
then on whatever opens a file is done in a thread, as the loop would wait for itself. Exit
codes: 0 told to stop, 3 configuration, 4 runtime.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from aesp_proxy.daemon import worker_log
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.file_gate import JudgedFileGate
from aesp_proxy.daemon.file_judge import FileJudge
from aesp_proxy.daemon.policy_source import PolicySource
from aesp_proxy.daemon.recording import journal_options
from aesp_proxy.daemon.watching import registered_in, trees_of, user_names, watched_now
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import AespError, ConfigError, InputError
from aesp_proxy.intercept.fanotify.forbidden import Forbidden
from aesp_proxy.intercept.fanotify.handles import Mount, places_below, plain_numbers
from aesp_proxy.intercept.fanotify.judge import Judge
from aesp_proxy.intercept.fanotify.listener import Later, Listener, Progress
from aesp_proxy.intercept.fanotify.marks import Groups
from aesp_proxy.intercept.fanotify.who import Watched, selection_word
from aesp_proxy.intercept.fanotify.witness import Witness
from aesp_proxy.model.event import FileOperation
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.state import audit_paths

_EXIT_CONFIG, _EXIT_RUNTIME = 3, 4
_READ_BYTES: Final = 1 << 20
_MOUNTS: Final = Path("/proc/self/mountinfo")
_HOSTS_MOUNTS: Final = Path("/proc/1/mountinfo")
_WARM: Final = "/aesp-proxy/warm"


def main() -> None:
    """Answer until told to stop; never a traceback for what an operator can mend."""
    parser = ArgumentParser(prog="aesp_proxy.daemon.file_listener")
    for name in ("denying", "asking", "names", "control", "progress"):
        parser.add_argument(f"--{name}-fd", type=int, required=True)
    parser.add_argument("--deaths", type=int, default=0)
    given = parser.parse_args()
    for name in ("denying", "asking", "names", "progress"):
        os.set_inheritable(getattr(given, f"{name}_fd"), False)
    worker_log.install()
    # A lease that somebody wants to break is told by SIGIO, and is over soon anyhow.
    for number in (signal.SIGIO, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    guard = _Guard(socket.socket(fileno=given.control_fd))
    try:
        watch = _Watch(given, guard)
    except AespError as error:
        code = _EXIT_CONFIG if isinstance(error, ConfigError) else _EXIT_RUNTIME
        guard.say({"type": "failed", "exit_code": code, "message": str(error)})
        sys.exit(code)
    except OSError as error:
        message = f"the listener cannot start: {error}"
        guard.say({"type": "failed", "exit_code": _EXIT_RUNTIME, "message": message})
        sys.exit(_EXIT_RUNTIME)
    watch.run()


class _Guard:
    """The way to the guard: one JSON object a line, both ways."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lock = threading.Lock()
        self._buffer = b""

    def say(self, said: dict[str, object]) -> None:
        """Tell it; nothing where it is gone, as the kernel ends us then."""
        with self._lock:
            try:
                self.sock.sendall(json.dumps(said).encode() + b"\n")
            except OSError:
                return

    def hear(self) -> list[dict[str, object]] | None:
        """Return what it says, at least a part of it; None at its end."""
        data = self.sock.recv(_READ_BYTES)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def first(self) -> dict[str, object]:
        """Wait for the first thing that it says; InputError at its end."""
        while True:
            said = self.hear()
            if said is None:
                raise InputError("the guard is gone")
            if said:
                return said[-1]


class _Watch:
    """All of it, made once; the loop is ``Listener``'s."""

    def __init__(self, given: Namespace, guard: _Guard) -> None:
        frame = guard.first()
        raw = frame.get("settings")
        if not isinstance(raw, dict):
            raise InputError("the guard sent no settings")
        settings = Settings.from_worker(raw)
        self._guard, self._settings = guard, settings
        self._session_id = str(frame.get("session_id", ""))
        self._groups = Groups(
            denying=given.denying_fd, asking=given.asking_fd, names=given.names_fd
        )
        self._source = PolicySource(
            state_dir=settings.state_dir, cache_dir=settings.rule_cache_dir, path=settings.policy
        )
        # It makes the state directory where there is none.
        self._journal = _journal(settings)
        snapshot = self._snapshot(frame)
        self._gate = JudgedFileGate(
            self._judge(snapshot),
            self._journal,
            reading_refuses=settings.files.secrets_read == "refuse",
            user_of=user_names(settings),
        )
        self._watched = Watched(watched_now(settings))
        self._trees = trees_of(settings)
        mounts = [
            Mount(each) for each in places_below(self._trees, _MOUNTS.read_text("utf-8", "replace"))
        ]
        self._forbidden = Forbidden(
            self._gate.hides, self._groups, entries_max=settings.files.entries_max
        )
        self._names = self._forbidden.survey(self._trees)
        self._swapping: list[Snapshot] = []
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._later = Later(self._failed)
        self._witness = Witness(
            self._gate,
            self._watched,
            mounts,
            self._forbidden,
            later=self._later,
            overflowed=self._overflowed,
        )
        self._answers = Judge(
            self._gate, self._groups, self._watched, mounts, self._forbidden, plain=_plain()
        )
        self._listener = Listener(
            self._groups,
            self._answers,
            self._witness,
            self._watched,
            Progress(given.progress_fd),
            content_bytes_max=settings.files.content_bytes_max,
        )
        self._prepare(given.deaths)

    def run(self) -> None:
        """Say that we answer, and do."""
        snapshot = self._source_serial
        self._guard.say({"type": "ready", "serial": snapshot, "pid": os.getpid()})
        try:
            self._listener.run(
                {self._guard.sock.fileno(): self._heard, self._wake: self._swap}, beat=self._beat
            )
        finally:
            self._journal.close()

    @property
    def _source_serial(self) -> int:
        return self._gate.snapshot.serial

    def _snapshot(self, frame: dict[str, object]) -> Snapshot:
        return replace(self._source, exact=registered_in(frame)).load(frame)

    def _judge(self, snapshot: Snapshot) -> FileJudge:
        agent = self._settings.agent
        return FileJudge(
            snapshot=snapshot,
            principal=Principal(
                principal_id=agent.principal_id,
                agent_id=agent.id,
                agent_type=agent.type,
                session_id=self._session_id,
                tenant_id=agent.tenant_id,
            ),
            now_ns=time.time_ns,
            content_bytes_max=self._settings.files.content_bytes_max,
            guard="fanotify",
        )

    def _prepare(self, deaths: int) -> None:
        """Load what is loaded when it is needed first, while somebody else answers for us."""
        paths = audit_paths(self._settings.state_dir)
        for directory in (self._settings.state_dir, paths.root, paths.journal):
            self._groups.spare(str(directory))
        self._gate.hides(_WARM)
        self._gate.permits(FileOperation.WRITE, _WARM, _WARM)
        judge = self._judge(self._gate.snapshot)
        judge.reading(_WARM, _WARM, b"warm" * 4_096, refuses=False)
        name = self._gate.snapshot.policy_name
        whom = f"{self._names} names below {', '.join(self._trees)}"
        marked = len(self._forbidden.names)
        self._note(
            "started" if not deaths else "restarted",
            f"opens of files are decided by {name!a}: {whom}, {marked} of them forbidden",
            failed=False,
        )
        gc.collect()
        gc.freeze()

    # what the guard says ----------------------------------------------------------------

    def _heard(self) -> bool:
        said = self._guard.hear()
        if said is None:
            return False
        for frame in said:
            if frame.get("type") == "config":
                self._later(partial(self._load, frame))
        return True

    def _load(self, frame: dict[str, object]) -> None:
        """Make another snapshot, in a thread as files are read; it is taken by the loop."""
        self._swapping.append(self._snapshot(frame))
        os.eventfd_write(self._wake, 1)

    def _swap(self) -> bool:
        """Decide by another policy: what was kept from before counts no more."""
        os.eventfd_read(self._wake)
        while self._swapping:
            snapshot = self._swapping.pop(0)
            self._gate.swap(self._judge(snapshot))
            self._groups.forget_clean()
            self._note(
                "policy", f"opens of files are decided by {snapshot.policy_name!a}", failed=False
            )
            self._later(lambda: self._forbidden.survey(self._trees))
            self._guard.say({"type": "serving", "serial": snapshot.serial})
        return True

    # what happens -----------------------------------------------------------------------

    def _beat(self) -> None:
        self._later(self._find_out)
        self._guard.say(
            {
                "type": "counts",
                **self._answers.counts,
                "recorded_allowed": self._gate.counts["allowed"],
                "recorded_refused": self._gate.counts["refused"],
                "forbidden": len(self._forbidden.names),
                "overflows": self._witness.overflows,
                "figures": self._gate.tally.figures(),
            }
        )

    def _find_out(self) -> None:
        """Find out anew who is meant, in a thread; while that fails it stays as it was."""
        chosen = watched_now(self._settings)
        self._watched.take(chosen)
        self._guard.say({"type": "who", "selection": selection_word(chosen)})

    def _overflowed(self) -> None:
        self._note("overflow", "too much happened to names at once: some of it is not recorded, "
                   "and everything is looked through anew", failed=True)  # fmt: skip
        self._later(lambda: self._forbidden.survey(self._trees))

    def _failed(self, error: OSError | AespError) -> None:
        self._guard.say({"type": "news", "event": "doubt", "message": str(error), "holds": True})

    def _note(self, event: str, message: str, *, failed: bool) -> None:
        """Put into the record what becomes of the watch."""
        self._journal.append(
            Record(
                kind=RecordKind.LIFECYCLE,
                time_ns=time.time_ns(),
                event_type=f"files.{event}",
                action="files.watch",
                outcome=Outcome.FAILURE if failed else Outcome.SUCCESS,
                verdict="",
                reason="",
                guard="",
                severity="error" if failed else "info",
                message=message,
                resource="",
            )
        )
        self._guard.say({"type": "news", "event": event, "message": message, "holds": True})


def _plain() -> frozenset[int]:
    try:
        hosts = _HOSTS_MOUNTS.read_text("utf-8", "replace")
    except OSError:
        # It may not be asked: what is reached by mounts of another namespace is looked up.
        hosts = ""
    return plain_numbers(_MOUNTS.read_text("utf-8", "replace"), hosts)


def _journal(settings: Settings) -> Journal:
    return Journal.open(
        settings.state_dir,
        options=journal_options(settings.audit),
    )


if __name__ == "__main__":
    main()

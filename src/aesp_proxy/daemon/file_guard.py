"""The file guard: a process of its own in which one backend decides accesses to files.

Started like a worker, by ``spawned``, with a control socket (``control``) and the
descriptors that were made inside the agent's walls. A blocking loop, no event loop: a
thread beside a busy one costs several times more an open. It speaks the frames of a
worker: ``config`` first, then ``reload``, ``register``, ``forget``, ``count``, ``why``, ``stop``;
``ready`` says its epoch and port 1, which is none. Exit codes: 0 stopped, 3 configuration,
4 runtime. When it dies, what it served is closed.
"""

from __future__ import annotations

import gc
import importlib
import socket
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Final, cast

from aesp_proxy.daemon import worker_log
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.control import (
    Counts,
    FrameDecoder,
    Serving,
    checked_frame,
    counts_frame,
    denials_frame,
    failed_frame,
    ready_frame,
    registered_frame,
    serving_frame,
)
from aesp_proxy.daemon.file_gate import JudgedFileGate
from aesp_proxy.daemon.file_judge import FileJudge, Strictness
from aesp_proxy.daemon.policy_source import PolicySource
from aesp_proxy.daemon.recording import journal_options
from aesp_proxy.daemon.secret_registry import entries_of
from aesp_proxy.daemon.session_labels import LABELS, LabelsTold
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import AespError, ConfigError, InputError
from aesp_proxy.intercept.file_port import GUARANTEES, HOLDS, Given, Serve
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.journal import Journal

SERVES: Final = {
    "fuse": "aesp_proxy.intercept.fuse.serve",
    "notify": "aesp_proxy.intercept.notify.serve",
    "observe": "aesp_proxy.intercept.observe.serve",
}
"""The backends that run here: the module whose ``serve`` is a ``Serve``."""

NO_PORT: Final = 1
_EXIT_CONFIG: Final = 3
_EXIT_RUNTIME: Final = 4
_READ_BYTES: Final = 65_536


def main() -> None:
    """Serve until told to stop; never a traceback for what an operator can mend."""
    parser = ArgumentParser(prog="aesp_proxy.daemon.file_guard")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--backend", choices=sorted(SERVES), required=True)
    parser.add_argument("--given", action="append", default=[], metavar="KIND=FD")
    parser.add_argument("--cover", action="append", default=[], nargs=2)
    arguments = parser.parse_args()
    worker_log.install()
    given = [tuple(each.rsplit("=", 1)) for each in arguments.given]
    control = _Control(socket.socket(fileno=arguments.control_fd))
    try:
        descriptors = tuple((kind, int(fd)) for kind, fd in given)
        covers = tuple((target, source) for target, source in arguments.cover)
        _serve(control, arguments.backend, descriptors, covers)
    except (AespError, OSError) as error:
        code = _EXIT_CONFIG if isinstance(error, ConfigError) else _EXIT_RUNTIME
        control.send(failed_frame(exit_code=code, message=str(error)))
        sys.exit(code)


class _Control:
    """Our end of the control socket: frames as they come."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = FrameDecoder()
        self._waiting: list[dict[str, object]] = []

    @property
    def descriptor(self) -> int:
        """What is to be polled."""
        return self._socket.fileno()

    def send(self, frame: bytes) -> None:
        """Say something; nothing when nobody listens."""
        try:
            self._socket.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            return  # the end of file says it, too

    def next(self) -> dict[str, object]:
        """Wait for the next frame; InputError when there will be none."""
        while not self._waiting:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise InputError("the supervisor is gone")
            self._waiting += self._decoder.feed(data)
        return self._waiting.pop(0)

    def heard(self) -> Iterator[dict[str, object] | None]:
        """Yield the frames that are there, None for the end of file; waits for at least one."""
        data = b"" if self._waiting else self._socket.recv(_READ_BYTES)
        if not data and not self._waiting:
            yield None
            return
        self._waiting += self._decoder.feed(data)
        while self._waiting:
            yield self._waiting.pop(0)


def _serve(
    control: _Control,
    backend: str,
    descriptors: tuple[tuple[str, int], ...],
    covers: tuple[tuple[str, str], ...],
) -> None:
    frame = control.next()
    raw, session_id = frame.get("settings"), str(frame.get("session_id"))
    if frame.get("type") != "config" or not isinstance(raw, dict):
        msg = f"the supervisor sent {frame.get('type')!r} before the configuration"
        raise InputError(msg)
    settings = Settings.from_worker(raw)
    serve = cast("Serve", importlib.import_module(SERVES[backend]).serve)
    exact = _registered(frame, control)
    source = PolicySource(
        state_dir=settings.state_dir,
        cache_dir=settings.rule_cache_dir,
        path=settings.policy,
        exact=exact,
    )
    options = journal_options(settings.audit)
    with Journal.open(settings.state_dir, options=options) as journal:
        guard = _Guard(control, source, settings, session_id, backend, _labels(descriptors))
        policy = source.read(frame)
        if backend in HOLDS:
            control.send(checked_frame())  # the command may begin: what it opens waits
        guard.begin(source.snapshot(policy, frame), journal)
        gc.collect()
        gc.freeze()  # what is loaded now lives as long as the process
        serve(
            guard.gate,
            Given(
                descriptors=descriptors,
                trees=settings.files.trees(),
                apart=(str(settings.state_dir),),
                covers=covers,
                entries_max=settings.files.entries_max,
                control=control.descriptor,
                heard=guard.heard,
                ready=lambda: guard.ready(journal),
            ),
        )


def _labels(descriptors: tuple[tuple[str, int], ...]) -> LabelsTold | None:
    for kind, number in descriptors:
        if kind == LABELS:
            return LabelsTold(socket.socket(fileno=number))
    return None


def _registered(frame: dict[str, object], control: _Control) -> ExactIndex | None:
    """Take the values that are registered at the start: nothing passes before they are known."""
    key, count = frame.get("exact_key"), frame.get("registrations")
    if not isinstance(key, bytes) or not isinstance(count, int) or not key:
        return None
    exact = ExactIndex(key)
    for _ in range(count):
        exact.add(entries_of(control.next()))
    return exact


class _Guard:
    """Answers the supervisor between accesses; ``gate`` is what the backend asks."""

    gate: JudgedFileGate

    def __init__(
        self,
        control: _Control,
        source: PolicySource,
        settings: Settings,
        session_id: str,
        backend: str,
        labels: LabelsTold | None,
    ) -> None:
        self._control = control
        self._labels = labels
        self._source = source
        self._settings = settings
        self._backend = backend
        agent = settings.agent
        self._principal = Principal(
            principal_id=agent.principal_id,
            agent_id=agent.id,
            agent_type=agent.type,
            session_id=session_id,
            tenant_id=agent.tenant_id,
        )

    def begin(self, snapshot: Snapshot, journal: Journal) -> None:
        """Make the gate of the first policy."""
        refuses = self._settings.files.secrets_read == "refuse"
        judge = self._judge(snapshot)
        if self._labels is None:
            self.gate = JudgedFileGate(judge, journal, reading_refuses=refuses)
        else:
            tell = self._labels.tell
            self.gate = JudgedFileGate(judge, journal, reading_refuses=refuses, tell_labels=tell)

    def ready(self, journal: Journal) -> None:
        """Put into the record what is guarded and how, and say that all is decided."""
        journal.append(
            Record(
                kind=RecordKind.LIFECYCLE,
                time_ns=time.time_ns(),
                event_type="files.guarded",
                action="files.guarded",
                outcome=Outcome.SUCCESS,
                verdict="",
                reason="",
                guard=self._backend,
                severity="info",
                message=f"{self._backend}: {GUARANTEES[self._backend]}",
                resource=":".join(self._settings.files.trees()),
            )
        )
        self._control.send(ready_frame(port=NO_PORT, epoch=journal.epoch))

    def _judge(self, snapshot: Snapshot) -> FileJudge:
        return FileJudge(
            snapshot=snapshot,
            principal=self._principal,
            now_ns=time.time_ns,
            content_bytes_max=self._settings.files.content_bytes_max,
            guard=self._backend,
            written=Strictness(
                notes_secrets=self._settings.files.secrets_written == "record",
                takes_new_files_of_any_size=True,
            ),
        )

    def heard(self) -> bool:
        """Do what the supervisor says; False when it is time to end."""
        return all(frame is not None and self._does(frame) for frame in self._control.heard())

    def _does(self, frame: dict[str, object]) -> bool:
        match frame.get("type"):
            case "stop":
                return False
            case "count":
                counts = self.gate.counts
                told = Counts(connections=0, allowed=counts["allowed"], refused=counts["refused"])
                self._control.send(counts_frame(told))
            case "why":
                self._control.send(denials_frame(self.gate.denials))
            case "reload":
                snapshot = self._source.load(frame)
                self.gate.swap(self._judge(snapshot))
                self._control.send(serving_frame(_serving(snapshot)))
            case "register" | "forget":
                self._register(frame)
            case other:
                msg = f"the supervisor sent a frame of type {other!r}"
                raise InputError(msg)
        return True

    def _register(self, frame: dict[str, object]) -> None:
        exact = self._source.exact
        if exact is None:
            raise InputError("the supervisor registers values without a key")
        if frame.get("type") == "forget":
            exact.forget(str(frame.get("name", "")))
        else:
            exact.add(entries_of(frame))
        self._control.send(registered_frame(len(exact)))


def _serving(snapshot: Snapshot) -> Serving:
    return Serving(
        serial=snapshot.serial,
        name=snapshot.policy_name,
        hash=snapshot.policy_hash,
        stamp=snapshot.policy_stamp,
    )


if __name__ == "__main__":
    main()

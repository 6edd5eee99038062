"""The helper processes of a run, worker and sealer: how they are started and how they ended.

Each is one of our own modules, run by ``spawned`` so that it dies with us, in a
session of its own so that the terminal's signals pass it by, with what it writes in
a log in the state directory. ``-I`` keeps the agent's working directory and
environment from choosing what Python imports; of the environment it is given only what
``environment_of`` names, as the rest holds the agent's secrets. Started in the main thread, see
``spawned``. No event loop is needed here, so that both are on their way before the
supervisor loads its own; the worker of a run, which loads longest, even before it is
known what it is to listen on (``early``).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.daemon import early
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.session_labels import LABELS, label_channel
from aesp_proxy.errors import UnavailableError

WORKER_MODULE: Final = "aesp_proxy.daemon.worker"
FILE_GUARD_MODULE: Final = "aesp_proxy.daemon.file_guard"
SEALER_MODULE: Final = "aesp_proxy.record.sealer_process"
_EARLY: Final = "aesp_proxy.daemon.early"
_SPAWNED: Final = "aesp_proxy.daemon.spawned"
_VARIABLES: Final = frozenset(
    {
        "GLIBC_TUNABLES", "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME",
        "OPENSSL_CONF", "OPENSSL_MODULES", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ",
        "TZDIR", "USER",
    }
)  # fmt: skip
_VARIABLES_BEGIN: Final = ("LC_", "MALLOC_", "XDG_")


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a helper process is given: those that the system's libraries read.

    Not the agent's: its secrets would stand in /proc/PID/environ (proc(5)) for as long as
    the helper lives, and ``SSLKEYLOGFILE`` would have mitmproxy write the keys of every
    connection to a file.
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _VARIABLES or name.startswith(_VARIABLES_BEGIN)
    }


def module_command(module: str, *, death_signal: int) -> tuple[str, ...]:
    """Return the command that runs ``module`` and has it get ``death_signal`` when we die."""
    interpreter = (sys.executable, "-I", "-m", _SPAWNED)
    return (*interpreter, str(os.getpid()), str(int(death_signal)), module)


class HelperProcess:
    """One of our modules running as a process, which may be started again."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        pass_fds: Sequence[int] = (),
        has_stdin: bool = False,
    ) -> None:
        self.name = name
        self._command = tuple(command)
        self._log = log
        self._pass_fds = tuple(pass_fds)
        self._has_stdin = has_stdin
        self._stdin: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 before it is started."""
        return self._process.pid if self._process else 0

    @property
    def stdin(self) -> socket.socket | None:
        """Our end of its standard input, on which it says that it is ready, if it has one."""
        return self._stdin

    @property
    def exit_code(self) -> int | None:
        """Its exit code, minus the signal's number if one ended it, None while it runs."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it; UnavailableError when the system does not let us."""
        self.close_stdin()
        try:
            with ExitStack() as stack:
                output = stack.enter_context(self._log.open("ab"))
                stdin = subprocess.DEVNULL
                if self._has_stdin:
                    self._stdin, theirs = socket.socketpair()
                    stdin = stack.enter_context(theirs).fileno()
                self._process = subprocess.Popen(
                    self._command,
                    stdin=stdin,
                    stdout=output,
                    stderr=output,
                    env=environment_of(os.environ),
                    pass_fds=self._pass_fds,
                    start_new_session=True,
                )
        except OSError as error:
            self.close_stdin()
            raise UnavailableError(f"cannot start it: {error.strerror}", where=self.name) from error

    def hand_over(self, channel: socket.socket, given: Sequence[tuple[str, socket.socket]]) -> None:
        """Give it what it waits for; UnavailableError when it has ended."""
        try:
            early.give(channel, given)
        except OSError as error:
            self.collect()
            raise UnavailableError(
                f"it {self.ended()} while it loaded: {self.last_words()}", where=self.name
            ) from error

    def close_stdin(self) -> None:
        """Close our end of its standard input, which tells it to finish."""
        if self._stdin is not None:
            self._stdin.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def collect(self) -> None:
        """Wait until it has ended; for use when that is known or certain."""
        if self._process is not None:
            self._process.wait()

    def ended(self) -> str:
        """Say how it ended, for a person."""
        code = self.exit_code
        if code is None:
            return "is still running"
        if code >= 0:
            return f"exited with {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def last_words(self) -> str:
        """Return the last line in its log, or where to look if there is none."""
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        said = lines[-1].removeprefix("aesp-proxy: ") if lines else ""
        return said or f"see {self._log}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Helpers:
    """What was started, and our ends of the control sockets of the worker and the file guard."""

    worker: HelperProcess
    sealer: HelperProcess
    control: socket.socket
    files: FileGuard | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileGuard:
    """The file guard of a run, started, and our end of its control socket.

    ``labels`` is for the proxy: what the guard tells of what is read (``session_labels``).
    """

    process: HelperProcess
    control: socket.socket
    labels: socket.socket | None = None

    @property
    def for_proxy(self) -> tuple[tuple[str, socket.socket], ...]:
        """Sockets for the proxy, each with its option."""
        return (("--labels-fd", self.labels),) if self.labels is not None else ()

    def discard(self) -> None:
        """End it: what it serves is closed then."""
        self.control.close()
        if self.labels is not None:
            self.labels.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.collect()


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyWorker:
    """A worker that loads, and our end of the channel on which it waits for its sockets."""

    process: HelperProcess
    channel: socket.socket

    def discard(self) -> None:
        """End it; nothing when it was handed over and has ended."""
        self.channel.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.collect()


def start_early_worker(*, log: Path) -> EarlyWorker:
    """Start a worker that is told later what it listens on.

    UnavailableError when the system does not let us.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = module_command(_EARLY, death_signal=signal.SIGKILL)
    words = (*command, WORKER_MODULE, str(theirs.fileno()))
    worker = HelperProcess("proxy", words, log=log, pass_fds=[theirs.fileno()])
    with theirs:
        try:
            worker.start()
        except UnavailableError:
            ours.close()
            raise
    return EarlyWorker(process=worker, channel=ours)


def worker_process(
    given: Sequence[tuple[str, socket.socket]], *, log: Path, command: Sequence[str] = ()
) -> HelperProcess:
    """Return a worker, not yet started, that inherits sockets, each with its option."""
    command = command or module_command(WORKER_MODULE, death_signal=signal.SIGKILL)
    fds = [each.fileno() for _, each in given]
    words = tuple(word for name, each in given for word in (name, str(each.fileno())))
    return HelperProcess("proxy", (*command, *words), log=log, pass_fds=fds)


def sealer_process(
    settings: Settings,
    *,
    log: Path,
    arguments: Sequence[str] = (),
    command: Sequence[str] = (),
) -> HelperProcess:
    """Return the sealer, not yet started."""
    # TERM, not KILL: a sealer that is left alone still seals everything before it goes.
    command = command or module_command(SEALER_MODULE, death_signal=signal.SIGTERM)
    words = (*command, "--state", str(settings.state_dir), *arguments)
    return HelperProcess("sealer", words, log=log, has_stdin=True)


def sealer_arguments(settings: Settings) -> tuple[str, ...]:
    """Return what the settings say to the sealer."""
    audit = settings.audit
    arguments = [
        "--seal-bytes-max", str(audit.seal_bytes_max), "--seal-s-max", str(audit.seal_s_max),
    ]  # fmt: skip
    # A place that somebody has named has to be there; the usual one may come to be.
    named = settings.forward.dir is not None
    arguments += ["--forward" if named else "--forward-when-enrolled", str(settings.forward_dir)]
    return tuple(arguments)


def start_file_guard(
    backend: str,
    descriptors: Sequence[tuple[str, int]],
    *,
    log: Path,
    covers: Sequence[tuple[str, str]] = (),
    reads: bool = False,
    command: Sequence[str] = (),
) -> FileGuard:
    """Start the process that serves ``backend``; takes over the descriptors.

    ``covers`` are paths that show another one, and cannot be changed. ``reads`` is whether
    it looks at all that is read, and tells the proxy.
    UnavailableError when it cannot be started.
    """
    command = command or module_command(FILE_GUARD_MODULE, death_signal=signal.SIGKILL)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    words = ["--backend", backend, "--control-fd", str(theirs.fileno())]
    heard: socket.socket | None = None
    if reads:
        told, heard = label_channel()
        descriptors = (*descriptors, (LABELS, told.detach()))
    for kind, descriptor in descriptors:
        words += ["--given", f"{kind}={descriptor}"]
    for target, source in covers:
        words += ["--cover", target, source]
    fds = [theirs.fileno(), *(descriptor for _, descriptor in descriptors)]
    process = HelperProcess("file guard", (*command, *words), log=log, pass_fds=fds)
    try:
        process.start()
    except UnavailableError:
        ours.close()
        if heard is not None:
            heard.close()
        raise
    finally:
        for descriptor in fds[1:]:
            os.close(descriptor)
        theirs.close()
    return FileGuard(process=process, control=ours, labels=heard)


def start_helpers(
    settings: Settings,
    listener: socket.socket,
    *,
    log: Path,
    more: Sequence[tuple[str, socket.socket]] = (),
    sealer_arguments: Sequence[str] = (),
    loading: EarlyWorker | None = None,
    worker_command: Sequence[str] = (),
    sealer_command: Sequence[str] = (),
) -> Helpers:
    """Start worker and sealer; takes over ``listener``, which the worker accepts on.

    ``more`` are other sockets for the worker, each with the option that tells it.
    ``loading`` is a worker that waits for them. An empty command means our own module.
    UnavailableError when one cannot be started; then neither runs.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    given = (("--control-fd", theirs), ("--listen-fd", listener), *more)
    with ExitStack() as stack:
        for _, each in given:
            stack.enter_context(each)
        if loading is None:
            worker = worker_process(given, log=log, command=worker_command)
        else:
            worker = loading.process
        sealer = sealer_process(
            settings, log=log, arguments=sealer_arguments, command=sealer_command
        )
        try:
            if loading is None:
                worker.start()
            else:
                worker.hand_over(loading.channel, given)
            sealer.start()
        except UnavailableError:
            ours.close()
            for started in (worker, sealer):
                started.send_signal(signal.SIGKILL)
                started.collect()
            raise
    return Helpers(worker=worker, sealer=sealer, control=ours)

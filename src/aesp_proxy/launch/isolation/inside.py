"""The two processes inside: one that leaves the host's namespaces, and the first in the new.

The builder is forked by the reaper, leaves, makes the sockets, forks the init and ends.
The init (process 1 where there is a process namespace) finishes the walls, gives up
everything itself, and then starts the command and reaps. When it ends the kernel ends
all that is left inside; it dies with the reaper.

Lines on the link. Builder: ``left USER_ERRNO``, answered by ``mapped ERRNO``. Init:
``prepared REPORT | KIND ...`` with the sockets, answered by ``adopted`` and at last by
``go``. Command: ``here``, for its process id. Init: ``started``, or ``failed ERRNO``;
``exited CODE``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from aesp_proxy.launch.isolation import (
    capabilities,
    fuse_mount,
    holding,
    kernel,
    landlock,
    link,
    listeners,
    mounts,
    namespaces,
    netlink,
    seccomp,
    view,
)
from aesp_proxy.launch.isolation.fuse_mount import FuseMount
from aesp_proxy.launch.isolation.layers import Layer, Report
from aesp_proxy.launch.isolation.wish import Wish

_TITLE: Final = b"aesp-proxy-init"
_ARG_START: Final = 45  # fields of proc_pid_stat(5), counted after the name
Outcomes = dict[Layer, int]


class Order(NamedTuple):
    """What is to be started, and how signals stood before the reaper took them."""

    wish: Wish
    command: list[str]
    dispositions: Mapping[int, Any]


def attempt(call: Callable[[], object]) -> int:
    """Call; return 0 or the errno of its OSError."""
    try:
        call()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def build(bridge: socket.socket, order: Order) -> NoReturn:
    """Be the builder: leave, make the sockets, fork the init, end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in order.dispositions:
        signal.signal(number, signal.SIG_IGN)
    outcomes = namespaces.leave(order.wish.layers)
    link.send(bridge, f"left {outcomes.get(Layer.USER, errno.ENOSYS)}")
    answer = link.receive(bridge).words
    if answer[:1] != ["mapped"]:
        os._exit(1)
    if Layer.USER in outcomes:
        outcomes[Layer.USER] = outcomes[Layer.USER] or int(answer[1])
    made = _make_sockets(order.wish, outcomes)
    views = _make_views(order.wish, outcomes)
    if os.fork() != 0:
        os._exit(0)
    _Init(bridge, order, views).run(outcomes, made)
    os._exit(0)


def _make_sockets(wish: Wish, outcomes: Outcomes) -> list[listeners.Listener]:
    """Set the network up, if it is ours: anything else would change the host's."""
    if outcomes.get(Layer.NETWORK) != 0:
        return []
    made: list[listeners.Listener] = []

    def make() -> None:
        netlink.bring_everything_home()
        made.append(listeners.explicit(wish.host, wish.port))
        if wish.why:
            made.append(listeners.why(wish.host, wish.port))
        if wish.dns:
            made.extend(listeners.dns())
        if wish.transparent:
            catching, outcomes[Layer.EVERY_PORT] = listeners.transparent(wish.port)
            made.extend(catching)

    outcomes[Layer.NETWORK] = attempt(make)
    return made


def _make_views(wish: Wish, outcomes: Outcomes) -> list[FuseMount]:
    """Make the live views of files: here, where processes still have the host's ids."""
    if Layer.FUSE not in wish.layers:
        return []
    views: list[FuseMount] = []

    def make() -> None:
        trees = view.fuse_trees(wish.view)
        if not trees:
            raise OSError(errno.ENOENT, "no directory to show")
        views.extend(fuse_mount.make(tree) for tree in trees)

    outcomes[Layer.FUSE] = outcomes.get(Layer.MOUNTS, errno.ENOSYS) or attempt(make)
    return views if outcomes[Layer.FUSE] == 0 else []


class _Init:
    """The first process inside."""

    def __init__(self, bridge: socket.socket, order: Order, views: Sequence[FuseMount]) -> None:
        self.link = bridge
        self.order = order
        self.views = views
        self.directory = os.getcwd()  # noqa: PTH109 - no Path, to start fast
        self.command_pid = 0
        # What is handed out besides sockets.
        self.handed: list[tuple[listeners.Kind, int]] = []

    def run(self, outcomes: Outcomes, made: Sequence[listeners.Listener]) -> None:
        """Finish the walls, report, wait to be let go, and reap until nobody is left."""
        self._cover(outcomes)
        _take_title()
        self._lock_down(outcomes)
        handed = [*((each.kind, each.socket.fileno()) for each in made), *self.handed]
        kinds, descriptors = " ".join(kind for kind, _ in handed), [each for _, each in handed]
        link.send(self.link, f"prepared {Report(outcomes).line()} | {kinds}", descriptors)
        for each in made:
            each.socket.close()
        for _, descriptor in self.handed:
            os.close(descriptor)
        if link.receive(self.link).words != ["adopted"]:
            return
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if link.receive(self.link).words != ["go"]:
            return
        failure = self._start()
        link.send(self.link, f"failed {failure}" if failure else "started")
        self._reap()

    def _cover(self, outcomes: Outcomes) -> None:
        """Set the mounts up, if they are ours: anything else would change the host's."""
        wanted = self.order.wish.layers
        if outcomes.get(Layer.MOUNTS) == 0:
            outcomes[Layer.MOUNTS] = attempt(mounts.make_private)
        refusal = outcomes.get(Layer.MOUNTS, errno.ENOSYS)
        own = refusal or outcomes.get(Layer.PROCESSES, errno.ENOSYS)
        seen = self.order.wish.view
        for layer, cover, why_not in (
            (Layer.STAGE, lambda: view.stage(seen), refusal),
            (Layer.OWN_FILES, lambda: view.cover(seen), refusal),
            (Layer.RESOLVER, mounts.own_resolver, refusal),
            (Layer.PROC, mounts.own_proc, own),
            (Layer.KERNEL_FILES, mounts.protect_kernel_files, refusal),
        ):
            if layer in wanted:
                outcomes[layer] = why_not or attempt(cover)
        if self.views:
            outcomes[Layer.FUSE] = attempt(self._show)

    def _show(self) -> None:
        """Hang the live views up, over all that is covered: from here on they must be served.

        Until they are, whoever looks below them waits; so we have loaded what we need, and
        have gone elsewhere. The command goes back when it starts.
        """
        _load_rest()
        os.chdir("/")
        for each in self.views:
            fuse_mount.attach(each)
            self.handed.append((listeners.Kind.FUSE, each.device))

    def _lock_down(self, outcomes: Outcomes) -> None:
        """Give up all privileges; what is started from here on has them no more."""
        wish = self.order.wish
        if outcomes.get(Layer.PROCESSES) != 0:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)

        def domain() -> None:
            landlock.enforce(only_ports=wish.only_ports)

        def calls() -> None:
            own_network = outcomes.get(Layer.NETWORK) == 0
            own_processes = outcomes.get(Layer.PROCESSES) == 0
            seccomp.enforce(own_network=own_network, own_processes=own_processes)

        def held() -> None:
            # From here on whoever opens a file waits for the file guard, and so should we.
            _load_rest()
            self.handed.append((listeners.Kind.NOTIFY, holding.hold()))

        for layer, give_up in (
            (Layer.CAPABILITIES, capabilities.give_up_all),
            (Layer.LANDLOCK, domain),
            (Layer.SECCOMP, calls),
            (Layer.NOTIFY, held),
        ):
            if layer in wish.layers:
                outcomes[layer] = attempt(give_up)
        if wish.layers:
            # Nobody inside may look into this process, which the filter binds but little else.
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0)

    def _start(self) -> int:
        """Fork and exec the command; return 0, or the errno of a failed exec."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        init_pid = os.getpid()
        self.command_pid = os.fork()
        if self.command_pid == 0:
            self._become_command(init_pid, write_end)
        # The command stays in the launcher's group, for the terminal; we are no part of it.
        os.setpgid(0, 0)
        os.close(write_end)
        with open(read_end, "rb") as report:  # noqa: PTH123 - a descriptor, not a path
            text = report.read()
        return int(text or 0)

    def _become_command(self, init_pid: int, report_fd: int) -> NoReturn:
        code = errno.EINVAL
        try:
            for fatal in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(fatal, signal.SIG_DFL)
            for number, before in self.order.dispositions.items():
                ignored = before is signal.SIG_IGN
                signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            link.send(self.link, "here")
            if Layer.NOTIFY in self.order.wish.layers:
                # Who decides whether it may be executed reads its name from here.
                kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            kernel.close_on_exec_from(3)
            if self.views:
                os.chdir(self.directory)
            if os.getppid() == init_pid:
                _exec(self.order.command)
        except OSError as error:
            code = error.errno or errno.EINVAL
        os.write(report_fd, str(code).encode())
        os._exit(127)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == self.command_pid:
                    code = os.waitstatus_to_exitcode(status)
                    link.send(self.link, f"exited {code if code >= 0 else 128 - code}")


def _load_rest() -> None:
    """Load what is loaded late."""
    import shutil  # noqa: F401, PLC0415 - see ``_exec``
    import warnings  # noqa: F401, PLC0415 - of ``os.execvp``


def _exec(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without `#!` is the shell's, as execvp(3) has it.
    import shutil  # noqa: PLC0415 - slow to load, and rarely used

    script = shutil.which(command[0]) or command[0]
    os.execv("/bin/sh", ["sh", script, *command[1:]])  # noqa: S606 - as execvp(3)


def _take_title() -> None:
    """Be called what we are, not what the launcher's command line says."""
    name = ctypes.create_string_buffer(_TITLE)
    kernel.prctl(kernel.PR_SET_NAME, ctypes.addressof(name))
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    except (OSError, IndexError, ValueError):
        # A kernel that does not tell: the title is for people only.
        return
    if start and end > start:
        ctypes.memmove(start, _TITLE[: end - start - 1].ljust(end - start, b"\0"), end - start)

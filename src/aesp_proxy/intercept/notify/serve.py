"""Serve the held system calls of one agent: one loop, one call at a time.

The agent's threads are held by a filter (``launch.isolation.seccomp``) whose listener is
here. Each call is decided on and then done by us, with the agent's own rights and none
besides: all capabilities are given up. When this process ends, whatever the reason, the
kernel ends every held call in ENOSYS, those of later, too: closed.

Net 4 of the flow: whatever goes wrong with a call ends that call in an error.
"""

from __future__ import annotations

import errno
import logging
import os
import select
from collections.abc import Callable
from typing import Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.file_port import Actor, FileGate, Given
from aesp_proxy.intercept.notify.asking import Asking
from aesp_proxy.intercept.notify.calls import Call, Kind, by_number, column_of
from aesp_proxy.intercept.notify.changing import Changing
from aesp_proxy.intercept.notify.closing import Closing
from aesp_proxy.intercept.notify.held import Held
from aesp_proxy.intercept.notify.kernel import (
    Listener,
    Memory,
    Notification,
    give_up_privileges,
)
from aesp_proxy.intercept.notify.opening import GoesOn, Opened, Opening, Waits
from aesp_proxy.intercept.notify.processes import Processes
from aesp_proxy.intercept.notify.resolve import Resolver
from aesp_proxy.intercept.notify.waiting import Waiting
from aesp_proxy.intercept.other_names import OtherNames

KIND: Final = "notify"
LENDER: Final = "memory"
_TEND_MS: Final = 500
_LOG: Final = logging.getLogger(__name__)
type Answer = Opened | Waits | GoesOn | None
type Handler = Callable[[Held], Answer]


def serve(gate: FileGate, given: Given) -> None:
    """Answer held calls until told to end, or until nobody is left to make any."""
    descriptors = [number for kind, number in given.descriptors if kind == KIND]
    if len(descriptors) != 1:
        raise UnavailableError("no listener for system calls was handed over", where="notify")
    give_up_privileges()
    lenders = [number for kind, number in given.descriptors if kind == LENDER]
    memory = Memory(lenders[0] if lenders else -1)
    Server(gate, Listener(descriptors[0]), given, memory).run()


class Server:
    """One listener and all that it takes to answer."""

    def __init__(
        self, gate: FileGate, listener: Listener, given: Given, memory: Memory | None = None
    ) -> None:
        self._gate = gate
        self._listener = listener
        self._given = given
        self._memory = memory or Memory()
        self._calls: dict[int, Call] = by_number(column_of(os.uname().machine))
        self._waiting = Waiting(listener)
        self._handlers: dict[Kind, Handler] = {}
        self._closing: Closing | None = None
        self._poll = select.poll()
        self._uid = os.getuid()
        self._names = OtherNames(
            gate, given.trees, entries_max=given.entries_max, apart=given.apart, tend=self._heed
        )
        self._is_over = False

    def run(self) -> None:
        """Be ready, and answer."""
        listener, control = self._listener.descriptor, self._given.control
        poll = self._poll
        poll.register(listener, select.POLLIN)
        poll.register(control, select.POLLIN)
        self._given.ready()
        while not self._is_over:
            for descriptor, event in poll.poll(self._pause_ms()):
                if descriptor == control:
                    self._is_over |= not self._given.heard()
                elif descriptor != listener:
                    self._look()
                elif event & select.POLLIN:
                    self._take()
                else:
                    # The last process that the filter holds has ended.
                    poll.unregister(listener)
            if self._waiting:
                self._waiting.tend()
            self._names.step()

    def _pause_ms(self) -> int | None:
        if not self._names.is_done:
            return 0
        return _TEND_MS if self._waiting else None

    def _heed(self) -> None:
        """Answer the supervisor while all others wait."""
        if not self._is_over and select.select([self._given.control], [], [], 0)[0]:
            self._is_over = not self._given.heard()

    def _look(self) -> None:
        """Look at files that were closed; nobody waits for that."""
        try:
            if self._closing is not None:
                self._closing.look()
        except Exception:  # noqa: BLE001 - net 4: it is looked at when it is opened
            _LOG.exception("a closed file was not looked at")

    def _take(self) -> None:
        notification = self._listener.receive()
        if notification is None:
            return
        try:
            self._end(notification, self._answer(notification))
        except OSError as error:
            self._listener.answer(notification.id, error=error.errno or errno.EIO)
        except Exception:  # noqa: BLE001 - net 4: what fails in a new way is refused
            _LOG.exception("a held call failed")
            self._listener.answer(notification.id, error=errno.EIO)

    def _answer(self, notification: Notification) -> Answer:
        call = self._calls.get(notification.number)
        if call is None:
            raise OSError(errno.ENOSYS, "a call that is not in the table")
        actor = Actor(notification.thread, self._uid)
        held = Held(notification, call, self._memory, actor, self._listener)
        handler = self._handlers.get(call.kind)
        if handler is None:
            self._begin(notification.thread)
            handler = self._handlers[call.kind]
        return handler(held)

    def _end(self, notification: Notification, answer: Answer) -> None:
        match answer:
            case None:
                self._listener.answer(notification.id)
            case GoesOn():
                self._listener.let_go_on(notification.id)
            case Waits():
                self._waiting.add(notification.id, answer)
            case Opened():
                if answer.path and self._closing is not None:
                    self._closing.expect(answer.descriptor, answer.path)
                self._listener.inject(
                    notification.id,
                    answer.descriptor,
                    close_on_exec=answer.close_on_exec,
                    alone=answer.writes,
                )

    def _begin(self, thread: int) -> None:
        """Take the agent's root and processes from the first thread of it that asks."""
        processes = Processes(thread)
        root = os.open(f"/proc/{thread}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        resolver = Resolver(root, processes)
        asking = Asking(self._gate, self._names.forbidden, self._given.covers)
        opening = Opening(resolver, asking)
        self._closing = Closing(asking.closed)
        self._poll.register(self._closing.fileno(), select.POLLIN)
        changing = Changing(resolver, asking, entries_max=self._given.entries_max)
        self._handlers = {
            Kind.OPEN: opening.open,
            Kind.OPEN_HOW: opening.open_how,
            Kind.RENAME: changing.rename,
            Kind.LINK: changing.link,
            Kind.SYMLINK: changing.symlink,
            Kind.UNLINK: changing.unlink,
            Kind.MKDIR: changing.mkdir,
            Kind.MKNOD: changing.mknod,
            Kind.TRUNCATE: changing.truncate,
            Kind.CHMOD: changing.chmod,
            Kind.CHOWN: changing.chown,
            Kind.SET_ATTRIBUTE: changing.set_attribute,
            Kind.REMOVE_ATTRIBUTE: changing.remove_attribute,
            Kind.EXECUTE: opening.execute,
        }

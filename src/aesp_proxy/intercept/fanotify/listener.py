"""The loop that answers: one process, blocking, which opens nothing that is marked.

What it must not do is wait for itself. Where it does all the same (a library that opens a
file in the middle of a decision), a second thread looks twenty times a second whether the
loop stands still, and lets through who is not watched, this process first. What it reads
of the watched waits for the loop. Beyond that the guard ends a loop that does not move.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Final

from aesp_proxy.errors import AespError, InputError
from aesp_proxy.intercept.fanotify import kernel
from aesp_proxy.intercept.fanotify.judge import Judge
from aesp_proxy.intercept.fanotify.kernel import Event
from aesp_proxy.intercept.fanotify.marks import Groups
from aesp_proxy.intercept.fanotify.who import Gone, Watched
from aesp_proxy.intercept.fanotify.witness import Witness

_LOOK_S: Final = 0.05
_BEAT_S: Final = 5.0
_WRITTEN_MAX: Final = 512
_COUNT: Final = struct.Struct("=Q")
COUNT_BYTES: Final = _COUNT.size


class Progress:
    """A number that the guard reads: odd while an event is being answered."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, COUNT_BYTES)
        self.count = 0

    def step(self, by: int = 1) -> None:
        """Say that something began or ended (1), or that it goes on (2)."""
        self.count += by
        _COUNT.pack_into(self._memory, 0, self.count)

    def read(self) -> int:
        """Return the number, as the other process wrote it."""
        return int(_COUNT.unpack_from(self._memory)[0])


class Listener:
    """Answers the events of a watch until it is told to stop."""

    def __init__(
        self,
        groups: Groups,
        judge: Judge,
        witness: Witness,
        watched: Watched,
        progress: Progress,
        *,
        content_bytes_max: int,
    ) -> None:
        self._groups, self._judge, self._witness = groups, judge, witness
        self._watched, self._progress = watched, progress
        self._content_bytes_max = content_bytes_max
        self._waiting: deque[tuple[int, Event]] = deque()
        self._written: deque[Event] = deque()
        self._stopping = False

    def run(self, also: Mapping[int, Callable[[], bool]], *, beat: Callable[[], None]) -> None:
        """Answer until one of ``also``, called when its descriptor is readable, says False.

        ``beat`` is called every few seconds.
        """
        asks = (self._groups.denying, self._groups.asking)
        poll = select.poll()
        for descriptor in (*asks, self._groups.names, *also):
            poll.register(descriptor, select.POLLIN)
        look_after = threading.Thread(target=self._look_after, name="look-after", daemon=True)
        look_after.start()
        beat_at = 0.0
        while not self._stopping:
            pause_s = 0.0 if self._written else _BEAT_S
            ready = {descriptor for descriptor, _ in poll.poll(pause_s * 1000)}
            for group in asks:
                if group in ready:
                    self._serve(group)
            # Who waits for an answer comes first.
            if ready.isdisjoint(asks):
                self._hear_what_happened(self._groups.names in ready)
            for descriptor in ready & also.keys():
                self._stopping = self._stopping or not also[descriptor]()
            if (now := time.monotonic()) >= beat_at:
                beat_at = now + _BEAT_S
                beat()
        while self._written:
            self._hear_written(self._written.popleft())

    def _serve(self, group: int) -> None:
        events = read_group(group)
        self._progress.step()
        for event in events:
            self._answer(group, event)
        while self._waiting:
            self._answer(*self._waiting.popleft())
        self._progress.step()

    def _answer(self, group: int, event: Event) -> None:
        if not event.mask & (kernel.OPEN_PERM | kernel.OPEN_EXEC_PERM):
            self._written.append(event)
            if len(self._written) > _WRITTEN_MAX:
                self._hear_written(self._written.popleft())
            return
        respond(group, event, allow=self._judge.allows(group, event))
        self._progress.step(2)

    def _hear_written(self, event: Event) -> None:
        if event.descriptor < 0:
            return
        try:
            self._witness.written(event, content_bytes_max=self._content_bytes_max)
        except OSError:
            pass  # of a file system that is gone: there is no name to tell
        finally:
            os.close(event.descriptor)

    def _hear_what_happened(self, at_names: bool) -> None:  # noqa: FBT001 - one caller
        if at_names:
            self._hear_names()
        elif self._written:
            self._hear_written(self._written.popleft())

    def _hear_names(self) -> None:
        with contextlib.suppress(BlockingIOError, InputError):
            for change in kernel.read_changes(os.read(self._groups.names, kernel.NAMES_BYTES)):
                self._witness.take(change)

    def _look_after(self) -> None:
        last, pause = -1, threading.Event()
        while not self._stopping:
            pause.wait(_LOOK_S)
            now = self._progress.count
            if now & 1 and now == last:
                self._let_through()
            last = now

    def _let_through(self) -> None:
        for group in (self._groups.denying, self._groups.asking):
            for event in read_group(group):
                if event.mask & (kernel.OPEN_PERM | kernel.OPEN_EXEC_PERM) and self._is_other(
                    event
                ):
                    respond(group, event, allow=True)
                else:
                    self._waiting.append((group, event))

    def _is_other(self, event: Event) -> bool:
        try:
            return self._watched.actor(event.thread) is None
        except Gone:
            return False


class Later:
    """A thread for what opens directories or files: its own opens are answered by the loop.

    ``failed`` is told of what does not come off.
    """

    def __init__(self, failed: Callable[[OSError | AespError], None]) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._failed = failed
        self._thread = threading.Thread(target=self._work, name="later", daemon=True)
        self._thread.start()

    def __call__(self, job: Callable[[], object]) -> None:
        """Do it after what was asked for before."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except (OSError, AespError) as error:
                self._failed(error)


def read_group(group: int) -> list[Event]:
    """Return the questions that wait in a group, none where another thread was first."""
    try:
        return kernel.read_events(os.read(group, kernel.READ_BYTES))
    except BlockingIOError:
        return []
    except OSError as error:
        # The kernel has refused what it could open no file for (EMFILE, ENXIO ...).
        if error.errno in (errno.EBADF, errno.EFAULT):
            raise
        return []


def respond(group: int, event: Event, *, allow: bool) -> None:
    """Answer a question and let go of its file; nothing where who asked is dead."""
    with contextlib.suppress(FileNotFoundError):
        kernel.answer(group, event.descriptor, allow=allow)
    if event.descriptor >= 0:
        os.close(event.descriptor)

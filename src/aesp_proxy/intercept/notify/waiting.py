"""Openings that wait: each in a thread of its own, so that nobody else waits for it.

A pipe opens when somebody opens its other end, which may be never. Who waits for that has
been decided on; its thread does nothing but open and hand over. When the caller is gone a
signal ends the wait: open(2) then ends in EINTR.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from typing import Final

from aesp_proxy.intercept.notify.kernel import Listener, open_by_libc
from aesp_proxy.intercept.notify.opening import Waits

_WAITING_MAX: Final = 256
_STACK_BYTES: Final = 256 * 1024
_INTERRUPT: Final = signal.SIGUSR2


class Waiting:
    """The calls that wait; ``listener`` is where they are answered."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._threads: dict[int, threading.Thread] = {}
        # Those that still wait: no other may be interrupted, least of all while it answers.
        self._blocked: set[int] = set()
        self._lock = threading.Lock()
        signal.signal(_INTERRUPT, lambda *_: None)

    def __len__(self) -> int:
        return len(self._threads)

    def add(self, id_: int, waits: Waits) -> None:
        """Open it whenever that is possible; takes over what is held.

        OSError (EAGAIN) when too many wait already.
        """
        if len(self._threads) >= _WAITING_MAX:
            waits.found.close()
            raise BlockingIOError(errno.EAGAIN, "too many wait")
        threading.stack_size(_STACK_BYTES)
        thread = threading.Thread(target=self._open, args=(id_, waits), daemon=True)
        self._threads[id_] = thread
        self._blocked.add(id_)
        thread.start()

    def tend(self) -> None:
        """Forget those that are done, and end those whose caller is gone."""
        with self._lock:
            for id_ in self._blocked:
                ident = self._threads[id_].ident
                if ident is not None and not self._listener.is_valid(id_):
                    with contextlib.suppress(ProcessLookupError):
                        signal.pthread_kill(ident, _INTERRUPT)
        for id_ in [each for each, thread in self._threads.items() if not thread.is_alive()]:
            del self._threads[id_]

    def _open(self, id_: int, waits: Waits) -> None:
        listener = self._listener
        try:
            descriptor = self._opened(id_, waits)
            if descriptor is not None:
                close_on_exec = waits.close_on_exec
                listener.inject(id_, descriptor, close_on_exec=close_on_exec, alone=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                listener.answer(id_, error=error.errno or errno.EIO)
        finally:
            waits.found.close()

    def _opened(self, id_: int, waits: Waits) -> int | None:
        """Open and return a descriptor; None when nobody waits for it any more."""
        try:
            while True:
                try:
                    return open_by_libc(waits.found.handle.encode(), waits.flags)
                except InterruptedError:
                    if not self._listener.is_valid(id_):
                        return None
        finally:
            with self._lock:
                self._blocked.discard(id_)

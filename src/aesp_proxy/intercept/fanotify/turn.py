"""How a process that holds a watch hears that another watch answers, and lets go of its own.

Two ways. Beside a daemon it is the end of a pipe (``pipe_turn``), which the daemon closes
when the next guard answers. Without one it is a lock (flock(2)) on a file of the state
directory (``LockTurn``): whoever answers takes it and keeps it to its death, so a holder
whose guard is dead, and who finds it taken, is not needed any more. Both ends of the lock
are opened before anything is watched; to lock opens nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final, Protocol

from aesp_proxy.errors import UnavailableError

_MODE: Final = 0o600
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Turn(Protocol):
    """The holder's side."""

    @property
    def descriptor(self) -> int:
        """What the holder keeps open for it."""

    @property
    def pipe(self) -> int:
        """What is readable or at its end when another watch answers, -1 for nothing to poll."""

    def is_over(self) -> bool:
        """Tell whether another watch answers; asked when the guard is dead, now and then."""

    def take(self) -> None:
        """The guard's side: say that this watch answers. Called again and again."""


class PipeTurn:
    """The reading end of a pipe that the daemon closes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = self.pipe = descriptor

    def is_over(self) -> bool:
        """Nothing but the pipe tells."""
        return False

    def take(self) -> None:
        """The daemon hears of it in another way."""


class LockTurn:
    """A lock that whoever answers for this watch holds."""

    def __init__(self, path: Path) -> None:
        """Open the file; UnavailableError where that cannot be."""
        try:
            # Two descriptions of one file: a lock belongs to one, and forks share it.
            self._taken, self.descriptor = (os.open(path, _FLAGS, _MODE) for _ in range(2))
        except OSError as error:
            raise UnavailableError(
                f"cannot be opened: {error.strerror}", where=str(path)
            ) from error
        self.pipe = -1

    def is_over(self) -> bool:
        """Try it: it is free as long as nobody answers."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return False

    def take(self) -> None:
        """Take it; a holder that tries it in this very moment is gone at the next."""
        try:
            fcntl.flock(self._taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return


def lock_name(subject: str) -> str:
    """Return the name of the lock for a watch of these users and directories."""
    return f"files-watch-{hashlib.sha256(subject.encode()).hexdigest()[:16]}.lock"

"""One held call as those who answer it see it: its arguments, and who made it."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.intercept.notify.calls import AT_FDCWD, Call
from aesp_proxy.intercept.notify.kernel import (
    PATH_MAX,
    Listener,
    Memory,
    Notification,
    as_int,
    as_long,
)


@dataclass(slots=True)
class Held:
    """A call, and the memory of who made it. Strings are read when they are asked for."""

    notification: Notification
    call: Call
    memory: Memory
    actor: Actor
    listener: Listener

    def check(self) -> None:
        """See that the thread still waits: what was read of it was its own then."""
        if not self.listener.is_valid(self.notification.id):
            raise InterruptedError(errno.EINTR, "the caller is gone")

    @property
    def thread(self) -> int:
        """The thread that waits."""
        return self.notification.thread

    @property
    def at(self) -> int:
        """The directory of the first name."""
        return AT_FDCWD if self.call.at is None else self.int_at(self.call.at)

    @property
    def at2(self) -> int:
        """The directory of the second name."""
        return AT_FDCWD if self.call.at2 is None else self.int_at(self.call.at2)

    @property
    def flags(self) -> int:
        """The flags of the call, with those that it implies."""
        given = 0 if self.call.flags is None else self.int_at(self.call.flags)
        return given | self.call.fixed

    @property
    def path(self) -> bytes:
        """The first name; OSError when it cannot be read."""
        return b"" if self.call.path is None else self.string_at(self.call.path)

    @property
    def path2(self) -> bytes:
        """The second name."""
        return b"" if self.call.path2 is None else self.string_at(self.call.path2)

    def extra_int(self, place: int) -> int:
        """Return one of the other arguments as an int."""
        return self.int_at(self.call.extra[place])

    def extra_long(self, place: int) -> int:
        """Return one of the other arguments as a signed word."""
        return as_long(self.notification.arguments[self.call.extra[place]])

    def extra_string(self, place: int) -> bytes:
        """Return the string that one of the other arguments points to."""
        return self.string_at(self.call.extra[place])

    def extra_bytes(self, place: int, length: int) -> bytes:
        """Return the memory that one of the other arguments points to."""
        start = self.notification.arguments[self.call.extra[place]]
        return b"".join(
            self.memory.read(self.thread, start + done, min(PATH_MAX, length - done))
            for done in range(0, length, PATH_MAX)
        )

    def int_at(self, index: int) -> int:
        """Return an argument by its place in the call."""
        return as_int(self.notification.arguments[index])

    def string_at(self, index: int) -> bytes:
        """Return the string that an argument points to."""
        return self.memory.string(self.thread, self.notification.arguments[index])

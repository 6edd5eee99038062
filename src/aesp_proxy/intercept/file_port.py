"""What a backend for files asks of the pipeline, and what it answers the kernel.

A backend holds system calls; the gate decides and records. Every method is synchronous
and returns before anything has happened: a decision that could not be recorded comes back
as a denial, and so does a failure. Paths are absolute and normalised, bytes that are not
UTF-8 as ``os.fsdecode`` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aesp_proxy.act.file import FileDenial
from aesp_proxy.model.event import FileOperation


@dataclass(frozen=True, slots=True)
class Actor:
    """The process that asks: its id and user as the host sees them, 0 and None when unknown."""

    pid: int = 0
    uid: int | None = None


NOBODY = Actor()


class FileGate(Protocol):
    """The pipeline, as a backend for files sees it."""

    generation: int
    """Grows when the policy is replaced: answers kept from before count no more."""

    content_bytes_max: int
    """More bytes of one file than these are not read: hand over None for the content."""

    def hides(self, path: str) -> bool:
        """Tell whether nothing may open this path, for lookups, listings and surveys.

        Not recorded, and cheap for what was asked before. True on every doubt.
        """

    def refuse_access(
        self,
        operation: FileOperation,
        path: str,
        resolved: str,
        actor: Actor = NOBODY,
        *,
        is_directory: bool = False,
    ) -> FileDenial | None:
        """Decide one access by its name, before it takes effect; None when it may go on.

        ``path`` is as the process named it, ``resolved`` the object behind it. An allowed
        access is recorded once for each operation and path of a generation, a refused one
        each time.
        """

    def refuse_reading(
        self, path: str, resolved: str, content: bytes | None, size: int, actor: Actor = NOBODY
    ) -> FileDenial | None:
        """Decide by its content whether a file may be opened; None when it may.

        Call ``refuse_access`` before, and keep the answer until the file changes.
        """

    def refuse_writing(
        self,
        path: str,
        resolved: str,
        before: bytes | None,
        after: bytes | None,
        size: int,
        actor: Actor = NOBODY,
    ) -> FileDenial | None:
        """Decide what a close, a rename into place or a publication would change.

        ``before`` is None where there is no such file yet, ``after`` where it is more than
        is read; ``size`` is that of the file afterwards.
        """

    def refuse_unsupported(self, path: str, what: str, actor: Actor = NOBODY) -> FileDenial:
        """Refuse and record what this backend has no answer for: ``what``, in a few words."""

"""What a backend for files asks of the pipeline, and what it answers the kernel.

A backend holds system calls; the gate decides and records. Every method is synchronous
and returns before anything has happened: a decision that could not be recorded comes back
as a denial, and so does a failure. Paths are absolute and normalised, bytes that are not
UTF-8 as ``os.fsdecode`` has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aesp_proxy.act.file import FileDenial
from aesp_proxy.model.event import FileOperation


@dataclass(frozen=True, slots=True)
class Actor:
    """The process that asks: its id and user as the host sees them, 0 and None when unknown."""

    pid: int = 0
    uid: int | None = None


NOBODY = Actor()


class FileWitness(Protocol):
    """The pipeline, as it sees what has happened already and could not be stopped."""

    def permits(self, operation: FileOperation, path: str, resolved: str) -> bool:
        """Tell whether an access would pass by its name; not recorded. False on every doubt."""

    def note_done(
        self,
        operation: FileOperation,
        path: str,
        resolved: str,
        actor: Actor = NOBODY,
        *,
        size: int,
        content: bytes | None = None,
        is_directory: bool = False,
    ) -> None:
        """Record what was done, and what would have been decided of it.

        Of a rename, ``path`` is the old name and ``resolved`` the new one. ``content`` is
        what was written, where it is known. Never raises; what cannot be recorded is lost.
        """

    def note_gap(self, what: str) -> None:
        """Record that something may have happened that was not seen. Never raises."""


class FileGate(FileWitness, Protocol):
    """The pipeline, as a backend for files sees it."""

    @property
    def generation(self) -> int:
        """Grows with each policy, and each minute where an answer may change by itself.

        Answers kept from before count no more.
        """

    @property
    def is_lasting(self) -> bool:
        """Whether what is allowed by its name stays so as long as the generation does."""

    content_bytes_max: int
    """More bytes of one file than these are not read: hand over None for the content."""

    def hides(self, path: str) -> bool:
        """Tell whether nothing may open this path, for lookups, listings and surveys.

        Not recorded, and cheap for what was asked before. True on every doubt.
        """

    def hides_nothing_below(self, path: str) -> bool:
        """Tell whether no path below a directory can be hidden, so that it need not be read.

        False on every doubt.
        """

    def refuse_access(
        self,
        operation: FileOperation,
        path: str,
        resolved: str,
        actor: Actor = NOBODY,
        *,
        is_directory: bool = False,
        is_told_later: bool = False,
        is_named: bool = True,
    ) -> FileDenial | None:
        """Decide one access by its name, before it takes effect; None when it may go on.

        ``path`` is as the process named it, ``resolved`` the object behind it. An allowed
        access is recorded once for each operation and path of a generation, a refused one
        each time. ``is_told_later``: nothing takes effect before ``refuse_writing``, which
        records it. Without ``is_named`` the process did not give ``path`` itself, and is not
        told of it.
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
        *,
        is_named: bool = True,
    ) -> FileDenial | None:
        """Decide what a close, a rename into place or a publication would change.

        ``before`` is None where there is no such file yet, ``after`` where it is more than
        is read; ``size`` is that of the file afterwards.
        """

    def refuse_unsupported(
        self, path: str, what: str, actor: Actor = NOBODY, *, is_named: bool = True
    ) -> FileDenial:
        """Refuse and record what this backend has no answer for: ``what``, in a few words."""


GUARANTEES: Final = {
    "fuse": "every lookup, opening and change below the trees is decided; forbidden names are not "
    "there; what is written takes its place only when it was vetted",
    "stage": "forbidden files are not there; what is written in the tree is vetted and published "
    "whole or not at all; the rest of the disk is the user's own",
    "notify": "every system call that opens or changes a path is decided on the object that is "
    "opened; names stay visible",
    "fanotify": "every opening of a known forbidden file is refused, under any name; what is "
    "created, renamed and removed is recorded, not stopped",
    "observe": "nothing is stopped: what happened is recorded",
}
"""What each backend promises, in the words that are printed and recorded."""

HOLDS: Final = frozenset({"fuse", "notify"})
"""The backends that keep an access waiting until they are ready; the others miss it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a backend that runs in a process of its own is given.

    ``descriptors`` were made inside the agent's walls, each with its kind, in the order of
    the view's rows. ``trees`` are the directories of which it shows a view, the staged one
    first; ``apart`` are left out of them, and ``covers`` are paths below them that show
    another path, or themselves, and cannot be changed. ``control`` is readable when the
    supervisor says something: call ``heard`` then, and return when it says False. Call
    ``ready`` once, when every access is decided.
    """

    descriptors: tuple[tuple[str, int], ...]
    trees: tuple[str, ...]
    apart: tuple[str, ...]
    covers: tuple[tuple[str, str], ...]
    entries_max: int
    control: int
    heard: Callable[[], bool]
    ready: Callable[[], None]


type Serve = Callable[[FileGate, Given], None]
"""A backend: a blocking loop, until ``heard`` says False or what it serves is gone."""

"""Answer one question of the kernel, whether a process may open a file.

Who is not watched is let through at once. For who is, in this order: the place of the
file as everybody has it, what the opener is going to do, the gate's word on the name, then
on the content. What is clean and may be written to anyhow is asked for no more until it is
written to: the kernel forgets by itself. Exact, as a lease (fcntl(2), F_SETLEASE) is held
from before the content is read until after the kernel knows: with it nobody has the file
open for writing, and who comes waits.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from aesp_proxy.act.file import FileDenial
from aesp_proxy.intercept.fanotify import kernel
from aesp_proxy.intercept.fanotify.forbidden import Forbidden, Inode
from aesp_proxy.intercept.fanotify.handles import Mount, identify, path_behind
from aesp_proxy.intercept.fanotify.kernel import Event
from aesp_proxy.intercept.fanotify.marks import Groups
from aesp_proxy.intercept.fanotify.who import Gone, Intent, Watched, intent_of
from aesp_proxy.intercept.file_port import Actor, FileGate
from aesp_proxy.model.event import FileOperation

_OPERATIONS: Final = {
    Intent.READ: (FileOperation.OPEN,),
    Intent.WRITE: (FileOperation.WRITE,),
    Intent.BOTH: (FileOperation.OPEN, FileOperation.WRITE),
    Intent.UNKNOWN: (FileOperation.OPEN, FileOperation.WRITE),
    Intent.EXECUTE: (FileOperation.EXEC,),
}
_READ_BYTES: Final = 1 << 20
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_EXECUTING_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class Opened:
    """What is to be opened: ``path`` by which, ``resolved`` where it is for everybody.

    ``plain``: it was reached by a mount that we see ourselves, so its path is its place.
    """

    descriptor: int
    status: os.stat_result
    path: str
    resolved: str
    plain: bool

    @property
    def inode(self) -> Inode:
        """Device and inode."""
        return self.status.st_dev, self.status.st_ino

    @property
    def is_directory(self) -> bool:
        """Whether its names are to be read."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it has content."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_roots(self) -> bool:
        """Whether only root can open it for writing (an ACL shows in the bits of the group)."""
        return self.status.st_uid == 0 and not self.status.st_mode & _OTHERS_WRITE


class Judge:
    """Answers for one watch. ``plain`` are the mounts by which a path is a place for all."""

    def __init__(
        self,
        gate: FileGate,
        groups: Groups,
        watched: Watched,
        mounts: Iterable[Mount],
        forbidden: Forbidden,
        *,
        plain: Container[int],
    ) -> None:
        self._gate, self._groups, self._watched = gate, groups, watched
        self._mounts, self._plain = tuple(mounts), plain
        self._forbidden = forbidden
        self._executing: dict[int, Inode] = {}
        self.counts = {"asked": 0, "watched": 0, "refused": 0}

    def allows(self, group: int, event: Event) -> bool:
        """Tell whether an open may go on; what can be kept by the kernel is."""
        self.counts["asked"] += 1
        try:
            actor = self._watched.actor(event.thread)
        except Gone:
            return False
        if actor is None:
            return True
        self.counts["watched"] += 1
        if event.descriptor < 0:
            return False
        try:
            allowed = self._answer(group, event, actor)
        except OSError:
            # It cannot be looked at: gone under our hands, or a broken disk.
            allowed = False
        self.counts["refused"] += not allowed
        return allowed

    def _answer(self, group: int, event: Event, actor: Actor) -> bool:
        opened = self._open(event.descriptor)
        if opened is None:
            path = path_behind(event.descriptor)
            self._gate.refuse_unsupported(path, "where this file is cannot be found", actor)
            return False
        if group == self._groups.denying:
            return self._is_forbidden_no_more(opened, event, actor)
        if opened.is_directory:
            return self._may_list(opened, actor)
        return self._may_open(opened, event, actor)

    def _open(self, descriptor: int) -> Opened | None:
        status = os.fstat(descriptor)
        path = path_behind(descriptor)
        number, handle = identify(descriptor)
        if number in self._plain:
            return Opened(descriptor, status, path, path, plain=True)
        for mount in sorted(self._mounts, key=lambda each: each.device != status.st_dev):
            try:
                resolved = mount.path_of(handle)
            except OSError:
                continue
            return Opened(descriptor, status, path, resolved, plain=False)
        return None

    def _is_forbidden_no_more(self, opened: Opened, event: Event, actor: Actor) -> bool:
        """Answer for a marked inode: by its forbidden name, as the policy is by now."""
        name = self._forbidden.names.get(opened.inode)
        if name is None:
            what = "a forbidden file, whose name is being found out"
            self._gate.refuse_unsupported(opened.path, what, actor)
            return False
        operation = _of(event, FileOperation.OPEN)
        # Under the name that forbids it first: an exception must match what it is.
        denial = self._gate.refuse_access(
            operation, opened.path, name, actor, is_directory=opened.is_directory
        )
        return denial is None

    def _may_list(self, opened: Opened, actor: Actor) -> bool:
        names = {opened.path, opened.resolved}
        if any(self._gate.hides(each) for each in names):
            denial = self._gate.refuse_access(
                FileOperation.OPEN, opened.path, opened.resolved, actor, is_directory=True
            )
            if denial is not None:
                return False
        elif opened.plain:
            self._groups.note_clean(
                opened.descriptor, kernel.OPEN_PERM | kernel.ON_DIRECTORY, is_directory=True
            )
        return True

    # files ---------------------------------------------------------------------------

    def _may_open(self, opened: Opened, event: Event, actor: Actor) -> bool:
        if event.mask & kernel.OPEN_EXEC_PERM:
            return self._may_execute(opened, event, actor)
        executes = self._executing.pop(event.thread, None) == opened.inode
        leased = opened.is_file and _lease(opened.descriptor)
        try:
            intent = self._intent(opened, event, leased=leased, executes=executes)
            if self._refuse(opened, intent, actor) is not None:
                return False
            if leased and opened.plain and self._is_same_for_writing(opened):
                self._groups.note_clean(opened.descriptor, kernel.OPEN_PERM, is_directory=False)
            return True
        finally:
            if leased:
                fcntl.fcntl(opened.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def _may_execute(self, opened: Opened, event: Event, actor: Actor) -> bool:
        path, resolved = opened.path, opened.resolved
        if self._gate.refuse_access(FileOperation.EXEC, path, resolved, actor) is not None:
            return False
        # The kernel asks a second time for the same open, by its name only.
        if len(self._executing) >= _EXECUTING_MAX:
            self._executing.clear()
        self._executing[event.thread] = opened.inode
        if opened.plain and self._is_same_for_writing(opened):
            self._groups.note_clean(opened.descriptor, kernel.OPEN_EXEC_PERM, is_directory=False)
        return True

    def _intent(self, opened: Opened, event: Event, *, leased: bool, executes: bool) -> Intent:
        """Find out what it is opened for, by what cannot lie.

        A lease was given: nobody has it open for writing, and so this opener will not.
        """
        if executes:
            return Intent.EXECUTE
        if leased or opened.is_roots:
            return Intent.READ
        return intent_of(event.thread)

    def _refuse(self, opened: Opened, intent: Intent, actor: Actor) -> FileDenial | None:
        gate, path, resolved = self._gate, opened.path, opened.resolved
        trusted = self._trusted(opened)
        for operation in _OPERATIONS[intent]:
            place = trusted or resolved if operation is FileOperation.WRITE else resolved
            denial = gate.refuse_access(operation, path, place, actor)
            if denial is not None:
                return denial
        if intent is Intent.WRITE or not opened.is_file:
            return None
        size = opened.status.st_size
        content = _content(opened.descriptor, gate.content_bytes_max)
        return gate.refuse_reading(path, resolved, content, size, actor)

    def _is_same_for_writing(self, opened: Opened) -> bool:
        """Tell whether it may be kept as clean: who opens it for writing is not asked either."""
        if opened.is_roots:
            return True
        if self._trusted(opened):
            return False
        return self._gate.permits(FileOperation.WRITE, opened.path, opened.resolved)

    def _trusted(self, opened: Opened) -> str:
        """Return another name of a file that others run or trust."""
        return self._forbidden.trusted_name(opened.inode) if opened.status.st_nlink > 1 else ""


def _of(event: Event, otherwise: FileOperation) -> FileOperation:
    return FileOperation.EXEC if event.mask & kernel.OPEN_EXEC_PERM else otherwise


def _lease(descriptor: int) -> bool:
    """Hold off writers; False where somebody writes, or the file system has no leases."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _content(descriptor: int, bytes_max: int) -> bytes | None:
    """Read what there is; None for more than is read."""
    parts, offset = [], 0
    while part := os.pread(descriptor, min(_READ_BYTES, bytes_max + 1 - offset), offset):
        parts.append(part)
        offset += len(part)
        if offset > bytes_max:
            return None
    return b"".join(parts)

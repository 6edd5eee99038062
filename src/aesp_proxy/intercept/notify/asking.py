"""Ask the gate about what a held call would do, and keep what it said.

What may be opened is kept by name, and a content by the file's identity, size and times
(the last change of it, which nobody can set back). All is dropped with the policy.

What is recorded as allowed is left out for the system's own trees when they are only read:
they are not looked through for secrets either. Refusals are always recorded.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from aesp_proxy.act.file import FileDenial
from aesp_proxy.decide.protected import protects
from aesp_proxy.errors import AespError
from aesp_proxy.intercept.file_port import NOBODY, Actor, FileGate
from aesp_proxy.intercept.notify.resolve import Found, Place
from aesp_proxy.intercept.other_names import Inode
from aesp_proxy.model.event import FileOperation

SYSTEM_TREES: Final = ("/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/proc/", "/sys/", "/dev/")
_SHARED_MEMORY: Final = "/dev/shm/"  # noqa: S108 - anybody's, and so looked at
_READING: Final = frozenset({FileOperation.OPEN, FileOperation.EXEC})
_KEPT_MAX: Final = 200_000
_CHUNK: Final = 1 << 20
# What would name a program in any configuration of git: its content decides, not its name.
_NAMES_A_PROGRAM: Final = b"[alias]\n\tx = !x\n"


class RefusedError(OSError):
    """The gate refuses; ``errno`` is what the call ends in."""

    def __init__(self, denial: FileDenial) -> None:
        super().__init__(denial.errno, "refused")


def _is_systems(path: str) -> bool:
    return path.startswith(SYSTEM_TREES) and not path.startswith(_SHARED_MEMORY)


class Asking:
    """One gate, and what it has allowed.

    ``forbidden`` returns a forbidden name that a file has besides, empty for none; it is
    asked for files with several names, and raises AespError when it cannot tell.
    ``covers`` are paths that show another one where there are mounts of the agent's own, and
    nowhere may be changed: below them only what that other one has may be read. That is there
    to be read, whatever the policy says of its name: the bundle of authorities ends in .pem.
    """

    def __init__(
        self,
        gate: FileGate,
        forbidden: Callable[[Inode], str],
        covers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._gate = gate
        self._covers = tuple((target.rstrip("/"), source) for target, source in covers)
        self._forbidden = forbidden
        self._generation = gate.generation
        self._opened: set[str] = set()
        self._clean: set[tuple[str, int, int, int, int, int]] = set()

    @property
    def gate(self) -> FileGate:
        """Who decides."""
        return self._gate

    def opening(self, found: Found, actor: Actor, *, reads: bool, writes: bool) -> None:
        """Decide on an object that is to be opened; RefusedError when it may not."""
        self._keep_up()
        if writes:
            self._writing(found, actor)
        elif not self._is_known(found):
            self._reading(found, actor)
        is_file = stat.S_ISREG(found.status.st_mode) and found.has_name
        if reads and is_file and not self._is_shown(found.path):
            self._content(found, actor)

    def executing(self, found: Found, actor: Actor) -> None:
        """Decide on a program that is to be run, wherever it lies."""
        self._keep_up()
        if found.has_name and stat.S_ISREG(found.status.st_mode):
            self._names(FileOperation.EXEC, found, actor)
            self._access(FileOperation.EXEC, found.named, found.path, actor)

    def _keep_up(self) -> None:
        if self._gate.generation != self._generation:
            self._generation = self._gate.generation
            self._opened, self._clean = set(), set()

    def _is_known(self, found: Found) -> bool:
        simple = not found.links and found.named == found.path and found.status.st_nlink == 1
        return simple and found.path in self._opened

    def _reading(self, found: Found, actor: Actor) -> None:
        if not found.has_name:
            return
        self._names(FileOperation.OPEN, found, actor)
        is_file = stat.S_ISREG(found.status.st_mode)
        if is_file and not _is_systems(found.path) and not self._is_shown(found.path):
            self._access(FileOperation.OPEN, found.named, found.path, actor)
        if len(self._opened) >= _KEPT_MAX:
            self._opened.clear()
        self._opened.add(found.path)

    def _writing(self, found: Found, actor: Actor) -> None:
        if not found.has_name:
            return
        self._names(FileOperation.WRITE, found, actor)
        if not stat.S_ISREG(found.status.st_mode):
            # A device, a pipe: nothing is left behind by it.
            return
        self._access(FileOperation.WRITE, found.named, found.path, actor)
        self.in_place(found.named, found.path, actor)

    def in_place(self, named: str, path: str, actor: Actor) -> None:
        """Refuse to write where the content decides, as it is not seen before it is there."""
        for name in {named, path}:
            if self.decides_by_content(name):
                what = "it is written in place, and only a rename into place is decided by content"
                raise RefusedError(self._gate.refuse_unsupported(name, what, actor))

    def _names(self, operation: FileOperation, found: Found, actor: Actor) -> None:
        """Refuse what nobody may open, under the name, a link on the way, or another name."""
        self._spare_covers(found.path, actor, reads=operation in _READING)
        for name in (found.path, found.named, *found.links):
            if self._gate.hides(name) and not (operation in _READING and self._is_shown(name)):
                self._refuse(operation, name, found.path, actor)
        if operation in _READING and self._is_shown(found.path):
            return
        if found.status.st_nlink > 1 and not found.is_directory and not _is_systems(found.path):
            self._other_names(operation, found, actor)

    def _spare_covers(self, path: str, actor: Actor, *, reads: bool) -> None:
        """Refuse what would show or change a path that is covered; also one above it."""
        for target, source in self._covers:
            inside = path == target or path.startswith(f"{target}/")
            if inside and reads and os.path.lexists(source + path[len(target) :]):
                continue
            if inside or (not reads and target.startswith(f"{path}/")):
                self.refuse_unsupported(path, "it is the proxy's own, or its policy", actor)

    def _is_shown(self, path: str) -> bool:
        """Tell whether a path was made for the agent to read, in place of another."""
        return any(
            source != target
            and path.startswith(f"{target}/")
            and os.path.lexists(source + path[len(target) :])
            for target, source in self._covers
        )

    def _other_names(self, operation: FileOperation, found: Found, actor: Actor) -> None:
        try:
            other = self._forbidden(Inode(found.status.st_dev, found.status.st_ino))
        except AespError as error:
            what = f"it has several names, and {error.message}"
            self.refuse_unsupported(found.path, what, actor)
        else:
            if other:
                self._refuse(operation, found.path, other, actor)

    def _refuse(
        self,
        operation: FileOperation,
        named: str,
        path: str,
        actor: Actor,
        *,
        is_named: bool = True,
    ) -> None:
        refuse = partial(self._gate.refuse_access, is_named=is_named)
        denial = refuse(operation, named, path, actor)
        if denial is None and operation is not FileOperation.OPEN:
            denial = refuse(FileOperation.OPEN, named, path, actor)
        raise RefusedError(denial or self._gate.refuse_unsupported(path, "it is hidden", actor))

    def _access(
        self,
        operation: FileOperation,
        named: str,
        path: str,
        actor: Actor,
        *,
        is_directory: bool = False,
    ) -> None:
        denial = self._gate.refuse_access(operation, named, path, actor, is_directory=is_directory)
        if denial is not None:
            raise RefusedError(denial)

    # content ------------------------------------------------------------------------

    def closed(self, found: Found) -> None:
        """Look at what has been written; what is found is recorded, and refuses later opening."""
        self._keep_up()
        with suppress(RefusedError):
            self._content(found, NOBODY)

    def _content(self, found: Found, actor: Actor) -> None:
        status = found.status
        if not status.st_size or _is_systems(found.path):
            return
        times = status.st_mtime_ns, status.st_ctime_ns
        key = (found.path, status.st_dev, status.st_ino, status.st_size, *times)
        if key in self._clean:
            return
        content = self.content(found.handle, status.st_size)
        denial = self._gate.refuse_reading(found.named, found.path, content, status.st_size, actor)
        if denial is not None:
            raise RefusedError(denial)
        if len(self._clean) >= _KEPT_MAX:
            self._clean.clear()
        self._clean.add(key)

    def content(self, handle: str, size: int) -> bytes | None:
        """Read a file, None when that is more than is read."""
        most = self._gate.content_bytes_max
        if size > most:
            return None
        descriptor = os.open(handle, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            read, pieces = 0, []
            while read <= most and (piece := os.read(descriptor, _CHUNK)):
                pieces.append(piece)
                read += len(piece)
        finally:
            os.close(descriptor)
        return b"".join(pieces) if read <= most else None

    # changes ------------------------------------------------------------------------

    def changing(self, operation: FileOperation, found: Found, actor: Actor) -> None:
        """Decide on a change to an object itself: its mode, owner, length, attributes."""
        self._keep_up()
        if found.has_name:
            self._names(operation, found, actor)
            self._access(operation, found.named, found.path, actor, is_directory=found.is_directory)

    def inside(self, found: Found, actor: Actor) -> None:
        """Decide on a file without a name that is made in a directory."""
        self._keep_up()
        self._names(FileOperation.CREATE, found, actor)
        self._access(FileOperation.CREATE, found.named, found.path, actor, is_directory=True)

    def entry(
        self,
        operation: FileOperation,
        place: Place,
        actor: Actor,
        *,
        leads_to: str = "",
        is_directory: bool = False,
    ) -> None:
        """Decide on a name that is made, taken away or given to another object."""
        self._keep_up()
        self._spare_covers(place.path, actor, reads=False)
        for link in place.links:
            if self._gate.hides(link):
                self._refuse(operation, link, place.path, actor)
        path = leads_to or place.path
        self._access(operation, place.named, path, actor, is_directory=is_directory)
        if leads_to or place.named != place.path:
            self._access(operation, place.path, path, actor, is_directory=is_directory)

    def putting(self, place: Place, before: bytes | None, found: Found, actor: Actor) -> None:
        """Decide on a file that takes a place: the name, and what would change there."""
        self._keep_up()
        self._spare_covers(place.path, actor, reads=False)
        if any(self.decides_by_content(name) for name in {place.named, place.path}):
            self._settled(found.handle, place.path, actor)
        size = found.status.st_size
        after = self.content(found.handle, size)
        denial = self._gate.refuse_writing(place.named, place.path, before, after, size, actor)
        if denial is not None:
            raise RefusedError(denial)

    def moving(self, old: str, new: str, actor: Actor, content_of: str = "") -> None:
        """Decide on a name that moves with its directory, where that makes a difference.

        ``content_of`` is where to read a file whose content decides under its new name. Who
        moves a directory names nothing below it: some of that it may not even list.
        """
        hidden = self._gate.hides(old)
        if hidden != self._gate.hides(new):
            hides = old if hidden else new
            self._refuse(FileOperation.RENAME, hides, new, actor, is_named=False)
        if protects(new, b"", b"") and not protects(old, b"", b""):
            self._refuse(FileOperation.CREATE, new, new, actor, is_named=False)
        if content_of and not self.decides_by_content(old):
            self._settled(content_of, new, actor, is_named=False)
            size = os.stat(content_of, follow_symlinks=False).st_size  # noqa: PTH116
            after = self.content(content_of, size)
            denial = self._gate.refuse_writing(new, new, None, after, size, actor, is_named=False)
            if denial is not None:
                raise RefusedError(denial)

    def _settled(self, handle: str, path: str, actor: Actor, *, is_named: bool = True) -> None:
        """Refuse a file that could be written to by who has it open, or by another name.

        The kernel gives a lease to read (fcntl(2)) on what nobody has open to write, mapped
        ones included; nobody of the agent's opens it meanwhile, as that would pass here.
        """
        descriptor = os.open(handle, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if os.fstat(descriptor).st_nlink > 1:
                self.refuse_unsupported(
                    path, "what takes its place has another name", actor, is_named=is_named
                )
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            except OSError:
                what = "what takes its place may still be written to"
                self.refuse_unsupported(path, what, actor, is_named=is_named)
        finally:
            os.close(descriptor)

    def decides_by_content(self, path: str) -> bool:
        """Tell whether it depends on its content whether a file may have this name."""
        return bool(protects(path, b"", _NAMES_A_PROGRAM)) and not protects(path, b"", b"")

    def refuse_unsupported(
        self, path: str, what: str, actor: Actor, *, is_named: bool = True
    ) -> None:
        """Refuse what there is no answer for: raises RefusedError."""
        raise RefusedError(self._gate.refuse_unsupported(path, what, actor, is_named=is_named))

"""One tree as the agent sees it: nodes, open files, and what the gate says of them.

All that decides is here, so that the operations are about the kernel's protocol only. What
the gate refuses becomes an OSError with the number that the gate gives.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.file_port import Actor, FileGate
from aesp_proxy.intercept.fuse.drafts import content_of
from aesp_proxy.intercept.fuse.nodes import Inode, Node, Nodes, Signature, signature
from aesp_proxy.intercept.fuse.replies import Status, status_of
from aesp_proxy.intercept.fuse.tracked import Tracked
from aesp_proxy.intercept.fuse.watch import Watch
from aesp_proxy.intercept.other_names import OtherNames
from aesp_proxy.model.event import FileOperation

if TYPE_CHECKING:
    from aesp_proxy.act.file import FileDenial

_CLEAN_MAX: Final = 200_000
_SECOND: Final = 1_000_000_000


class HiddenError(FileNotFoundError):
    """It is there, and not to be seen."""


class Handle:
    """One open file. ``fd`` reads the file as it is on disk, or is -1 for the node's own.

    ``mark`` tells what it was when it was opened, for reading alone.
    """

    __slots__ = ("backed", "fd", "is_dead", "mark", "node", "writes")

    def __init__(self, node: Node, fd: int, *, writes: bool) -> None:
        self.node = node
        self.fd = fd
        self.writes = writes
        self.backed = False
        self.mark: Signature | None = None
        self.is_dead = False


class Tree:
    """The view of ``root``.

    ``covers`` are paths below it that show another file or directory of the host, or
    themselves, and cannot be changed. ``other_names`` knows files that have a forbidden
    name besides, ``tracked`` forbidden names that are seen all the same.
    ``device`` is the session where big files may be read by the kernel itself, else -1.
    """

    def __init__(
        self,
        root: str,
        gate: FileGate,
        *,
        covers: Mapping[str, str] | None = None,
        other_names: OtherNames | None = None,
    ) -> None:
        self.root = root
        self.gate = gate
        self.nodes = Nodes(root)
        self.covers = dict(covers or {})
        self._covered_inodes = {_inode(source) for source in self.covers.values()}
        self.other_names = other_names or OtherNames(gate, (root,), entries_max=0)
        self.tracked = Tracked(root)
        self.handles: dict[int, Handle] = {}
        self.notices: list[bytes] = []
        self.keep_ns = _SECOND
        self.device = -1
        self.watch: Watch | None = None
        self._next_handle = 1
        self._clean: dict[Inode, tuple[Signature, int]] = {}

    # names ------------------------------------------------------------------------

    def child(self, parent: Node, name: str) -> str:
        """Return the path of a name in a directory."""
        return f"{self.nodes.path(parent)}/{name}"

    def directory(self, node: Node) -> int:
        """Return the descriptor of a directory in which names are looked up: it is watched."""
        fd = self.nodes.directory(node)
        if node.watch < 0 and self.watch is not None:
            try:
                self.watch.add(node, fd)
            except OSError:
                # Too many: from here on the kernel keeps nothing for long.
                self.watch, self.keep_ns = None, _SECOND
        return fd

    def find(self, parent: Node, name: str) -> tuple[Node, os.stat_result | None]:
        """Return the node of a name, and what is on disk of it; ENOENT for what is hidden."""
        known = self.nodes.known(parent, name)
        if known is not None and known.pending:
            if known.refused:
                raise OSError(errno.ENOENT, "refused")
            return known, None
        path = self.child(parent, name)
        if path in self.covers:
            return self._covered(parent, name, path)
        found = os.stat(name, dir_fd=self.directory(parent), follow_symlinks=False)
        if not parent.sealed and self.is_hidden(path, found):
            raise HiddenError(errno.ENOENT, "hidden")
        node = self.nodes.enter(parent, name, found)
        if found.st_nlink > 1 and node.inode in self._covered_inodes:
            node.sealed = True
        return node, found

    def _covered(self, parent: Node, name: str, path: str) -> tuple[Node, os.stat_result]:
        source = self.covers[path]
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(source, flags)
        found = os.fstat(fd)
        node = self.nodes.enter(parent, name, found)
        node.sealed = True
        if stat.S_ISDIR(found.st_mode):
            self.nodes.fix(node, fd)
        else:
            os.close(fd)
        return node, found

    def is_hidden(self, path: str, found: os.stat_result) -> bool:
        """Whether a name is not to be seen: forbidden itself, or another name of such a file."""
        if self.gate.hides(path):
            if stat.S_ISREG(found.st_mode):
                self.other_names.add((found.st_dev, found.st_ino), path)
            return not self.tracked.shows(path)
        return self.is_other_name(found)

    def is_other_name(self, found: os.stat_result) -> bool:
        """Whether a file has several names, and a forbidden one among them.

        With one name it is another file, which has got the number of one that is gone.
        """
        if found.st_nlink < 2 or not stat.S_ISREG(found.st_mode):
            return False
        try:
            return bool(self.other_names.forbidden((found.st_dev, found.st_ino)))
        except UnavailableError:
            return True  # nobody can tell

    def must_have_no_other_name(self, found: os.stat_result) -> None:
        """Refuse a file that has a forbidden name too."""
        if self.is_other_name(found):
            raise OSError(errno.EACCES, "hidden")

    # status -----------------------------------------------------------------------

    def status(self, node: Node, on_disk: os.stat_result | None = None) -> Status:
        """Return what the kernel is told of a node."""
        draft = node.draft
        if draft is None:
            found = on_disk or self._on_disk(node)
            node.told = signature(found)
            return status_of(found)
        if node.pending:
            # It has no name on disk yet, and one for whoever sees it here.
            return status_of(os.fstat(draft.fd))._replace(inode=node.inode[1], links=1)
        found = os.fstat(node.target) if node.target >= 0 else self.nodes.status(node)
        if not draft.is_dirty:
            return status_of(found)
        now = os.fstat(draft.fd)
        return status_of(found)._replace(
            size=now.st_size, blocks=now.st_blocks, mtime_ns=now.st_mtime_ns
        )

    def _on_disk(self, node: Node) -> os.stat_result:
        """Return what a node is on disk; of a file whose name is gone, by whoever has it open."""
        try:
            return self.nodes.status(node)
        except OSError:
            held = self.held(node)
            if held < 0:
                raise
            return os.fstat(held)

    def held(self, node: Node) -> int:
        """Return a descriptor by which somebody has a file open, -1 for none."""
        if node.target >= 0:
            return node.target
        open_ones = (each.fd for each in self.handles.values() if each.node is node)
        return max(open_ones, default=-1)

    # decisions --------------------------------------------------------------------

    def allow(self, denial: FileDenial | None) -> None:
        """Go on, or raise what was refused."""
        if denial is not None:
            raise OSError(denial.errno, "refused")

    def decide(
        self,
        operation: FileOperation,
        path: str,
        actor: Actor,
        *,
        resolved: str = "",
        is_directory: bool = False,
        is_told_later: bool = False,
    ) -> None:
        """Ask for an access by its name; a path that is covered is never changed."""
        if self.covers and operation not in (FileOperation.OPEN, FileOperation.EXEC):
            self.spare_covers(path)
        gate = self.gate
        denial = gate.refuse_access(
            operation,
            path,
            resolved or path,
            actor,
            is_directory=is_directory,
            is_told_later=is_told_later,
        )
        self.allow(denial)
        # What may be opened is not hidden.
        if operation is not FileOperation.OPEN and gate.hides(path):
            raise OSError(errno.EACCES, "hidden")

    def spare_covers(self, path: str) -> None:
        """Refuse what would take a covered name, or a directory on the way to one, away."""
        for each in self.covers:
            if each == path or each.startswith(f"{path}/"):
                raise OSError(errno.EACCES, "covered")

    def check_reading(self, node: Node, fd: int, found: os.stat_result, actor: Actor) -> Signature:
        """Ask about the content of a file that is to be read, unless it was asked before.

        Returns what tells whether it has changed since.
        """
        now = signature(found)
        if node.sealed:
            return now
        if found.st_nlink > 1:
            self.must_have_no_other_name(found)
        mark = (now, self.gate.generation)
        if self._clean.get(node.inode) == mark:
            return now
        path = self.nodes.path(node)
        content = content_of(fd, self.gate.content_bytes_max)
        self.allow(self.gate.refuse_reading(path, path, content, found.st_size, actor))
        self.is_clean(node.inode, mark)
        return now

    def is_clean(self, inode: Inode, mark: tuple[Signature, int]) -> None:
        """Keep in mind that what a file holds may be read as long as it stays so."""
        if len(self._clean) >= _CLEAN_MAX:
            self._clean.clear()
        self._clean[inode] = mark

    def judge(
        self, path: str, before: bytes | None, after: bytes | None, size: int, actor: Actor
    ) -> None:
        """Ask about what a file would become."""
        self.allow(self.gate.refuse_writing(path, path, before, after, size, actor))

    # open files -------------------------------------------------------------------

    def open_target(self, node: Node) -> None:
        """Count a writer, and hold the file itself for it."""
        if node.target < 0 and not node.pending:
            node.target = self.nodes.open(node, os.O_RDWR)
        node.writers += 1

    def drop_writer(self, node: Node) -> None:
        """Count a writer down; with the last one goes what it needed."""
        node.writers -= 1
        if node.writers > 0:
            return
        if node.draft is not None and not node.pending:
            node.draft.close()
            node.draft = None
        if node.pending and (node.gone or not node.name or node.refused) and not node.lookups:
            self.discard(node)
        node.is_new = False
        if node.target >= 0:
            os.close(node.target)
            node.target = -1

    def discard(self, node: Node) -> None:
        """Let go of what a node that nobody knows any more holds."""
        if self.watch is not None:
            self.watch.drop(node)
        if node.writers == 0 and node.draft is not None:
            node.draft.close()
            node.draft = None

    def add(self, handle: Handle) -> int:
        """Keep an open file; return its number."""
        number = self._next_handle
        self._next_handle += 1
        self.handles[number] = handle
        return number

    def drop(self, number: int) -> None:
        """Let go of an open file that nobody ever heard of."""
        handle = self.handles.pop(number, None)
        if handle is None:
            return
        if handle.fd >= 0:
            os.close(handle.fd)
        if handle.writes:
            self.drop_writer(handle.node)

    def handle(self, number: int) -> Handle:
        """Return an open file; EBADF when there is none of this number."""
        found = self.handles.get(number)
        if found is None:
            raise OSError(errno.EBADF, "unknown handle")
        return found

    def source(self, handle: Handle) -> int:
        """Return the descriptor from which an open file is read now."""
        if handle.is_dead:
            raise OSError(errno.EPERM, "refused")
        node = handle.node
        draft = node.draft
        if draft is not None and (draft.is_dirty or node.pending):
            return draft.fd
        if node.pending:
            raise OSError(errno.EPERM, "refused")
        if handle.fd < 0 and node.target < 0:
            # Opened when it was not on disk yet, and its last writer is gone.
            handle.fd = self.nodes.open(node, os.O_RDONLY)
        return handle.fd if handle.fd >= 0 else node.target

    def renew(self) -> None:
        """Forget what was answered by a policy that is in force no more."""
        self._clean.clear()

    def close(self) -> None:
        """Close every descriptor."""
        for handle in self.handles.values():
            if handle.fd >= 0:
                os.close(handle.fd)
        for node in self.nodes:
            if node.draft is not None:
                node.draft.close()
            elif node.target >= 0:
                os.close(node.target)
        self.handles.clear()
        self.nodes.close()
        if self.watch is not None:
            self.watch.close()


def _inode(path: str) -> Inode | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino

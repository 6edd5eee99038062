"""What the kernel knows by a number: nodes, the names they have, and where they lie.

A node is reached by descriptors of directories, one name at a time and never through a
symbolic link, and is taken for itself only by device and inode: what the host has put in
its place is answered with ESTALE, and the kernel looks the name up again. A file with
several names is one node. Not for several threads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from aesp_proxy.intercept.fuse.protocol import ROOT_ID

if TYPE_CHECKING:
    from aesp_proxy.intercept.fuse.drafts import Draft
    from aesp_proxy.intercept.fuse.replies import Entry

DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_MAX: Final = 2048
_AGAIN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

type Inode = tuple[int, int]
type Signature = tuple[int, int, int, int]


def signature(found: os.stat_result) -> Signature:
    """Return what tells whether a file has changed: no program can set its ctime back."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def stale(what: str) -> OSError:
    """Return the error by which the kernel looks a name up again."""
    return OSError(errno.ESTALE, what)


class Known(NamedTuple):
    """An opening that was decided, by name and by content, and recorded.

    ``generation`` is the gate's, ``path`` that of the node then.
    """

    generation: int
    path: str
    mark: Signature


class Node:
    """One file, directory or link. ``fd`` is a directory's own descriptor, or -1.

    ``pending``: it has no name on disk yet, and its content is ``draft``. ``gone``: the
    name it had was taken away; ``removed``, for a directory, by the agent. ``is_new``: who
    made it has it open still. ``sealed``: nothing of it may be changed, and the policy is
    not asked. ``refused``: the error number with
    which what was last written was refused. ``told`` is the file that the kernel was told of.
    ``target`` is the file itself, open for writing as long as there are ``writers``.
    ``known`` is what an opening to read was last allowed as.
    """

    __slots__ = (
        "aliases", "backed", "backing", "cached", "draft", "fd", "gone", "inode", "is_new", "kind",
        "known", "listings", "lookups", "name", "number", "parent", "path_at", "path_text",
        "pending", "refused", "removed", "sealed", "seen", "target", "told", "watch", "writers",
    )  # fmt: skip

    def __init__(
        self, number: int, parent: Node | None, name: str, inode: Inode, kind: int
    ) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.inode = inode
        self.kind = kind
        self.lookups = 0
        self.fd = -1
        self.pending = False
        self.gone = False
        self.removed = False
        self.is_new = False
        self.sealed: bool = parent is not None and parent.sealed
        self.refused = 0
        self.draft: Draft | None = None
        self.target = -1
        self.writers = 0
        self.cached = 0
        self.backed = 0
        self.backing = 0
        self.seen: Signature | None = None
        self.told: Signature | None = None
        self.watch = -1
        self.known: Known | None = None
        self.listings: dict[int, list[Entry]] = {}
        self.aliases: set[tuple[int, str]] = set()
        self.path_at = -1
        self.path_text = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.kind)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.kind)


class Nodes:
    """All nodes of one tree, whose root is ``root`` on the host."""

    def __init__(self, root: str) -> None:
        fd = os.open(root, DIRECTORY)
        found = os.fstat(fd)
        self.root = Node(ROOT_ID, None, "", (found.st_dev, found.st_ino), stat.S_IFDIR)
        self.root.fd = fd
        self.root.path_text = root
        self.root.lookups = 1
        self._by_number = {ROOT_ID: self.root}
        self._by_name: dict[tuple[int, str], Node] = {}
        self._linked: dict[Inode, Node] = {}
        self._open: dict[int, Node] = {}
        self._fixed: set[int] = {ROOT_ID}
        self._next = ROOT_ID + 1
        self._moves = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Node]:
        return iter(tuple(self._by_number.values()))

    def get(self, number: int) -> Node:
        """Return a node; ESTALE when it is not known."""
        node = self._by_number.get(number)
        if node is None:
            raise stale("unknown node")
        return node

    def known(self, parent: Node, name: str) -> Node | None:
        """Return the node that this name is known for."""
        return self._by_name.get((parent.number, name))

    def path(self, node: Node) -> str:
        """Return the path on the host."""
        if node.parent is None:
            return node.path_text
        if node.path_at != self._moves:
            node.path_text = f"{self.path(node.parent)}/{node.name}"
            node.path_at = self._moves
        return node.path_text

    def is_at(self, node: Node, path: str) -> bool:
        """Tell whether a node surely has this path still, and its directory is at hand."""
        above = node.parent
        return (
            node.path_at == self._moves
            and node.path_text == path
            and not node.gone
            and above is not None
            and above.fd >= 0
        )

    def paths(self, node: Node) -> list[str]:
        """Return the paths that a node is known by, the newest first."""
        first = self.path(node)
        others = [
            f"{self.path(self._by_number[number])}/{name}"
            for number, name in node.aliases
            if number in self._by_number
        ]
        return [first, *(each for each in others if each != first)]

    def enter(self, parent: Node, name: str, found: os.stat_result) -> Node:
        """Return the node of a name, a new one where the name stands for another file."""
        inode = (found.st_dev, found.st_ino)
        kind = stat.S_IFMT(found.st_mode)
        key = (parent.number, name)
        node = self._by_name.get(key)
        if node is not None and node.inode == inode and node.kind == kind and not node.pending:
            return node
        if found.st_nlink > 1 and kind == stat.S_IFREG:
            linked = self._linked.get(inode)
            if linked is not None and not linked.gone:
                self._name(linked, parent, name)
                return linked
        return self._new(parent, name, inode, kind, linked=found.st_nlink > 1)

    def enter_pending(self, parent: Node, name: str, inode: Inode) -> Node:
        """Return a new node for a file that is not on disk; without a name for none."""
        node = self._new(parent, name, inode, stat.S_IFREG, linked=False)
        node.pending = True
        node.is_new = True
        return node

    def fix(self, node: Node, descriptor: int) -> None:
        """Have a directory node lie where this descriptor leads, and never close it."""
        if node.fd < 0:
            node.fd = descriptor
            self._fixed.add(node.number)
        else:
            os.close(descriptor)

    def _new(self, parent: Node, name: str, inode: Inode, kind: int, *, linked: bool) -> Node:
        node = Node(self._next, parent, name, inode, kind)
        self._next += 1
        self._by_number[node.number] = node
        if linked and kind == stat.S_IFREG:
            self._linked[inode] = node
        if name:
            self._name(node, parent, name)
        return node

    def _name(self, node: Node, parent: Node, name: str) -> None:
        key = (parent.number, name)
        before = self._by_name.get(key)
        if before is not None and before is not node:
            self._lose_name(before, key)
        self._by_name[key] = node
        node.aliases.add(key)
        node.parent, node.name, node.gone, node.path_at = parent, name, False, -1

    def _lose_name(self, node: Node, key: tuple[int, str]) -> None:
        node.aliases.discard(key)
        if self._by_name.get(key) is node:
            del self._by_name[key]
        if not node.aliases:
            node.gone = True
            return
        parent_number, name = next(iter(node.aliases))
        parent = self._by_number.get(parent_number)
        if parent is None:
            node.gone = True
        else:
            node.parent, node.name, node.path_at = parent, name, -1

    def link(self, node: Node, parent: Node, name: str) -> None:
        """Note that a file has one more name."""
        self._linked[node.inode] = node
        self._name(node, parent, name)

    def remove(self, parent: Node, name: str) -> None:
        """Note that a name is gone."""
        node = self._by_name.get((parent.number, name))
        if node is not None:
            self._lose_name(node, (parent.number, name))

    def move(self, old: tuple[Node, str], new: tuple[Node, str], *, exchange: bool) -> None:
        """Note that a name has moved; what was at the new one is gone, or at the old one."""
        node = self.known(*old)
        other = self.known(*new)
        self._moves += 1
        if node is not None:
            self._lose_name(node, (old[0].number, old[1]))
            self._name(node, *new)
        elif other is not None:
            self._lose_name(other, (new[0].number, new[1]))
        if exchange and other is not None:
            self._name(other, *old)

    def place(self, node: Node) -> tuple[int, str]:
        """Return the directory and name by which a node is reached; ESTALE without one."""
        if node.removed:
            # Not another one by now: to look its name up again would find nothing.
            raise FileNotFoundError(errno.ENOENT, "removed")
        if node.parent is None or node.gone:
            raise stale("no name")
        return self.directory(node.parent), node.name

    def directory(self, node: Node) -> int:
        """Return a descriptor of a directory; it stays open until ``trim``."""
        if node.fd >= 0:
            return node.fd
        above, name = self.place(node)
        fd = os.open(name, DIRECTORY, dir_fd=above)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != node.inode:
            os.close(fd)
            raise stale("another directory")
        node.fd = fd
        self._open[node.number] = node
        return fd

    def status(self, node: Node) -> os.stat_result:
        """Return what stat(2) says of a node on disk; ESTALE when it is another one now."""
        if node.parent is None:
            return os.fstat(node.fd)
        if node.number in self._fixed:
            return os.fstat(node.fd)
        above, name = self.place(node)
        try:
            found = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            raise stale("gone") from None
        if (found.st_dev, found.st_ino) != node.inode:
            raise stale("another file")
        return found

    def open(self, node: Node, flags: int) -> int:
        """Open a node; ESTALE when it is another one now."""
        return self.open_known(node, flags)[0]

    def open_known(self, node: Node, flags: int) -> tuple[int, os.stat_result]:
        """Open a node, and say what it is; ESTALE when it is another one now."""
        if node.number in self._fixed:
            fd = os.open(".", flags | os.O_CLOEXEC, dir_fd=node.fd)
            return fd, os.fstat(fd)
        above, name = self.place(node)
        safe = flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(name, safe, dir_fd=above)
        except FileNotFoundError:
            raise stale("gone") from None
        found = os.fstat(fd)
        # The number of a file that is gone may be that of a pipe now.
        is_other = (found.st_dev, found.st_ino) != node.inode
        if is_other or stat.S_IFMT(found.st_mode) != node.kind:
            os.close(fd)
            raise stale("another file")
        return fd, found

    def open_again(self, node: Node, mark: Signature) -> int:
        """Open to read what ``is_at`` its path; -1 unless it is the file of the mark, unchanged.

        And unless it has one name: others are looked for.
        """
        above = node.parent
        if above is None:
            return -1
        try:
            fd = os.open(node.name, _AGAIN, dir_fd=above.fd)
        except OSError:
            return -1
        found = os.fstat(fd)
        if (
            found.st_dev == node.inode[0]
            and found.st_nlink == 1
            and mark == (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        ):
            return fd
        os.close(fd)
        return -1

    def forget(self, number: int, lookups: int) -> Node | None:
        """Count lookups down; return the node when the kernel knows it no more."""
        node = self._by_number.get(number)
        if node is None or number == ROOT_ID:
            return None
        node.lookups -= lookups
        if node.lookups > 0:
            return None
        del self._by_number[number]
        for key in tuple(node.aliases):
            if self._by_name.get(key) is node:
                del self._by_name[key]
        if self._linked.get(node.inode) is node:
            del self._linked[node.inode]
        if node.fd >= 0:
            os.close(node.fd)
            node.fd = -1
            self._open.pop(number, None)
            self._fixed.discard(number)
        return node

    @property
    def is_full(self) -> bool:
        """Whether too many directories are open."""
        return len(self._open) > _OPEN_MAX

    def trim(self) -> None:
        """Close the directories that were opened longest ago."""
        for number in list(self._open)[: _OPEN_MAX // 2]:
            node = self._open.pop(number)
            os.close(node.fd)
            node.fd = -1

    def close(self) -> None:
        """Close every descriptor."""
        for node in self:
            if node.fd >= 0:
                os.close(node.fd)
                node.fd = -1
        self._open.clear()

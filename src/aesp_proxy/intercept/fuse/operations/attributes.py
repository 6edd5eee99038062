"""Attributes: status, mode, owner, size, times, extended attributes, the file system."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.intercept.fuse import protocol, replies
from aesp_proxy.intercept.fuse.nodes import Node
from aesp_proxy.intercept.fuse.protocol import Attributes, Body, Header, Valid
from aesp_proxy.intercept.fuse.tree import Tree
from aesp_proxy.intercept.fuse.writing import begin, settle
from aesp_proxy.model.event import FileOperation

_TIMES = Valid.ATIME | Valid.MTIME | Valid.ATIME_NOW | Valid.MTIME_NOW
_OWNER = Valid.UID | Valid.GID
_SET_ID = stat.S_ISUID | stat.S_ISGID
_VALUE_BYTES_MAX = 65536
# Others mean privilege, or are kept by the kernel for itself.
_PREFIX = "user."


def getattr_(tree: Tree, head: Header, _: Body) -> bytes:
    """GETATTR: the status of a node."""
    node = tree.nodes.get(head.node)
    return replies.attributes(tree.status(node), keep_ns=tree.keep_ns)


def setattr_(tree: Tree, head: Header, body: Body) -> bytes:
    """SETATTR: what chmod, chown, truncate and utimensat (man 2) change."""
    node = tree.nodes.get(head.node)
    asked = protocol.attributes(body)
    actor = Actor(head.pid, head.uid)
    must_be_changeable(node)
    if not node.is_new:
        # Of a new file the creation was decided, and its content will be.
        tree.decide(FileOperation.WRITE, tree.nodes.path(node), actor)
    if asked.valid & Valid.SIZE:
        _resize(tree, node, asked, actor)
    if asked.valid & (Valid.MODE | _OWNER | Valid.KILL_SUIDGID):
        with _reached(tree, node) as path:
            _change_mode(path, asked)
    if asked.valid & _TIMES:
        _change_times(tree, node, asked)
    return replies.attributes(tree.status(node), keep_ns=tree.keep_ns)


def must_be_changeable(node: Node) -> None:
    """Refuse what would change a covered node."""
    if node.sealed:
        raise OSError(errno.EACCES, "covered")


def must_be_whole(node: Node) -> None:
    """Refuse to pass on a file whose last writing was refused: it is not what it should be.

    Programs that do not look at what close says go on as if all were well, and would put
    the rest of it in the place of a good file.
    """
    if node.refused:
        raise OSError(node.refused, "refused")


def _resize(tree: Tree, node: Node, asked: Attributes, actor: Actor) -> None:
    """Cut off or lengthen: what is open is looked at when it is closed, else at once."""
    handle = tree.handles.get(asked.handle) if asked.valid & Valid.FH else None
    if handle is not None and handle.writes:
        begin(tree, node, actor, empty=asked.size == 0).resize(asked.size)
        return
    cut_off(tree, node, asked.size, actor)


def cut_off(tree: Tree, node: Node, size: int, actor: Actor) -> None:
    """Cut a file off, or lengthen it, with nothing open that will be closed: at once."""
    tree.open_target(node)
    try:
        begin(tree, node, actor, empty=size == 0).resize(size)
        settle(tree, node, actor)
    finally:
        tree.drop_writer(node)


def _change_mode(path: str, asked: Attributes) -> None:
    if asked.valid & _OWNER:
        uid = asked.uid if asked.valid & Valid.UID else -1
        gid = asked.gid if asked.valid & Valid.GID else -1
        os.chown(path, uid, gid)
    if asked.valid & Valid.MODE:
        os.chmod(path, stat.S_IMODE(asked.mode))  # noqa: PTH101 - a descriptor's path
    elif asked.valid & Valid.KILL_SUIDGID:
        mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 - a descriptor's path
        if mode & _SET_ID:
            os.chmod(path, mode & ~_SET_ID)  # noqa: PTH101 - as above


def _change_times(tree: Tree, node: Node, asked: Attributes) -> None:
    status = tree.status(node)
    now = time.time_ns()
    atime, mtime = status.atime_ns, status.mtime_ns
    if asked.valid & (Valid.ATIME | Valid.ATIME_NOW):
        atime = now if asked.valid & Valid.ATIME_NOW else asked.atime_ns
    if asked.valid & (Valid.MTIME | Valid.MTIME_NOW):
        mtime = now if asked.valid & Valid.MTIME_NOW else asked.mtime_ns
    draft = node.draft
    if draft is not None and draft.is_dirty:
        # Kept for when it is published; and seen until then.
        draft.times_ns = (atime, mtime)
        os.utime(draft.fd, ns=(atime, mtime))
    elif node.parent is None:
        os.utime(f"/proc/self/fd/{node.fd}", ns=(atime, mtime))
    else:
        above, name = tree.nodes.place(node)
        tree.nodes.status(node)
        os.utime(name, ns=(atime, mtime), dir_fd=above, follow_symlinks=False)


@contextmanager
def _reached(tree: Tree, node: Node) -> Iterator[str]:
    """Give a path that leads to this very node, whatever its name stands for by then."""
    if node.pending and node.draft is not None:
        yield f"/proc/self/fd/{node.draft.fd}"
        return
    if node.gone and (held := tree.held(node)) >= 0:
        yield f"/proc/self/fd/{held}"
        return
    fd = tree.nodes.open(node, os.O_PATH)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def getxattr(tree: Tree, head: Header, body: Body) -> bytes:
    """GETXATTR: the value of an attribute, or how long it is."""
    room, name = protocol.getxattr(body)
    if not name.startswith(_PREFIX):
        # The kernel itself asks for security.capability of each file that is written to.
        raise OSError(errno.ENODATA, "not shown")
    with _reached(tree, tree.nodes.get(head.node)) as path:
        value = os.getxattr(path, name)
    return _sized(value, room)


def listxattr(tree: Tree, head: Header, body: Body) -> bytes:
    """LISTXATTR: the names of attributes, or how long they are together."""
    room = protocol.listxattr(body)
    with _reached(tree, tree.nodes.get(head.node)) as path:
        found = [each for each in os.listxattr(path) if each.startswith(_PREFIX)]
    return _sized(b"".join(os.fsencode(each) + b"\0" for each in found), room)


def _sized(value: bytes, room: int) -> bytes:
    if room == 0:
        return replies.value_size(len(value))
    if len(value) > room:
        raise OSError(errno.ERANGE, "no room")
    return value


def setxattr(tree: Tree, head: Header, body: Body) -> bytes:
    """SETXATTR: one of the user's own attributes."""
    name, value, flags = protocol.setxattr(body)
    node = tree.nodes.get(head.node)
    if len(value) > _VALUE_BYTES_MAX:
        raise OSError(errno.E2BIG, "too long a value")
    _decide_xattr(tree, node, name, head)
    # A value is content like any other.
    tree.judge(tree.nodes.path(node), b"", value, len(value), Actor(head.pid, head.uid))
    with _reached(tree, node) as path:
        os.setxattr(path, name, value, flags)
    return b""


def removexattr(tree: Tree, head: Header, body: Body) -> bytes:
    """REMOVEXATTR: likewise."""
    (name,) = protocol.names(body, 1)
    node = tree.nodes.get(head.node)
    _decide_xattr(tree, node, name, head)
    with _reached(tree, node) as path:
        os.removexattr(path, name)
    return b""


def _decide_xattr(tree: Tree, node: Node, name: str, head: Header) -> None:
    if not name.startswith(_PREFIX):
        raise OSError(errno.EOPNOTSUPP, "only the user's own attributes")
    must_be_changeable(node)
    path = tree.nodes.path(node)
    tree.decide(FileOperation.WRITE, path, Actor(head.pid, head.uid))


def statfs(tree: Tree, _: Header, __: Body) -> bytes:
    """STATFS: the file system of the root."""
    return replies.file_system(os.fstatvfs(tree.nodes.root.fd))

"""Content: open, read, write, and what happens when a file is closed."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final, cast

from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.intercept.fuse import protocol, replies
from aesp_proxy.intercept.fuse.backing import close_backing, open_backing
from aesp_proxy.intercept.fuse.drafts import Draft
from aesp_proxy.intercept.fuse.nodes import Known, Node, Signature, stale
from aesp_proxy.intercept.fuse.operations.attributes import cut_off, must_be_changeable
from aesp_proxy.intercept.fuse.protocol import FMODE_EXEC, Body, Header
from aesp_proxy.intercept.fuse.tree import Handle, Tree
from aesp_proxy.intercept.fuse.writing import begin, refuse, settle
from aesp_proxy.model.event import FileOperation

_MORE_THAN_READING: Final = os.O_ACCMODE | os.O_TRUNC | FMODE_EXEC
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_READ_BYTES_MAX: Final = 1 << 20
_KEEP_SIZE: Final = 1
_NO_HOLES: Final = _KEEP_SIZE | 0x02 | 0x10


def open_(tree: Tree, head: Header, body: Body) -> bytes:
    """OPEN: decided by name, and for reading by content."""
    flags = protocol.open_flags(body)
    node = tree.nodes.get(head.node)
    reads_only = not flags & _MORE_THAN_READING
    if reads_only and node.known is not None:
        known = _known(tree, node, node.known)
        if known is not None:
            return known
    handle = opened(tree, node, flags, Actor(head.pid, head.uid))
    answer = replies.opened(tree.add(handle), *how(tree, handle))
    if reads_only and tree.gate.is_lasting and _is_plain(handle):
        path = tree.nodes.path(node)
        node.known = Known(tree.gate.generation, path, cast("Signature", handle.mark))
    return answer


def _is_plain(handle: Handle) -> bool:
    """Whether it reads a file as it is on disk, which the policy was asked about."""
    return handle.mark is not None and not handle.backed and not handle.node.sealed


def _known(tree: Tree, node: Node, known: Known) -> bytes | None:
    """Open again what was opened before: nothing of it has changed; None where that is not so.

    The policy, the path, the file and its content are those that were decided on: the file
    is opened by its name and looked at, whoever may have changed it.
    """
    generation, path, mark = known
    nodes = tree.nodes
    if (
        generation != tree.gate.generation
        or node.draft is not None
        or node.pending
        or node.seen != mark
        or not nodes.is_at(node, path)
    ):
        return None
    fd = nodes.open_again(node, mark)
    if fd < 0:
        return None
    handle = Handle(node, fd, writes=False)
    handle.mark = mark
    node.cached += 1
    return replies.opened(tree.add(handle), replies.OPEN_NO_FLUSH | replies.OPEN_KEEP_CACHE)


def opened(tree: Tree, node: Node, flags: int, actor: Actor) -> Handle:
    """Open a node; OSError when that is refused."""
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    _decide(tree, node, flags, actor)
    if node.pending:
        if node.draft is None:
            raise stale("refused")
        node.writers += writes
        return Handle(node, -1, writes=writes)
    if not writes:
        if flags & os.O_TRUNC:
            cut_off(tree, node, 0, actor)
        return _reader(tree, node, actor)
    if node.backed:
        # The kernel reads the file itself, and would not see the draft.
        raise OSError(errno.ETXTBSY, "read without us")
    tree.open_target(node)
    try:
        found = os.fstat(node.target)
        tree.must_have_no_other_name(found)
        if flags & os.O_ACCMODE == os.O_RDWR:
            tree.check_reading(node, node.target, found, actor)
        if flags & os.O_TRUNC:
            begin(tree, node, actor, empty=True)
    except BaseException:
        tree.drop_writer(node)
        raise
    return Handle(node, -1, writes=True)


def _decide(tree: Tree, node: Node, flags: int, actor: Actor) -> None:
    """Ask for what an open means, under each name that the file is known by."""
    mode = flags & os.O_ACCMODE
    if mode != os.O_RDONLY or flags & os.O_TRUNC:
        must_be_changeable(node)
        for each in tree.nodes.paths(node):
            tree.decide(FileOperation.WRITE, each, actor)
    if mode != os.O_WRONLY and not node.sealed:
        operation = FileOperation.EXEC if flags & FMODE_EXEC else FileOperation.OPEN
        tree.decide(operation, tree.nodes.path(node), actor)


def _reader(tree: Tree, node: Node, actor: Actor) -> Handle:
    if not node.is_file:
        raise OSError(errno.EACCES, "no regular file")
    fd, found = tree.nodes.open_known(node, os.O_RDONLY)
    try:
        mark = tree.check_reading(node, fd, found, actor)
    except BaseException:
        os.close(fd)
        raise
    handle = Handle(node, fd, writes=False)
    handle.mark = mark
    return handle


def how(tree: Tree, handle: Handle) -> tuple[int, int]:
    """Return the flags by which the kernel treats an open file, and what it reads itself."""
    node = handle.node
    now = handle.mark
    if now is None:
        node.cached += 1
        return 0, 0
    _, size, _, _ = now
    if tree.device >= 0 and size > tree.gate.content_bytes_max and not node.cached:
        if not node.backed:
            node.backing = open_backing(tree.device, handle.fd)
        if node.backing:
            handle.backed = True
            node.backed += 1
            return replies.OPEN_PASSTHROUGH | replies.OPEN_NO_FLUSH, node.backing
        tree.device = -1
    keep = replies.OPEN_KEEP_CACHE if node.seen == now else 0
    node.seen = now
    node.cached += 1
    return replies.OPEN_NO_FLUSH | keep, 0


def read(tree: Tree, _: Header, body: Body) -> bytes:
    """READ: of the draft, where there is one that differs from the file."""
    where = protocol.transfer(body)
    source = tree.source(tree.handle(where.handle))
    return os.pread(source, min(where.size, _READ_BYTES_MAX), where.offset)


def write(tree: Tree, head: Header, body: Body) -> bytes:
    """WRITE: into the draft."""
    where, data = protocol.write(body)
    draft = _draft(tree, where.handle, head)
    done = os.pwrite(draft.fd, data, where.offset)
    draft.note(where.offset, where.offset + done)
    return replies.written(done)


def _draft(tree: Tree, number: int, head: Header) -> Draft:
    handle = tree.handle(number)
    if handle.is_dead:
        raise OSError(errno.EPERM, "refused")
    if not handle.writes:
        raise OSError(errno.EBADF, "not open for writing")
    draft = handle.node.draft
    if draft is not None and draft.is_dirty:
        return draft
    return begin(tree, handle.node, Actor(head.pid, head.uid))


def fallocate(tree: Tree, head: Header, body: Body) -> bytes:
    """FALLOCATE: make room, punch holes, zero; nothing that moves what follows."""
    number, offset, length, mode = protocol.fallocate(body)
    if mode & ~_NO_HOLES:
        raise OSError(errno.EOPNOTSUPP, "moves content")
    draft = _draft(tree, number, head)
    places = (ctypes.c_int64(offset), ctypes.c_int64(length))
    if _LIBC.fallocate64(draft.fd, mode, *places) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")
    draft.note(offset, offset + length)
    return b""


def lseek(tree: Tree, _: Header, body: Body) -> bytes:
    """LSEEK: where data or a hole begins."""
    number, offset, whence = protocol.lseek(body)
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise OSError(errno.EINVAL, "neither data nor hole")
    return replies.place(os.lseek(tree.source(tree.handle(number)), offset, whence))


def flush(tree: Tree, head: Header, body: Body) -> bytes:
    """FLUSH: a close(2), whose error is what was refused."""
    handle = tree.handle(protocol.handle(body))
    if handle.is_dead:
        raise OSError(handle.node.refused or errno.EPERM, "refused")
    if handle.writes:
        settle(tree, handle.node, Actor(head.pid, head.uid), is_last=False)
    return b""


def fsync(tree: Tree, head: Header, body: Body) -> bytes:
    """FSYNC: what was written is looked at and then made durable, in the file itself."""
    number, data_only = protocol.fsync(body)
    handle = tree.handle(number)
    if handle.is_dead:
        raise OSError(handle.node.refused or errno.EPERM, "refused")
    if handle.writes:
        settle(tree, handle.node, Actor(head.pid, head.uid))
    fd = handle.fd if handle.fd >= 0 else handle.node.target
    if fd >= 0:
        (os.fdatasync if data_only else os.fsync)(fd)
    return b""


def fsyncdir(tree: Tree, head: Header, _: Body) -> bytes:
    """FSYNCDIR: the names of a directory, made durable."""
    fd = tree.nodes.open(tree.nodes.get(head.node), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return b""


def release(tree: Tree, head: Header, body: Body) -> bytes:
    """RELEASE: nobody has this open any more. What a mapping wrote last is looked at here."""
    number = protocol.handle(body)
    handle = tree.handle(number)
    node = handle.node
    if not handle.writes and not handle.backed:
        del tree.handles[number]
        if handle.fd >= 0:
            os.close(handle.fd)
        node.cached -= 1
        return b""
    try:
        if handle.writes:
            settle(tree, node, Actor(head.pid, head.uid))
    except OSError as error:
        # Nobody hears of it any more; that it was refused stays.
        refuse(tree, node, error.errno or errno.EIO)
    finally:
        del tree.handles[number]
        if handle.fd >= 0:
            os.close(handle.fd)
        if handle.backed:
            node.backed -= 1
            if not node.backed:
                close_backing(tree.device, node.backing)
                node.backing = 0
        else:
            node.cached -= 1
        if handle.writes:
            tree.drop_writer(node)
    return b""

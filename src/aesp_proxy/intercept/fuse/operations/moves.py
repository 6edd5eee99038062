"""RENAME: decided by both names, by the content that lands there, and by what lies below.

A rename is how programs write in a way that cannot be cut off, so what arrives under the
new name is looked at as if it were written there. With a directory everything below it
gets a new path: it is refused when a hidden name lies below, and each file is looked at.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.intercept.fuse import protocol
from aesp_proxy.intercept.fuse.drafts import content_of
from aesp_proxy.intercept.fuse.nodes import DIRECTORY, Node
from aesp_proxy.intercept.fuse.operations.attributes import must_be_changeable, must_be_whole
from aesp_proxy.intercept.fuse.operations.changes import judge_content
from aesp_proxy.intercept.fuse.protocol import Body, Header
from aesp_proxy.intercept.fuse.tree import HiddenError, Tree
from aesp_proxy.intercept.fuse.writing import settle
from aesp_proxy.model.event import FileOperation

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NO_REPLACE: Final = 1
_EXCHANGE: Final = 2
# A directory with more below it is moved by its programs, name by name, as from one file
# system to another: looking at all of it would hold everybody else up.
_BELOW_MAX: Final = 1_000


class Side(NamedTuple):
    """One end of a rename."""

    parent: Node
    name: str
    path: str


def rename(tree: Tree, head: Header, body: Body) -> bytes:
    """RENAME: without flags."""
    return _rename(tree, head, protocol.rename(body))


def rename2(tree: Tree, head: Header, body: Body) -> bytes:
    """RENAME2: with the flags of renameat2 (man 2)."""
    return _rename(tree, head, protocol.rename2(body))


def _rename(tree: Tree, head: Header, asked: tuple[int, int, str, str]) -> bytes:
    directory, flags, old_name, new_name = asked
    if flags & ~(_NO_REPLACE | _EXCHANGE):
        raise OSError(errno.EINVAL, "unknown flags")
    parent, target = tree.nodes.get(head.node), tree.nodes.get(directory)
    old = Side(parent, old_name, tree.child(parent, old_name))
    new = Side(target, new_name, tree.child(target, new_name))
    actor = Actor(head.pid, head.uid)
    node = _may_leave(tree, old, actor)
    there = _there(tree, new)
    _may_arrive(tree, node, new, there, actor)
    if flags & _EXCHANGE:
        if there is None:
            raise OSError(errno.ENOENT, "nothing to exchange with")
        _may_leave(tree, new, actor)
        _may_arrive(tree, there, old, node, actor)
    _settle_below(tree, node, actor)
    if there is not None:
        if flags & _NO_REPLACE:
            raise OSError(errno.EEXIST, "there already")
        _give_way(tree, new, there, exchange=bool(flags & _EXCHANGE), actor=actor)
    _call(tree, old, new, flags)
    tree.nodes.move(old[:2], new[:2], exchange=bool(flags & _EXCHANGE))
    return b""


def _may_leave(tree: Tree, side: Side, actor: Actor) -> Node:
    """Return what has this name, once it may leave it."""
    known = tree.nodes.known(side.parent, side.name)
    if known is not None:
        must_be_whole(known)
    node, _ = tree.find(side.parent, side.name)
    must_be_changeable(node)
    must_be_changeable(side.parent)
    tree.decide(FileOperation.RENAME, side.path, actor)
    settle(tree, node, actor)
    return node


def _there(tree: Tree, side: Side) -> Node | None:
    """Return what has the new name now; EACCES when that is hidden."""
    must_be_changeable(side.parent)
    try:
        return tree.find(side.parent, side.name)[0]
    except HiddenError:
        raise OSError(errno.EACCES, "hidden") from None
    except FileNotFoundError:
        return None


def _may_arrive(tree: Tree, node: Node, side: Side, there: Node | None, actor: Actor) -> None:
    """Ask whether a node may have this path, and all that lies below it theirs."""
    replaces = there is not None and there.is_file
    operation = FileOperation.WRITE if replaces else FileOperation.CREATE
    if node.is_directory:
        tree.decide(operation, side.path, actor, is_directory=True)
        _below(tree, node, side, actor)
        return
    if stat.S_ISLNK(node.kind):
        above, name = tree.nodes.place(node)
        target = os.readlink(name, dir_fd=above)
        leads = os.path.normpath(os.path.join(os.path.dirname(side.path), target))  # noqa: PTH118, PTH120
        tree.decide(operation, side.path, actor, resolved=leads)
        return
    tree.decide(operation, side.path, actor, is_told_later=node.is_file)
    judge_content(tree, node, side.path, _before(tree, there), actor)


def _before(tree: Tree, there: Node | None) -> bytes | None:
    """Return what a file that is replaced holds."""
    if there is None or not there.is_file or there.pending:
        return None
    fd = tree.nodes.open(there, os.O_RDONLY)
    try:
        return content_of(fd, tree.gate.content_bytes_max) or b""
    finally:
        os.close(fd)


def _below(tree: Tree, node: Node, side: Side, actor: Actor) -> None:
    """Ask about all that lies below a directory, under the path that it would have."""
    old_path = tree.nodes.path(node)
    tree.spare_covers(old_path)
    below = _walk(tree.nodes.directory(node))
    for count, (relative, found, directory) in enumerate(below, 1):
        path = f"{side.path}/{relative}"
        if count > _BELOW_MAX:
            raise OSError(errno.EXDEV, "too much below")
        name = relative.rpartition("/")[2]
        old = f"{old_path}/{relative}"
        # Also what is seen though it may not be opened: under another path it might be.
        if tree.is_hidden(old, found) or tree.gate.hides(old) or tree.gate.hides(path):
            # Recorded of the directory: who moves it does not know what is hidden in it.
            tree.gate.refuse_unsupported(old_path, "it holds what is hidden", actor)
            raise OSError(errno.EACCES, "holds hidden names")
        if stat.S_ISREG(found.st_mode):
            _judge_at(tree, directory, name, path, actor)
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(name, dir_fd=directory)
            leads = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120
            tree.decide(FileOperation.CREATE, path, actor, resolved=leads)


def _judge_at(tree: Tree, directory: int, name: str, path: str, actor: Actor) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        size = os.fstat(fd).st_size
        after = content_of(fd, tree.gate.content_bytes_max)
        tree.judge(path, None, after, size, actor)
    finally:
        os.close(fd)


def _walk(directory: int, prefix: str = "") -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield all below a directory, each with the directory that it lies in."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        for name in os.listdir(fd):  # noqa: PTH208 - of a descriptor
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            yield f"{prefix}{name}", found, fd
            if stat.S_ISDIR(found.st_mode):
                inner = os.open(name, DIRECTORY, dir_fd=fd)
                try:
                    yield from _walk(inner, f"{prefix}{name}/")
                finally:
                    os.close(inner)
    finally:
        os.close(fd)


def _settle_below(tree: Tree, node: Node, actor: Actor) -> None:
    """Publish the new files that lie below a directory before it moves."""
    if not node.is_directory:
        return
    for handle in tuple(tree.handles.values()):
        one: Node | None = handle.node
        while one is not None and one is not node:
            one = one.parent
        if one is node and handle.node.pending and handle.node.name:
            settle(tree, handle.node, actor)


def _give_way(tree: Tree, side: Side, there: Node, *, exchange: bool, actor: Actor) -> None:
    """Have what is replaced off the way: a file that is not on disk yet is published or gone."""
    if there.sealed:
        raise OSError(errno.EACCES, "covered")
    if exchange:
        settle(tree, there, actor)
    elif there.pending:
        tree.nodes.remove(side.parent, side.name)


def _call(tree: Tree, old: Side, new: Side, flags: int) -> None:
    above, below = tree.nodes.directory(old.parent), tree.nodes.directory(new.parent)
    if not flags:
        os.rename(old.name, new.name, src_dir_fd=above, dst_dir_fd=below)
        return
    names = (os.fsencode(old.name), os.fsencode(new.name))
    done = _LIBC.renameat2(above, names[0], below, names[1], flags)
    if done != 0:
        raise OSError(ctypes.get_errno(), "renameat2")

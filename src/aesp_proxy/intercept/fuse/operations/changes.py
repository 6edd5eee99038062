"""Changes of names: create, make, link, remove. Each is decided before it takes effect."""

from __future__ import annotations

import errno
import os
import stat

from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.intercept.fuse import protocol, replies
from aesp_proxy.intercept.fuse.drafts import Draft
from aesp_proxy.intercept.fuse.nodes import Node
from aesp_proxy.intercept.fuse.operations.attributes import must_be_changeable, must_be_whole
from aesp_proxy.intercept.fuse.operations.content import how, opened
from aesp_proxy.intercept.fuse.operations.names import entry
from aesp_proxy.intercept.fuse.protocol import Body, Header
from aesp_proxy.intercept.fuse.tree import Handle, HiddenError, Tree
from aesp_proxy.intercept.fuse.writing import name_pending, settle
from aesp_proxy.model.event import FileOperation


def create(tree: Tree, head: Header, body: Body) -> bytes:
    """CREATE: a new file, which others see when it is closed; or one that is there, opened."""
    flags, mode, name = protocol.create(body)
    parent = tree.nodes.get(head.node)
    actor = Actor(head.pid, head.uid)
    try:
        node, _ = tree.find(parent, name)
    except HiddenError:
        # Refused, and recorded, by its name; or as another name of a forbidden file.
        _may_make(tree, parent, name, actor)
        raise OSError(errno.EACCES, "hidden") from None
    except FileNotFoundError:
        handle = _new_file(tree, parent, name, mode, actor)
    else:
        if flags & os.O_EXCL:
            raise OSError(errno.EEXIST, "there already")
        handle = opened(tree, node, flags, actor)
    answer = entry(tree, handle.node)
    return answer + replies.opened(tree.add(handle), *how(tree, handle))


def _new_file(tree: Tree, parent: Node, name: str, mode: int, actor: Actor) -> Handle:
    _may_make(tree, parent, name, actor, is_told_later=True)
    draft = Draft(tree.directory(parent), mode)
    found = os.fstat(draft.fd)
    node = tree.nodes.enter_pending(parent, name, (found.st_dev, found.st_ino))
    draft.is_dirty = draft.is_untouched = True
    node.draft = draft
    node.writers = 1
    return Handle(node, -1, writes=True)


def _may_make(
    tree: Tree,
    parent: Node,
    name: str,
    actor: Actor,
    *,
    is_directory: bool = False,
    resolved: str = "",
    is_told_later: bool = False,
) -> str:
    must_be_changeable(parent)
    path = tree.child(parent, name)
    tree.decide(
        FileOperation.CREATE,
        path,
        actor,
        is_directory=is_directory,
        resolved=resolved,
        is_told_later=is_told_later,
    )
    return path


def tmpfile(tree: Tree, head: Header, body: Body) -> bytes:
    """TMPFILE: a file without a name; what is in it is looked at when it gets one."""
    _, mode = protocol.tmpfile(body)
    parent = tree.nodes.get(head.node)
    must_be_changeable(parent)
    draft = Draft(tree.nodes.directory(parent), mode)
    found = os.fstat(draft.fd)
    node = tree.nodes.enter_pending(parent, "", (found.st_dev, found.st_ino))
    draft.is_dirty = draft.is_untouched = True
    node.draft = draft
    node.writers = 1
    handle = Handle(node, -1, writes=True)
    answer = entry(tree, node)
    return answer + replies.opened(tree.add(handle), *how(tree, handle))


def mknod(tree: Tree, head: Header, body: Body) -> bytes:
    """MKNOD: pipes and sockets, which the kernel serves itself; no devices."""
    mode, name = protocol.mknod(body)
    parent = tree.nodes.get(head.node)
    actor = Actor(head.pid, head.uid)
    path = _may_make(tree, parent, name, actor)
    directory = tree.nodes.directory(parent)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
        tree.allow(tree.gate.refuse_unsupported(path, "no agent makes devices", actor))
    os.mknod(name, mode, dir_fd=directory)
    return entry(tree, *tree.find(parent, name))


def mkdir(tree: Tree, head: Header, body: Body) -> bytes:
    """MKDIR: a directory."""
    mode, name = protocol.mkdir(body)
    parent = tree.nodes.get(head.node)
    _may_make(tree, parent, name, Actor(head.pid, head.uid), is_directory=True)
    os.mkdir(name, mode & 0o7777, dir_fd=tree.nodes.directory(parent))
    return entry(tree, *tree.find(parent, name))


def symlink(tree: Tree, head: Header, body: Body) -> bytes:
    """SYMLINK: decided by where it is and by where it leads."""
    name, target = protocol.symlink(body)
    parent = tree.nodes.get(head.node)
    leads = os.path.normpath(os.path.join(tree.nodes.path(parent), target))  # noqa: PTH118
    _may_make(tree, parent, name, Actor(head.pid, head.uid), resolved=leads)
    os.symlink(target, name, dir_fd=tree.nodes.directory(parent))
    return entry(tree, *tree.find(parent, name))


def link(tree: Tree, head: Header, body: Body) -> bytes:
    """LINK: another name, looked at as if the content were written under it."""
    number, name = protocol.link(body)
    parent = tree.nodes.get(head.node)
    node = tree.nodes.get(number)
    actor = Actor(head.pid, head.uid)
    must_be_changeable(node)
    must_be_whole(node)
    path = _may_make(tree, parent, name, actor, is_told_later=node.is_file)
    if node.pending and not node.name:
        name_pending(tree, node, parent, name, actor)
    else:
        if node.gone:
            raise OSError(errno.ENOENT, "gone")
        for each in tree.nodes.paths(node):
            # What may not be opened gets no name by which it could be.
            tree.decide(FileOperation.OPEN, each, actor)
        settle(tree, node, actor)
        judge_content(tree, node, path, None, actor)
        above, old = tree.nodes.place(node)
        tree.nodes.status(node)
        directory = tree.nodes.directory(parent)
        os.link(old, name, src_dir_fd=above, dst_dir_fd=directory, follow_symlinks=False)
    tree.nodes.link(node, parent, name)
    return entry(tree, node)


def judge_content(tree: Tree, node: Node, path: str, before: bytes | None, actor: Actor) -> None:
    """Ask whether a file may have its content under another path."""
    if not node.is_file:
        return
    fd = tree.nodes.open(node, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        tree.judge(path, before, _content(tree, fd), size, actor)
    finally:
        os.close(fd)


def _content(tree: Tree, fd: int) -> bytes | None:
    from aesp_proxy.intercept.fuse.drafts import content_of  # noqa: PLC0415

    return content_of(fd, tree.gate.content_bytes_max)


def unlink(tree: Tree, head: Header, body: Body) -> bytes:
    """UNLINK: a name is taken away."""
    parent, name, node = _leaving(tree, head, body)
    if not node.pending:
        os.unlink(name, dir_fd=tree.nodes.directory(parent))
    tree.nodes.remove(parent, name)
    return b""


def rmdir(tree: Tree, head: Header, body: Body) -> bytes:
    """RMDIR: an empty directory; one with hidden names in it is not empty."""
    parent, name, node = _leaving(tree, head, body)
    if any(
        handle.node.pending and handle.node.parent is node and not handle.node.gone
        for handle in tree.handles.values()
    ):
        raise OSError(errno.ENOTEMPTY, "not empty")
    os.rmdir(name, dir_fd=tree.nodes.directory(parent))
    tree.nodes.remove(parent, name)
    node.removed = True
    return b""


def _leaving(tree: Tree, head: Header, body: Body) -> tuple[Node, str, Node]:
    """Return the directory, name and node that is to go, once that is allowed."""
    name = protocol.name(body)
    parent = tree.nodes.get(head.node)
    node, _ = tree.find(parent, name)
    if node.sealed:
        raise OSError(errno.EACCES, "covered")
    path = tree.child(parent, name)
    tree.decide(FileOperation.DELETE, path, Actor(head.pid, head.uid))
    return parent, name, node

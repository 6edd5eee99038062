"""What is written to files: drafts, what is asked about them, and how they are published.

``settle`` is the heart of it: called when a file is closed, synced, renamed or linked, it
has the draft looked at, and then makes the file what the draft is, or throws that away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.intercept.fuse.drafts import Draft, content_of
from aesp_proxy.intercept.fuse.nodes import Node, signature
from aesp_proxy.intercept.fuse.replies import forget_attributes
from aesp_proxy.intercept.fuse.tree import Tree


def begin(tree: Tree, node: Node, actor: Actor, *, empty: bool = False) -> Draft:
    """Return the draft of a file that is written to; ``empty`` when it is cut off first."""
    draft = node.draft
    if draft is None:
        # Of a file whose name is gone nobody will ever see it: it may lie anywhere.
        above = tree.nodes.root.fd if node.gone else tree.nodes.place(node)[0]
        draft = Draft(above, stat.S_IMODE(os.fstat(node.target).st_mode) | 0o600)
        node.draft = draft
    if empty:
        draft.resize(0)
        draft.note(0, 1 << 62)
        draft.is_untouched = True
    elif not draft.is_dirty and draft.kept != signature(os.fstat(node.target)):
        _check_size(tree, node, actor)
        draft.fill(node.target)
    return draft


def _check_size(tree: Tree, node: Node, actor: Actor) -> None:
    """Ask early about a file that is too big to be looked at in the end."""
    size = os.fstat(node.target).st_size
    if size > tree.gate.content_bytes_max:
        tree.judge(tree.nodes.path(node), b"", None, size, actor)


def settle(tree: Tree, node: Node, actor: Actor, *, is_last: bool = True) -> None:
    """Have what was written looked at, and publish it; OSError when it is refused.

    Without ``is_last`` what was only made or cut off waits: a shell closes one of two
    descriptors before anything is written, and a refusal must leave what there was.
    """
    draft = node.draft
    if draft is None or not draft.is_dirty or (draft.is_untouched and not is_last):
        return
    if node.gone or (node.pending and not node.name):
        # Nobody can come by it any more; a file without a name is looked at by its link.
        return
    try:
        _judge_draft(tree, node, draft, tree.nodes.paths(node), actor)
    except OSError as error:
        refuse(tree, node, error.errno or errno.EPERM)
        raise
    if node.pending:
        _give_name(tree, node, draft, node.parent or tree.nodes.root, node.name)
    else:
        draft.write_back(node.target)
        _lose_privilege(node.target)
    node.refused = 0


def _judge_draft(tree: Tree, node: Node, draft: Draft, paths: list[str], actor: Actor) -> None:
    bytes_max = tree.gate.content_bytes_max
    size = draft.size
    after = draft.content(bytes_max)
    before = None if node.pending else content_of(node.target, bytes_max) or b""
    for path in paths:
        tree.judge(path, before, after, size, actor)


def name_pending(tree: Tree, node: Node, parent: Node, name: str, actor: Actor) -> None:
    """Give a file that has no name its first one, when its content may have it."""
    draft = node.draft
    if draft is None:
        raise OSError(errno.ENOENT, "gone")
    try:
        _judge_draft(tree, node, draft, [tree.child(parent, name)], actor)
    except OSError as error:
        refuse(tree, node, error.errno or errno.EPERM)
        raise
    _give_name(tree, node, draft, parent, name)


def _give_name(tree: Tree, node: Node, draft: Draft, parent: Node, name: str) -> None:
    """Publish a new file: with its whole content at once."""
    directory = tree.nodes.directory(parent)
    if draft.is_linkable:
        source = f"/proc/self/fd/{draft.fd}"
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=True)
        target = draft.fd
    else:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, draft.mode & 0o7777, dir_fd=directory)
        draft.note(0, 1 << 62)
        draft.write_back(target)
        draft.close()
    if draft.times_ns is not None:
        os.utime(target, ns=draft.times_ns)
    found = os.fstat(target)
    node.inode = (found.st_dev, found.st_ino)
    node.pending = False
    node.draft = None
    node.target = target
    if node.writers == 0:
        os.close(target)
        node.target = -1


def refuse(tree: Tree, node: Node, number: int) -> None:
    """Throw away what was written: nobody reads it, renames it or links it."""
    node.refused = number
    if node.draft is not None:
        node.draft.close()
        node.draft = None
    if node.is_new and not node.pending:
        _take_back(tree, node)
    for handle in tree.handles.values():
        if handle.node is node and handle.writes:
            handle.is_dead = True
    tree.notices.append(forget_attributes(node.number))


def _take_back(tree: Tree, node: Node) -> None:
    """Remove a new file of which a first part was published, and the rest is refused."""
    with contextlib.suppress(OSError):
        above, name = tree.nodes.place(node)
        tree.nodes.status(node)
        os.unlink(name, dir_fd=above)
    node.pending = True


def _lose_privilege(fd: int) -> None:
    """Take set-user-id and set-group-id from what was written to, as the kernel would."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & (stat.S_ISUID | stat.S_ISGID):
        os.fchmod(fd, mode & ~(stat.S_ISUID | stat.S_ISGID))

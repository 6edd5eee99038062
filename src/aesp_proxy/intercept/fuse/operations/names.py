"""Names: lookup, listing, and forgetting; what is hidden is not there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from aesp_proxy.intercept.fuse import protocol, replies
from aesp_proxy.intercept.fuse.nodes import Node
from aesp_proxy.intercept.fuse.protocol import Body, Header
from aesp_proxy.intercept.fuse.replies import Entry
from aesp_proxy.intercept.fuse.tree import Tree

_INDEX_BITS: Final = 32
_INDEX: Final = (1 << _INDEX_BITS) - 1
_LISTINGS_MAX: Final = 4


def lookup(tree: Tree, head: Header, body: Body) -> bytes:
    """LOOKUP: a node for a name. That there is none is kept in mind, too."""
    parent = tree.nodes.get(head.node)
    try:
        node, found = tree.find(parent, protocol.name(body))
    except FileNotFoundError:
        return replies.no_entry(keep_ns=tree.keep_ns)
    return entry(tree, node, found)


def entry(tree: Tree, node: Node, found: os.stat_result | None = None) -> bytes:
    """Return the answer that names a node, and count it: the kernel will forget it."""
    status = tree.status(node, found)
    node.lookups += 1
    return replies.entry(node.number, status, keep_ns=tree.keep_ns)


def forget(tree: Tree, head: Header, body: Body) -> None:
    """FORGET: the kernel knows a node no more. Not answered."""
    _forget(tree, head.node, protocol.forget(body))


def batch_forget(tree: Tree, _: Header, body: Body) -> None:
    """BATCH_FORGET: the same for many. Not answered."""
    for number, lookups in protocol.forgets(body):
        _forget(tree, number, lookups)


def _forget(tree: Tree, number: int, lookups: int) -> None:
    node = tree.nodes.forget(number, lookups)
    if node is not None:
        tree.discard(node)


def readlink(tree: Tree, head: Header, _: Body) -> bytes:
    """READLINK: where a symbolic link leads; following it is looking names up again."""
    above, name = tree.nodes.place(tree.nodes.get(head.node))
    return os.fsencode(os.readlink(name, dir_fd=above))


def readdir(tree: Tree, head: Header, body: Body) -> bytes:
    """READDIR: the names from a place on. The list is made anew when it is read from its start."""
    where = protocol.transfer(body)
    node = tree.nodes.get(head.node)
    if not node.is_directory:
        raise OSError(errno.ENOTDIR, "no directory")
    number, index = where.offset >> _INDEX_BITS, where.offset & _INDEX
    entries = node.listings.get(number)
    if where.offset == 0 or entries is None:
        # Whoever reads on goes on in the list that he began with, whatever went meanwhile.
        number = max(node.listings, default=0) + 1
        entries = list(_entries(tree, node))
        node.listings[number] = entries
        while len(node.listings) > _LISTINGS_MAX:
            del node.listings[min(node.listings)]
    base = number << _INDEX_BITS
    rest = enumerate(entries[index:], base + index + 1)
    payload = replies.listing(rest, bytes_max=where.size)
    if not payload and number == min(node.listings):
        del node.listings[number]
    return payload


def _entries(tree: Tree, node: Node) -> Iterator[Entry]:
    inode = node.inode[1]
    yield Entry(inode, ".", stat.S_IFDIR)
    yield Entry(node.parent.inode[1] if node.parent else inode, "..", stat.S_IFDIR)
    path = tree.nodes.path(node)
    pending = _pending(tree, node)
    fd = tree.nodes.open(node, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as found:
            for each in found:
                shown = node.sealed or not _is_hidden(tree, f"{path}/{each.name}", node, each)
                if shown and each.name not in pending:
                    yield Entry(each.inode(), each.name, _kind(each))
    finally:
        os.close(fd)
    for name, one in pending.items():
        if not one.refused:
            yield Entry(one.inode[1], name, stat.S_IFREG)


def _pending(tree: Tree, directory: Node) -> dict[str, Node]:
    """Return the files of a directory that are not on disk yet."""
    return {
        handle.node.name: handle.node
        for handle in tree.handles.values()
        if handle.node.pending and handle.node.parent is directory and handle.node.name
        and not handle.node.gone
    }  # fmt: skip


def _is_hidden(tree: Tree, path: str, directory: Node, found: os.DirEntry[str]) -> bool:
    if path in tree.covers:
        return False
    if tree.gate.hides(path):
        return not tree.tracked.shows(path)
    # Other names of forbidden files: on this file system, told without looking at each.
    if not tree.other_names.has((directory.inode[0], found.inode())):
        return False
    try:
        return tree.is_other_name(found.stat(follow_symlinks=False))
    except FileNotFoundError:
        return True


def _kind(found: os.DirEntry[str]) -> int:
    if found.is_symlink():
        return stat.S_IFLNK
    if found.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if found.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return 0

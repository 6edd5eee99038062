"""What others have changed on disk, against what the kernel was told."""

from __future__ import annotations

import os

from aesp_proxy.intercept.fuse.nodes import Node, signature
from aesp_proxy.intercept.fuse.tree import Tree


def caught_up(tree: Tree) -> tuple[set[int], bool]:
    """Return the nodes whose attributes have changed on disk, and whether names have."""
    changed: set[int] = set()
    names = False
    for node, name, is_name in tree.watch.news() if tree.watch is not None else ():
        if node is None:
            names = True
            continue
        known = tree.nodes.known(node, name)
        found = _on_disk(tree, node, name)
        if is_name and not _is_known(known, found):
            changed.add(node.number)
            names = True
        elif known is not None and found is not None and known.told != signature(found):
            changed.add(known.number)
    return changed, names


def _on_disk(tree: Tree, node: Node, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=tree.nodes.directory(node), follow_symlinks=False)
    except OSError:
        return None


def _is_known(node: Node | None, found: os.stat_result | None) -> bool:
    """Whether a name stands for what the kernel was told that it does."""
    if found is None:
        return node is None or node.pending
    return node is not None and node.inode == (found.st_dev, found.st_ino)

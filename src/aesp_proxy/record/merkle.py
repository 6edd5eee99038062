"""Merkle trees as RFC 6962 section 2.1 defines them, over hashes of leaves.

Rules: SHA-256; a leaf is ``H(0x00 || data)``, a node ``H(0x01 || left || right)``,
the empty tree ``H()``. Nothing of our own making: a proof made here verifies in
any Certificate Transparency library, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

EMPTY_ROOT: Final = sha256(b"").digest()
HASH_BYTES: Final = 32


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf: SHA-256 of 0x00 and the data (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + data).digest()


def leaf_hashes(rows: Iterable[bytes]) -> list[bytes]:
    """Hash many leaves; the loop the sealer and the verifier spend their time in."""
    digest = sha256
    return [digest(b"\x00" + row).digest() for row in rows]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node: SHA-256 of 0x01, left and right."""
    return sha256(b"\x01" + left + right).digest()


def _level_above(nodes: Sequence[bytes]) -> list[bytes]:
    # Pairing neighbours and promoting an odd last node gives the RFC's tree:
    # its split at the largest power of two is the same shape, seen from below.
    digest = sha256
    pairs = iter(nodes)
    above = [
        digest(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)
    ]
    if len(nodes) % 2:
        above.append(nodes[-1])
    return above


def root(leaves: Sequence[bytes]) -> bytes:
    """Root hash over leaf hashes (of :func:`leaf_hash`), 32 bytes."""
    if not leaves:
        return EMPTY_ROOT
    nodes = leaves
    while len(nodes) > 1:
        nodes = _level_above(nodes)
    return nodes[0]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path for the leaf at ``index``, nearest sibling first (RFC 6962 section 2.1.1).

    IndexError when there is no such leaf.
    """
    return inclusion_path(levels(leaves), index)


def levels(leaves: Sequence[bytes]) -> list[Sequence[bytes]]:
    """All nodes of the tree, a level each, leaves first: what many paths share."""
    found: list[Sequence[bytes]] = [leaves]
    while len(found[-1]) > 1:
        found.append(_level_above(found[-1]))
    return found


def inclusion_path(tree: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """Audit path for the leaf at ``index`` of a tree that :func:`levels` gave.

    IndexError when there is no such leaf.
    """
    if not 0 <= index < len(tree[0]):
        raise IndexError(f"no leaf {index} in a tree of {len(tree[0])}")
    path: list[bytes] = []
    for nodes in tree[:-1]:
        sibling = index ^ 1
        if sibling < len(nodes):
            path.append(nodes[sibling])
        index //= 2
    return path


def verify_inclusion(
    leaf: bytes, index: int, tree_size: int, path: Sequence[bytes], expected_root: bytes
) -> bool:
    """Whether ``leaf`` stands at ``index`` of the tree (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < tree_size or any(len(node) != HASH_BYTES for node in path):
        return False
    place, last, node = index, tree_size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if place % 2 or place == last:
            node = node_hash(sibling, node)
            while place % 2 == 0 and place:
                place //= 2
                last //= 2
        else:
            node = node_hash(node, sibling)
        place //= 2
        last //= 2
    return last == 0 and node == expected_root


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether the tree of ``new_size`` begins with that of ``old_size`` (RFC 9162 2.1.4.2).

    Nothing precedes every tree, and a tree itself alone: both without a path.
    """
    if not 0 <= old_size <= new_size or any(len(node) != HASH_BYTES for node in path):
        return False
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    if old_size == new_size:
        return not path and old_root == new_root
    place, last = old_size - 1, new_size - 1
    while place % 2:
        place //= 2
        last //= 2
    nodes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not nodes:
        return False
    old = new = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while place % 2 == 0 and place:
                place //= 2
                last //= 2
        else:
            new = node_hash(new, sibling)
        place //= 2
        last //= 2
    return last == 0 and old == old_root and new == new_root

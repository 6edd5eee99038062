"""A tree that grows by tiles, and proofs from tiles: RFC 6962 over C2SP tlog-tiles.

Pure: what is stored comes in through a function that reads a tile, and what is to be
stored goes out as values. A tree is known by its right edge: the hashes of the one
partial tile at each level, at most 255 of them a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aesp_proxy.record.merkle import EMPTY_ROOT, node_hash, root
from aesp_proxy.record.tlog.tile import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    edge_tiles,
    split_hashes,
    tile_at,
)

ReadTile = Callable[[Tile], bytes]
"""Gives the content of a tile, or of the full tile in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The right edge of a tree of ``size`` leaves, lowest level first."""

    size: int = 0
    levels: tuple[tuple[bytes, ...], ...] = ()

    @property
    def root(self) -> bytes:
        """The RFC 6962 root of the tree."""
        # A level's hashes are of full subtrees, and what is below them on the right is the
        # one incomplete subtree that follows: pairing and promoting gives the RFC's split.
        rest: list[bytes] = []
        for hashes in self.levels:
            nodes = [*hashes, *rest]
            rest = [root(nodes)] if nodes else []
        return rest[0] if rest else EMPTY_ROOT

    def tiles(self) -> list[tuple[Tile, tuple[bytes, ...]]]:
        """Give the partial tiles with their hashes."""
        return [(tile, self.levels[tile.level or 0]) for tile in edge_tiles(self.size)]


def load_edge(size: int, read: ReadTile) -> Edge:
    """Read the edge of a tree of ``size`` leaves from its tiles. InputError for a bad tile."""
    levels: list[tuple[bytes, ...]] = []
    while size >> TILE_HEIGHT * len(levels):
        levels.append(())
    for tile in edge_tiles(size):
        levels[tile.level or 0] = tuple(split_hashes(read(tile), tile.width))
    return Edge(size=size, levels=tuple(levels))


def grow(edge: Edge, leaves: Sequence[bytes]) -> tuple[Edge, list[tuple[Tile, tuple[bytes, ...]]]]:
    """Add leaf hashes: the new edge, and the full tiles that this completed, in order."""
    levels = [list(level) for level in edge.levels]
    full: list[tuple[Tile, tuple[bytes, ...]]] = []
    size = edge.size
    for leaf in leaves:
        size += 1
        _push(levels, 0, leaf, size, full)
    return Edge(size=size, levels=tuple(tuple(level) for level in levels)), full


def _push(
    levels: list[list[bytes]],
    level: int,
    node: bytes,
    size: int,
    full: list[tuple[Tile, tuple[bytes, ...]]],
) -> None:
    if level == len(levels):
        levels.append([])
    levels[level].append(node)
    if len(levels[level]) == TILE_WIDTH:
        hashes = tuple(levels[level])
        index = (size >> TILE_HEIGHT * (level + 1)) - 1
        full.append((Tile(level=level, index=index), hashes))
        levels[level].clear()
        _push(levels, level + 1, root(hashes), size, full)


@dataclass(slots=True, kw_only=True)
class TreeReader:
    """Hashes and proofs of one tree of ``size`` leaves; a tile is read once."""

    size: int
    read: ReadTile
    _seen: dict[Tile, list[bytes]] = field(default_factory=dict)

    def root(self) -> bytes:
        """Give the root over all leaves."""
        return self.root_of(self.size)

    def root_of(self, count: int) -> bytes:
        """Give the root over the first ``count`` leaves. InputError when there are fewer."""
        return self._range(0, count) if count else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Give the hash of one leaf. InputError when there is none."""
        return self._node(0, index)

    def inclusion(self, index: int) -> list[bytes]:
        """Give the audit path of a leaf (RFC 6962 section 2.1.1). IndexError for no leaf."""
        if not 0 <= index < self.size:
            raise IndexError(f"no leaf {index} in a tree of {self.size}")
        path: list[bytes] = []
        start, end = 0, self.size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old: int) -> list[bytes]:
        """Give the proof that the first ``old`` leaves are unchanged (section 2.1.2).

        Empty for no old leaves and for all of them; IndexError for more than there are.
        """
        if not 0 <= old <= self.size:
            raise IndexError(f"no tree of {old} leaves in one of {self.size}")
        if old in {0, self.size}:
            return []
        proof: list[bytes] = []
        start, end, whole = 0, self.size, True
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start, whole = middle, False
        if not whole:
            proof.append(self._range(start, end))
        return proof[::-1]

    def _range(self, start: int, end: int) -> bytes:
        length = end - start
        if length & (length - 1) == 0:
            height = length.bit_length() - 1
            return self._node(height, start >> height)
        middle = start + _split(length)
        return node_hash(self._range(start, middle), self._range(middle, end))

    def _node(self, height: int, index: int) -> bytes:
        """Give the hash of the full subtree ``index`` of 2^height leaves."""
        level, above = divmod(height, TILE_HEIGHT)
        first = index << above
        tile = tile_at(level, first // TILE_WIDTH, self.size)
        if tile not in self._seen:
            self._seen[tile] = split_hashes(self.read(tile), tile.width)
        at = first % TILE_WIDTH
        return root(self._seen[tile][at : at + (1 << above)])


def _split(count: int) -> int:
    """Give the largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1

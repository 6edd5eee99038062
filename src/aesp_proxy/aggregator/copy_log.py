"""Copy the files of a log from one object store into another, byte by byte.

The tiles first, then what was signed, then what is published: as the log itself writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aesp_proxy.aggregator.log.store import PREFIX, LogStore
from aesp_proxy.errors import RecordError
from aesp_proxy.record.tlog.policy import policy_of
from aesp_proxy.record.tlog.tile import TILE_HEIGHT, TILE_WIDTH, Tile, edge_tiles, tile_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aesp_proxy.aggregator.ports import ObjectStore
    from aesp_proxy.record.tlog.note import NoteKey

_AT_ONCE: Final = 64


def copy_log(source: ObjectStore, target: ObjectStore, log_keys: Sequence[NoteKey]) -> None:
    """Copy tiles, entries and both checkpoints; on return all are durable.

    TrustError for a checkpoint that our keys have not signed, RecordError for a missing tile.
    """
    theirs, policy = LogStore(source), policy_of(log_keys, [])
    signed, published = theirs.signed(), theirs.published()
    notes = [note for note in (signed, published) if note is not None]
    sizes = [policy.accept(note).checkpoint.size for note in notes]
    tiles = list(dict.fromkeys(tile for size in sizes for tile in _tiles(size)))
    for at in range(0, len(tiles), _AT_ONCE):
        some = [_read(source, tile) for tile in tiles[at : at + _AT_ONCE]]
        target.put_all(list(dict(some).items()))
    ours = LogStore(target)
    if signed is not None:
        ours.keep_signed(signed)
    if published is not None:
        ours.publish(published)


def _tiles(size: int) -> Iterator[Tile]:
    """Yield all tiles and bundles of a tree of ``size`` leaves."""
    for index in range(-(-size // TILE_WIDTH)):
        yield tile_at(None, index, size)
    level = 0
    while size >> TILE_HEIGHT * level:
        for index in range((size >> TILE_HEIGHT * level) // TILE_WIDTH):
            yield Tile(level=level, index=index)
        level += 1
    yield from edge_tiles(size)


def _read(source: ObjectStore, tile: Tile) -> tuple[str, bytes]:
    """Return a tile with its key, or the full one in its place."""
    for one in dict.fromkeys((tile, tile.whole)):
        content = source.find(PREFIX + one.path)
        if content is not None:
            return PREFIX + one.path, content
    raise RecordError("is not there", where=PREFIX + tile.path, remedy="restore the log")

"""Puts accepted batches into the log: leaves, tiles, a signed checkpoint, in this order.

One leaf a batch: its header and the signature of its host over it, as they came, in the
ledger's order. Rules: a checkpoint is signed only when all that it is proved by is durable;
it is kept durably before anyone is shown it, a witness included; at the start, the newest
one that was ever signed is proved again from the tiles and held against the ledger, and on
any contradiction nothing is signed any more: there are never two checkpoints of one size
with different roots. After an error nothing in memory is trusted: start again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.merkle import leaf_hash, leaf_hashes
from aesp_proxy.record.signature import SIGNATURE_BYTES
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import Note, verify_note
from aesp_proxy.record.tlog.tile import (
    TILE_WIDTH,
    Tile,
    join_entries,
    join_hashes,
    split_entries,
    tile_at,
)
from aesp_proxy.record.tlog.tree import Edge, TreeReader, grow, load_edge

if TYPE_CHECKING:
    from aesp_proxy.aggregator.log.keys import LogKeys
    from aesp_proxy.aggregator.log.store import LogStore
    from aesp_proxy.aggregator.ports import BatchPlace, BatchSource, SignedHeader

STEP_LEAVES_MAX: Final = 4096


def leaf_of(signed: SignedHeader) -> bytes:
    """Return what the log holds of a batch: its header, then its host's signature."""
    return signed.header + signed.signature


def header_of(leaf: bytes) -> bytes:
    """Return the header in a leaf."""
    return leaf[:-SIGNATURE_BYTES]


def place_of(leaf: bytes, ledger: BatchSource) -> BatchPlace:
    """Find the batch of a leaf in the ledger. TrustError when it is not there as it was."""
    header = decode_header(header_of(leaf))
    place = ledger.find(header.origin, header.batch_no)
    if place is None or place.header_hash != header_hash(header_of(leaf)):
        raise TrustError(
            f"the log holds batch {header.batch_no} of {header.origin}, the ledger does not",
            remedy="restore the ledger; nothing is signed until then",
        )
    return place


@dataclass(slots=True, kw_only=True)
class Integrator:
    """Writes one log; :meth:`start` first. The caller holds the log's lock."""

    ledger: BatchSource
    store: LogStore
    keys: LogKeys
    _edge: Edge = field(default_factory=Edge)
    _entries: list[bytes] = field(default_factory=list)
    _position: int = 0
    _partial: dict[tuple[int | None, int], set[int]] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint that is signed and kept."""
        return Checkpoint(origin=self.keys.origin, size=self._edge.size, root=self._edge.root)

    @property
    def note(self) -> Note:
        """That checkpoint, signed by every key."""
        return self.keys.sign(self.checkpoint.text)

    def start(self) -> None:
        """Load what is stored and prove it. TrustError when it contradicts what was signed."""
        kept = self.store.signed()
        signed, published = self._stored(kept), self._stored(self.store.published())
        newest = max(signed, published, key=lambda checkpoint: checkpoint.size)
        self._edge = self._edge_of(newest)
        tree = TreeReader(size=newest.size, read=self.store.read)
        for checkpoint in (signed, published):
            if _root_of(tree, checkpoint.size) != checkpoint.root:
                raise TrustError(
                    f"two histories: the tiles are not those that {checkpoint.size} were signed of"
                )
        self._load_entries(newest.size)
        if kept != self.note:  # another key signs now, or a crash came between the two
            self.store.keep_signed(self.note)

    def step(self) -> bool:
        """Put at most 4,096 more batches into the log; whether there were any."""
        found = self.ledger.headers_after(self._position, limit=STEP_LEAVES_MAX)
        if not found:
            return False
        leaves = [leaf_of(signed) for signed in found]
        edge, full = grow(self._edge, leaf_hashes(leaves))
        tiles = [(tile, join_hashes(hashes)) for tile, hashes in [*full, *edge.tiles()]]
        entries = [*self._entries, *leaves]
        bundles, entries = _bundles(self._edge.size // TILE_WIDTH, entries)
        self.store.put([*tiles, *bundles])
        self._edge, self._entries, self._position = edge, entries, found[-1].place.position
        self.store.keep_signed(self.note)
        self._tidy([tile for tile, _ in [*tiles, *bundles]])
        return True

    def _stored(self, note: Note | None) -> Checkpoint:
        if note is None:
            return Checkpoint(origin=self.keys.origin, size=0, root=Edge().root)
        try:
            checkpoint = parse_checkpoint(note.text)
        except InputError as error:
            raise TrustError(f"the stored checkpoint is none: {error.message}") from error
        if checkpoint.origin != self.keys.origin or not verify_note(note, self.keys.public):
            raise TrustError("the stored checkpoint is not signed by this log's key")
        return checkpoint

    def _edge_of(self, checkpoint: Checkpoint) -> Edge:
        try:
            return load_edge(checkpoint.size, self.store.read)
        except InputError as error:
            raise TrustError(f"a tile of the log is damaged: {error.message}") from error

    def _load_entries(self, size: int) -> None:
        if not size:
            return
        index = (size - 1) // TILE_WIDTH
        bundle, hashes = tile_at(None, index, size), tile_at(0, index, size)
        try:
            entries = split_entries(self.store.read(bundle), bundle.width)
        except InputError as error:
            raise TrustError(f"a bundle of the log is damaged: {error.message}") from error
        known = self.store.read(hashes)[: 32 * hashes.width]
        if b"".join(map(leaf_hash, entries)) != known:
            raise TrustError("the last entries of the log are not those of its tiles")
        self._position = place_of(entries[-1], self.ledger).position
        self._entries = [] if bundle.width == TILE_WIDTH else entries
        # Which partial tiles an earlier process has left is not known: all that could be,
        # but for a store where looking costs more than a few of them do.
        for tile in [*(tile for tile, _ in self._edge.tiles()), bundle]:
            widths = {tile.width} if self.store.is_shared else set(range(1, TILE_WIDTH))
            self._partial[tile.level, tile.index] = widths

    def _tidy(self, written: list[Tile]) -> None:
        for tile in written:
            if tile.width < TILE_WIDTH:
                self._partial.setdefault((tile.level, tile.index), set()).add(tile.width)
            elif widths := self._partial.pop((tile.level, tile.index), None):
                self.store.drop_partial(tile, sorted(widths))


def _bundles(index: int, entries: list[bytes]) -> tuple[list[tuple[Tile, bytes]], list[bytes]]:
    """Give the bundles from ``index`` on, and the entries of the last where it is partial."""
    bundles = []
    while len(entries) >= TILE_WIDTH:
        bundles.append((Tile(level=None, index=index), join_entries(entries[:TILE_WIDTH])))
        entries, index = entries[TILE_WIDTH:], index + 1
    if entries:
        tile = Tile(level=None, index=index, width=len(entries))
        bundles.append((tile, join_entries(entries)))
    return bundles, entries


def _root_of(tree: TreeReader, count: int) -> bytes:
    try:
        return tree.root_of(count)
    except InputError as error:
        raise TrustError(f"a tile of the log is damaged: {error.message}") from error

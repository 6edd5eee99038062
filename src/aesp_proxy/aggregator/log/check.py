"""Checks a whole log: every entry, every tile, both checkpoints, and the ledger beside it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aesp_proxy.aggregator.log.integrate import leaf_of
from aesp_proxy.aggregator.log.keys import load_log_keys
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.stores import open_ledger_reader, open_objects
from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.merkle import leaf_hashes
from aesp_proxy.record.tlog.checkpoint import Checkpoint
from aesp_proxy.record.tlog.policy import policy_of
from aesp_proxy.record.tlog.tile import TILE_WIDTH, join_hashes, split_entries, tile_at
from aesp_proxy.record.tlog.tree import Edge, grow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.ports import BatchSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """What was proved: the signed and the published checkpoint, and what waits to be logged."""

    signed: Checkpoint
    published: Checkpoint
    not_logged: int


def check_log(data: DataDir) -> LogReport:
    """Prove the log of a data directory from its first entry on.

    TrustError names what contradicts; RecordError what cannot be read.
    """
    keys = load_log_keys(data)
    policy = policy_of(keys.public, [])
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        store = LogStore(objects)
        nothing = Checkpoint(origin=keys.origin, size=0, root=Edge().root)
        # Published first: what is signed meanwhile is never less.
        published, signed = (
            policy.accept(note).checkpoint if note else nothing
            for note in (store.published(), store.signed())
        )
        roots = _proved(store, ledger, signed.size, {signed.size, published.size})
        for checkpoint in (signed, published):
            if roots.get(checkpoint.size) != checkpoint.root:
                raise TrustError(f"the checkpoint of {checkpoint.size} is not of these entries")
        last = ledger.last_position()
        logged = _position_of(ledger, signed.size)
        return LogReport(signed=signed, published=published, not_logged=max(0, last - logged))


def _proved(store: LogStore, ledger: BatchSource, size: int, wanted: set[int]) -> dict[int, bytes]:
    """Read everything; give the root at each wanted size."""
    edge, roots = Edge(), {0: Edge().root}
    batches = _leaves(ledger)
    for first in range(0, size, TILE_WIDTH):
        entries = _entries(store, first // TILE_WIDTH, size)
        for number, entry in enumerate(entries, first):
            if entry != next(batches, None):
                raise TrustError(f"entry {number} of the log is not that batch of the ledger")
        hashes = leaf_hashes(entries)
        for cut in sorted(w for w in wanted if first < w <= first + len(entries)):
            roots[cut] = grow(edge, hashes[: cut - first])[0].root
        edge, full = grow(edge, hashes)
        for tile, nodes in [*full, *(edge.tiles() if first + TILE_WIDTH >= size else [])]:
            if store.read(tile)[: 32 * tile.width] != join_hashes(nodes):
                raise TrustError(f"{tile.path} is not of the entries below it")
    return roots


def _entries(store: LogStore, index: int, size: int) -> list[bytes]:
    tile = tile_at(None, index, size)
    try:
        return split_entries(store.read(tile), tile.width)
    except InputError as error:
        raise TrustError(f"{tile.path}: {error.message}") from error


def _leaves(ledger: BatchSource) -> Iterator[bytes]:
    position = 0
    while found := ledger.headers_after(position, limit=1024):
        position = found[-1].place.position
        yield from map(leaf_of, found)


def _position_of(ledger: BatchSource, count: int) -> int:
    """Return the position of the batch that is number ``count``, from one on."""
    position = 0
    while count:
        found = ledger.after(position, limit=min(count, 1024))
        if not found:
            break
        position, count = found[-1].position, count - len(found)
    return position

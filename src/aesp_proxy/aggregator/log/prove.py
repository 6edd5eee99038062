"""Proofs from the published log: that it holds a batch, and that it only ever grew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aesp_proxy.aggregator.log.integrate import leaf_of, place_of
from aesp_proxy.errors import InputError, TrustError, UnavailableError
from aesp_proxy.record.tlog.checkpoint import parse_checkpoint
from aesp_proxy.record.tlog.note import to_base64
from aesp_proxy.record.tlog.proof import LogProof
from aesp_proxy.record.tlog.tile import TILE_WIDTH, split_entries, tile_at
from aesp_proxy.record.tlog.tree import TreeReader

if TYPE_CHECKING:
    from aesp_proxy.aggregator.log.store import LogStore
    from aesp_proxy.aggregator.ports import BatchPlace, BatchSource


class LogProver:
    """Proves against one checkpoint: the one that was published when it was made."""

    def __init__(self, ledger: BatchSource, store: LogStore) -> None:
        note = store.published()
        if note is None:
            raise UnavailableError("the log has no checkpoint yet", remedy="try again later")
        self.note = note
        self.size = parse_checkpoint(note.text).size
        self._ledger, self._store = ledger, store
        self._tree = TreeReader(size=self.size, read=store.read)
        self._bundles: dict[int, list[bytes]] = {}

    def entry(self, index: int) -> bytes:
        """Return one entry: a batch's header and its signature."""
        number, at = divmod(index, TILE_WIDTH)
        if number not in self._bundles:
            tile = tile_at(None, number, self.size)
            try:
                self._bundles[number] = split_entries(self._store.read(tile), tile.width)
            except InputError as error:
                raise TrustError(f"{tile.path} of the log is damaged: {error.message}") from error
        return self._bundles[number][at]

    def index_of(self, place: BatchPlace) -> int | None:
        """Return a batch's number in the log, None when it came after the checkpoint.

        TrustError when the log has left it out.
        """
        low, high = 0, self.size - 1
        # Positions count from one and may have gaps, so this is a good guess and never too low.
        middle = min(place.position - 1, high)
        while low <= high:
            found = place_of(self.entry(middle), self._ledger)
            if found.position == place.position:
                return middle
            if found.position < place.position:
                low = middle + 1
            else:
                high = middle - 1
            middle = (low + high) // 2
        if low == self.size:
            return None
        raise TrustError(f"the log has left out batch {place.batch_no} of {place.origin}")

    def inclusion(self, place: BatchPlace) -> LogProof | None:
        """Prove that the log holds a batch; None when it came after the checkpoint."""
        index = self.index_of(place)
        if index is None:
            return None
        try:
            path = tuple(self._tree.inclusion(index))
        except InputError as error:
            raise TrustError(f"a tile of the log is damaged: {error.message}") from error
        return LogProof(index=index, path=path, note=self.note)

    def consistency(self, old_size: int) -> list[bytes]:
        """Prove that the log still begins as it did. InputError when it is shorter than that."""
        try:
            return self._tree.consistency(old_size)
        except IndexError as error:
            raise InputError(f"the log has {self.size} entries", where="since") from error

    def leaf(self, place: BatchPlace) -> bytes:
        """Return what the log should hold of a batch, from the ledger."""
        (signed,) = self._ledger.headers_after(place.position - 1, limit=1)
        return leaf_of(signed)


def watch_answer(
    prover: LogProver, place: BatchPlace | None, since: int, key_list: bytes
) -> dict[str, Any]:
    """Return what a host needs to watch the log: checkpoint, growth, its batch, the keys."""
    proof = prover.inclusion(place) if place else None
    # A log that is shorter than what the asker has seen has no such proof.
    consistency = prover.consistency(since) if since <= prover.size else []
    return {
        "checkpoint": prover.note.encode().decode(),
        "consistency": [to_base64(node) for node in consistency],
        "proof": proof.encode().decode() if proof else None,
        "keys": key_list.decode(),
    }

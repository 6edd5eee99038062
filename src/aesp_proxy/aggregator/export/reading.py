"""Read stored batches as events, from any place, a bounded number at a time.

Rules: a batch is checked against the hash that was receipted before anything of it
is said; one that cannot be read is told as such and never passed over in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aesp_proxy.aggregator.export.event import ExportEvent, Sealing
from aesp_proxy.aggregator.indexing import stored_rows
from aesp_proxy.errors import AespError, UnavailableError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.canonical import decode
from aesp_proxy.record.merkle import inclusion_path, leaf_hashes, levels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aesp_proxy.aggregator.ports import BatchPlace, BatchSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A batch, or one row of it, that cannot be said, and why; ``row`` -1 is all of it."""

    place: BatchPlace
    row: int
    reason: str


class BatchReader:
    """Gives the events of stored batches; keeps the last batch it has opened."""

    def __init__(self, source: BatchSource, *, region: str = "", proofs: bool = False) -> None:
        self._source = source
        self._region = region
        self._proofs = proofs
        self._place: BatchPlace | None = None
        self._rows: list[bytes] = []
        self._tree: list[Sequence[bytes]] = []
        self._envelope = (b"", b"")

    def events(self, place: BatchPlace, first_row: int) -> Iterator[ExportEvent | Unreadable]:
        """Yield the events of a batch from ``first_row`` on.

        UnavailableError when the store cannot give it now, which says nothing of the batch.
        """
        try:
            self._open(place)
        except UnavailableError:
            raise
        except AespError as error:
            yield Unreadable(place=place, row=-1, reason=str(error))
            return
        for row in range(first_row, len(self._rows)):
            try:
                yield self._event(place, row)
            except AespError as error:
                yield Unreadable(place=place, row=row, reason=str(error))

    def event(self, place: BatchPlace, row: int) -> ExportEvent:
        """Return one event of a batch. ChainError, RecordError or InputError when unreadable."""
        self._open(place)
        return self._event(place, row)

    def _open(self, place: BatchPlace) -> None:
        if self._place is not None and self._place.position == place.position:
            return
        self._place = None
        self._rows = stored_rows(self._source, place)
        if self._proofs:
            sealed = decode_batch(self._source.read(place))
            self._envelope = (sealed.header_bytes, sealed.signature)
            self._tree = levels(leaf_hashes(self._rows))
        self._place = place

    def _event(self, place: BatchPlace, row: int) -> ExportEvent:
        record_id, record = decode(self._rows[row])
        return ExportEvent(
            record=record,
            record_id=record_id,
            batch_no=place.batch_no,
            position=place.position,
            row=row,
            region=self._region,
            sealing=self._sealing(row) if self._proofs else None,
        )

    def _sealing(self, row: int) -> Sealing:
        return Sealing(
            header=self._envelope[0],
            signature=self._envelope[1],
            leaf_index=row,
            tree_size=len(self._rows),
            path=tuple(inclusion_path(self._tree, row)),
            row=self._rows[row],
        )


def first_position_since(source: BatchSource, time_ns: int) -> int:
    """Return the position before the first batch received at or after ``time_ns``.

    Batches are received in order of position, so this is a binary search; where the
    aggregator's clock was turned back it may begin too early, never too late.
    """
    low, high = 0, source.last_position()
    while low < high:
        middle = (low + high) // 2
        place = _next(source, middle)
        if place is None or place.received_ns >= time_ns:
            high = middle
        else:
            low = place.position
    return low


def _next(source: BatchSource, position: int) -> BatchPlace | None:
    places = source.after(position, limit=1)
    return places[0] if places else None

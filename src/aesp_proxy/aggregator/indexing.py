"""Bring the index up to the ledger: the one loop that reads batches and adds rows.

Rules: the index never holds what the ledger does not; each batch is checked
against the header hash that was receipted before it is read; a batch that
cannot be read is passed over loudly and comes with the next rebuild, so one bad
file does not stop the search for everything after it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import ormsgpack
import structlog

from aesp_proxy.errors import AespError, UnavailableError
from aesp_proxy.record.batch import Limits, SealedBatch, decode_batch, open_body
from aesp_proxy.record.canonical import decode
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.header import BatchHeader, decode_header, header_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aesp_proxy.aggregator.ports import BatchPlace, BatchSource, EventIndex, EventRow
    from aesp_proxy.model.record import Record

ROUND_BATCHES_MAX: Final = 32

log = structlog.get_logger(__name__)


def catch_up(
    ledger: BatchSource, index: EventIndex, *, stop: Callable[[], bool] = lambda: False
) -> int:
    """Index every batch not yet indexed, a few at a time; return how many rows were added."""
    added = 0
    while not stop():
        places = ledger.after(index.position(), limit=ROUND_BATCHES_MAX)
        if not places:
            break
        # One after the other: the rows of one batch fit into the processor's cache, of 32 not.
        added += index.add((place, readable_rows(ledger, place)) for place in places)
    return added


def readable_rows(ledger: BatchSource, place: BatchPlace) -> list[list[Any]]:
    """Return the rows of a stored batch in ``FIELDS`` order; none, loudly, when unreadable.

    UnavailableError when that cannot be said now: the batch is then not passed over.
    """
    try:
        return [ormsgpack.unpackb(row) for row in stored_rows(ledger, place)]
    except UnavailableError:
        raise
    except (AespError, ormsgpack.MsgpackDecodeError) as error:
        log.critical("batch_not_indexed", key=place.key, error=str(error))
        return []


def stored_rows(ledger: BatchSource, place: BatchPlace) -> list[bytes]:
    """Return the canonical rows of a stored batch; errors as :func:`stored_batch`."""
    limits = Limits()
    _, sealed, header = stored_batch(ledger, place)
    return open_body(
        header,
        sealed.body,
        inflated_bytes_max=limits.inflated_bytes_max,
        rows_max=limits.rows_max,
    )


def stored_batch(ledger: BatchSource, place: BatchPlace) -> tuple[bytes, SealedBatch, BatchHeader]:
    """Return a stored batch: its bytes as they came, what is in them, its header.

    ChainError when the file is not the batch that was accepted: its rows were
    checked then, so its hashes are enough now.
    """
    content = ledger.read(place)
    sealed = decode_batch(content, bytes_max=Limits().batch_bytes_max)
    header = decode_header(sealed.header_bytes)
    if header_hash(sealed.header_bytes) != place.header_hash:
        raise ChainError(
            Fault.CHANGED, "the stored header is not the accepted one", where=place.key
        )
    if sha256(sealed.body).digest() != header.body_hash:
        raise ChainError(Fault.CHANGED, "the stored body is not the accepted one", where=place.key)
    return content, sealed, header


def full_records(ledger: BatchSource, events: list[EventRow]) -> Iterator[Record | None]:
    """Yield the whole record of each event, None where the ledger cannot give it.

    Events of one batch stand together on a page more often than not, so the
    last batch read is kept. UnavailableError when the batches cannot be asked now.
    """
    place: BatchPlace | None = None
    rows: list[bytes] = []
    for event in events:
        found = ledger.holding(event.origin, event.epoch, event.seq)
        if found is None:
            yield None
            continue
        if place is None or found.position != place.position:
            place = found
            try:
                rows = stored_rows(ledger, found)
            except UnavailableError:
                raise
            except AespError as error:
                log.critical("batch_not_read", key=found.key, error=str(error))
                rows = []
        at = event.seq - found.first_seq
        yield decode(rows[at])[1] if at < len(rows) else None

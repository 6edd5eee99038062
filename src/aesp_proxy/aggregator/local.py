"""Ask the stores of a data directory directly, with or without a server beside.

When the index is behind the ledger and nobody is indexing, the asker brings it
up himself; when a server is, the asker waits a little for it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.identity import DataDir, FileLock
from aesp_proxy.aggregator.index_socket import NobodyAnswersError
from aesp_proxy.aggregator.indexing import catch_up, full_records
from aesp_proxy.aggregator.ports import Evidence, Identity, NotedBatch, Origin, Refusals, Role
from aesp_proxy.aggregator.query import event_json, next_cursor
from aesp_proxy.aggregator.record_match import RecordMatch
from aesp_proxy.aggregator.stores import (
    answer_for,
    drop_index,
    index_position,
    open_control,
    open_index,
    open_index_reader,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aesp_proxy.aggregator.ports import (
        BatchSource,
        EventCount,
        EventQuery,
        EventRow,
        ObjectStore,
    )

CATCH_UP_S_MAX: Final = 5.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginReport:
    """What is known of one origin."""

    origin: Origin
    last_batch: int
    last_received_ns: int | None
    batches: int
    records: int
    stored_bytes: int
    certificate_ends_ns: int | None
    notices: list[NotedBatch]
    refusals: list[Refusals]
    evidence: list[Evidence]


class StoreSearch:
    """Questions to index and ledger; opens both anew each time, so any thread may ask."""

    def __init__(self, data: DataDir, objects: ObjectStore, *, query_s_max: float) -> None:
        self._data = data
        self._objects = objects
        self._query_s_max = query_s_max

    def find(
        self, query: EventQuery, *, full: bool
    ) -> tuple[list[dict[str, Any]], str | None, int]:
        """Return events as JSON, the next cursor, and how many batches are not indexed yet."""
        end_s = time.monotonic() + self._query_s_max
        with ExitStack() as stack:
            index = open_index_reader(
                self._data,
                expired=lambda: time.monotonic() > end_s,
                query_s_max=self._query_s_max,
            )
            stack.callback(index.close)
            ledger = open_ledger_reader(self._data, self._objects)
            stack.callback(ledger.close)
            behind = ledger.last_position() - index.position()
            rows = index.find(query, _keep(ledger, query, end_s))
            if full:
                records = full_records(ledger, rows)
                shown = [event_json(*pair) for pair in zip(rows, records, strict=True)]
            else:
                shown = [event_json(row) for row in rows]
        return shown, next_cursor(query, rows), behind

    def count(self, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
        """Return how many matching events there are by ``by``, most first."""
        end_s = time.monotonic() + self._query_s_max
        index = open_index_reader(
            self._data,
            expired=lambda: time.monotonic() > end_s,
            query_s_max=self._query_s_max,
        )
        try:
            return index.count(query, by)
        finally:
            index.close()

    def behind(self) -> int | None:
        """Return how many batches are stored and not indexed yet, None when nobody can say."""
        with ExitStack() as stack, suppress(NobodyAnswersError):
            ledger = open_ledger_reader(self._data, self._objects)
            stack.callback(ledger.close)
            index = open_index_reader(self._data)
            stack.callback(index.close)
            return ledger.last_position() - index.position()
        return None


@contextmanager
def open_search(data: DataDir) -> Iterator[StoreSearch]:
    """Give a way to ask the stores; bring the index up first where that can be."""
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        _bring_up(data, ledger, stack)
        yield StoreSearch(data, objects, query_s_max=60.0)


def find_events(
    data: DataDir, query: EventQuery, *, full: bool
) -> tuple[list[dict[str, Any]], str | None, int]:
    """Answer a question from the stores, as :func:`open_search` does."""
    with open_search(data) as search:
        return search.find(query, full=full)


def count_events(data: DataDir, query: EventQuery, by: tuple[str, ...]) -> list[EventCount]:
    """Count events from the stores, as :func:`open_search` does."""
    with open_search(data) as search:
        return search.count(query, by)


def _keep(
    ledger: BatchSource, query: EventQuery, end_s: float
) -> Callable[[EventRow], bool] | None:
    """Return the question to the record of a row, None when the index alone can answer."""
    if not (query.path or query.rule):
        return None
    records = RecordMatch(ledger, query)

    def keep(row: EventRow) -> bool:
        if time.monotonic() > end_s:
            raise UnavailableError(
                "the question took too long", remedy="narrow it in time or agent"
            )
        return records.holds(row)

    return keep


def rebuild_index(data: DataDir) -> int:
    """Throw the index away and build it from the ledger; return how many rows it has.

    UnavailableError while a server indexes.
    """
    lock = FileLock(data.index_lock)
    if not lock.take():
        raise UnavailableError(
            "is being indexed", where=str(data.index), remedy="stop the aggregator first"
        )
    with ExitStack() as stack:
        stack.callback(lock.release)
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        drop_index(data)
        index = open_index(data)
        stack.callback(index.close)
        return catch_up(ledger, index)


def origin_reports(data: DataDir) -> list[OriginReport]:
    """Return what is known of every enrolled origin."""
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        control = open_control(data)
        stack.callback(control.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        reports = []
        for origin in control.origins():
            last = ledger.last_batch(origin.name)
            batches, records, stored_bytes = ledger.totals(origin.name)
            certificate = control.certificate(Identity(role=Role.HOST, name=origin.name))
            reports.append(
                OriginReport(
                    origin=origin,
                    last_batch=last.batch_no if last else 0,
                    last_received_ns=last.received_ns if last else None,
                    batches=batches,
                    records=records,
                    stored_bytes=stored_bytes,
                    certificate_ends_ns=certificate.not_after_ns if certificate else None,
                    notices=ledger.notices(origin.name),
                    refusals=control.refusals(origin.name),
                    evidence=control.evidence(origin.name),
                )
            )
        return reports


def _bring_up(data: DataDir, ledger: BatchSource, asking: ExitStack) -> None:
    """Index what is not, unless another does.

    Where only one process may open the index, answer for it as long as ``asking`` is open.
    """
    end_s = time.monotonic() + CATCH_UP_S_MAX
    while index_position(data) < ledger.last_position():
        lock = FileLock(data.index_lock)
        if lock.take():
            with ExitStack() as stack:
                stack.callback(lock.release)
                index = open_index(data)
                stack.callback(index.close)
                catch_up(ledger, index)
                service = answer_for(data, index)
                if service is not None:
                    stack.callback(service.close)
                    asking.push(stack.pop_all())
            return
        if time.monotonic() > end_s:
            return  # the answer says how far behind it is
        time.sleep(POLL_S)

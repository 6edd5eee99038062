"""Figures of the aggregator in Prometheus' text form; ``docs/metrics.md`` names them.

What happens is counted where it happens (:class:`Meter`, by the writer's thread); what
stands is read from the stores when it is asked for. No label holds a value of a peer:
only words of closed sets, and names that the operator gave.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from aesp_proxy import __version__
from aesp_proxy.aggregator.log.status import LogStatus, read_log_status
from aesp_proxy.aggregator.stores import (
    has_exports,
    open_control,
    open_exports,
    open_index_reader,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.store.exports import Exports

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Seconds:
    """How often something took how long; its user has the lock."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._seconds = 0.0

    def took(self, seconds: float) -> None:
        self._buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds += seconds

    def family(self) -> HistogramMetricFamily:
        total, shown = 0, []
        for bound, number in zip((*map(str, BOUNDS_S), "+Inf"), self._buckets, strict=True):
            total += number
            shown.append((bound, total))
        return HistogramMetricFamily(self._name, self._text, buckets=shown, sum_value=self._seconds)


class Meter:
    """Counts what the writer does; any thread writes, any reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._failed: Counter[str] = Counter(dict.fromkeys(("put", "get", "remove"), 0))
        self._groups = _Seconds(
            "aesp_aggregator_group_seconds", "Time to judge, store and answer a group of batches."
        )
        self._puts = _Seconds(
            "aesp_aggregator_object_put_seconds", "Time to make a group of objects durable."
        )

    def accepted(self, *, batches: int, records: int, size_bytes: int) -> None:
        """Count what was stored."""
        with self._lock:
            self._counts["batches"] += batches
            self._counts["records"] += records
            self._counts["bytes"] += size_bytes

    def count(self, what: str, number: int = 1) -> None:
        """Count ``receipts``, ``duplicates`` or ``store_failures``."""
        with self._lock:
            self._counts[what] += number

    def refused(self, kind: str) -> None:
        """Count one refused batch by a word of ``ingest.Refusal``."""
        with self._lock:
            self._refused[kind] += 1

    def served(self, seconds: float) -> None:
        """Count one group: judged, stored and answered in so many seconds."""
        with self._lock:
            self._groups.took(seconds)

    def objects_put(self, seconds: float) -> None:
        """Count one group of objects, stored in so many seconds."""
        with self._lock:
            self._puts.took(seconds)

    def objects_failed(self, operation: str) -> None:
        """Count one ``put``, ``get`` or ``remove`` that the object store did not do."""
        with self._lock:
            self._failed[operation] += 1

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        with self._lock:
            counts, refused = Counter(self._counts), dict(self._refused)
            failed, families = dict(self._failed), [self._groups.family(), self._puts.family()]
        for what, name, text in _COUNTED:
            yield CounterMetricFamily(name, text, value=counts[what])
        family = CounterMetricFamily(
            "aesp_aggregator_batches_refused", "Batches refused, by reason.", labels=["reason"]
        )
        for kind, number in sorted(refused.items()):
            family.add_metric([kind], number)
        yield family
        family = CounterMetricFamily(
            "aesp_aggregator_object_failures",
            "What the object store did not do.",
            labels=["operation"],
        )
        for operation, number in sorted(failed.items()):
            family.add_metric([operation], number)
        yield family
        yield from families


_COUNTED: Final = (
    ("batches", "aesp_aggregator_batches_accepted", "Batches stored."),
    ("records", "aesp_aggregator_records_accepted", "Records stored."),
    ("bytes", "aesp_aggregator_batch_bytes_accepted", "Bytes of batches stored, as they came."),
    ("duplicates", "aesp_aggregator_batches_duplicate", "Batches that were stored before."),
    ("receipts", "aesp_aggregator_receipts", "Receipts signed."),
    ("store_failures", "aesp_aggregator_store_failures", "Groups that could not be stored."),
)
_SINKS: Final = (
    ("delivered", CounterMetricFamily, "aesp_export_delivered", "Events a sink has taken."),
    ("refused", CounterMetricFamily, "aesp_export_refused", "Events a sink has refused."),
    ("failures", CounterMetricFamily, "aesp_export_failures", "Deliveries that failed."),
    ("failing", GaugeMetricFamily, "aesp_export_failing", "Failures since the last success."),
    ("dropped", CounterMetricFamily, "aesp_export_dropped", "Dead letters thrown away."),
)


class Standings(Collector):
    """What stands in the stores, read at each scrape."""

    def __init__(self, data: DataDir, meter: Meter) -> None:
        self._data = data
        self._meter = meter

    def collect(self) -> Iterator[Any]:
        """Yield all families; those of a store that cannot be read are left out."""
        info = GaugeMetricFamily("aesp_build_info", "1, with the version.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield from self._meter.collect()
        readable = GaugeMetricFamily("aesp_aggregator_stores_readable", "1 when all could be read.")
        try:
            with ExitStack() as stack:
                found = [*self._stores(stack)]
        except AespError:
            found = []
        readable.add_metric([], 1 if found else 0)
        yield readable
        yield from found

    def _stores(self, stack: ExitStack) -> Iterator[Any]:
        objects = open_objects(self._data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(self._data, objects)
        stack.callback(ledger.close)
        last = ledger.last_position()
        yield GaugeMetricFamily("aesp_aggregator_log_batches", "Batches ever stored.", value=last)
        index = open_index_reader(self._data)
        stack.callback(index.close)
        yield GaugeMetricFamily(
            "aesp_aggregator_index_behind_batches",
            "Batches stored and not indexed yet.",
            value=last - index.position(),
        )
        control = open_control(self._data)
        stack.callback(control.close)
        origins = control.origins()
        enrolled = GaugeMetricFamily(
            "aesp_aggregator_origins", "Enrolled hosts, by state.", labels=["state"]
        )
        shut_out = sum(origin.quarantined_ns is not None for origin in origins)
        enrolled.add_metric(["in_quarantine"], shut_out)
        enrolled.add_metric(["open"], len(origins) - shut_out)
        yield enrolled
        yield from _log(read_log_status(self._data))
        if has_exports(self._data):
            exports = open_exports(self._data)
            stack.callback(exports.close)
            yield from _sinks(exports, last)


def _log(said: LogStatus) -> Iterator[Any]:
    """Yield how the transparency log is, as the process that writes it last said."""
    for name, text, value in (
        ("aesp_tlog_size", "Entries of the transparency log.", said.size),
        ("aesp_tlog_published", "Entries of its published checkpoint.", said.published),
        ("aesp_tlog_alarm", "1 when it is not signed or not published.", int(bool(said.alarm))),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    cosigned = GaugeMetricFamily(
        "aesp_tlog_witness_cosigned", "Entries a witness has cosigned.", labels=["witness"]
    )
    failing = GaugeMetricFamily(
        "aesp_tlog_witness_failing", "1 when it did not cosign the last time.", labels=["witness"]
    )
    for name, size, error in said.witnesses:
        cosigned.add_metric([name], size)
        failing.add_metric([name], int(bool(error)))
    yield from (cosigned, failing)


def _sinks(exports: Exports, last: int) -> Iterator[Any]:
    names = exports.names()
    healths = [exports.health(name) for name in names]
    for field, family_of, metric, text in _SINKS:
        family = family_of(metric, text, labels=["sink"])
        for health in healths:
            family.add_metric([health.sink], getattr(health, field))
        yield family
    behind = GaugeMetricFamily(
        "aesp_export_behind_batches", "Batches stored and not delivered yet.", labels=["sink"]
    )
    dead = GaugeMetricFamily(
        "aesp_export_dead_letters", "Refused events that are kept.", labels=["sink"]
    )
    since = GaugeMetricFamily(
        "aesp_export_last_delivered_timestamp_seconds", "Last delivery, UTC.", labels=["sink"]
    )
    stopped = GaugeMetricFamily(
        "aesp_export_stopped", "1 when no more dead letters may be kept.", labels=["sink"]
    )
    for health in healths:
        stopped.add_metric([health.sink], int(bool(health.stopped_ns)))
        cursor = exports.cursor(health.sink)
        behind.add_metric([health.sink], last - (cursor.position if cursor else 0))
        dead.add_metric([health.sink], exports.dead_count(health.sink))
        since.add_metric([health.sink], health.last_delivered_ns / 1e9)
    yield from (behind, dead, stopped, since)


def metrics_text(data: DataDir, meter: Meter) -> bytes:
    """Return all figures in the text form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Standings(data, meter))
    return generate_latest(registry)

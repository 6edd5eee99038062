"""The service's figures in Prometheus' text form, made of what its status says.

``docs/metrics.md`` names them. Whoever may ask for the status may ask for these; labels
hold words of closed sets and numbers of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from aesp_proxy.daemon.service.file_metrics import file_families
from aesp_proxy.daemon.tally import APPEND_BOUNDS_US, BOUNDS_US

_WORKER: Final = (
    ("ready", GaugeMetricFamily, "aesp_worker_ready", "1 when it accepts."),
    ("restarts", CounterMetricFamily, "aesp_worker_restarts", "Times it was started again."),
    ("serial", GaugeMetricFamily, "aesp_policy_serial", "Serial of the policy it decides by."),
    ("connections", GaugeMetricFamily, "aesp_connections", "Client connections now."),
)


class StatusFigures(Collector):
    """The families of one status."""

    def __init__(self, said: Mapping[str, Any], *, now_s: float) -> None:
        self._said = said
        self._now_s = now_s

    def collect(self) -> Iterator[Any]:
        """Yield them."""
        said = self._said
        info = GaugeMetricFamily("aesp_build_info", "1, with the version.", labels=["version"])
        info.add_metric([said["version"]], 1)
        yield info
        running = said["state"] == "running"
        yield GaugeMetricFamily("aesp_service_whole", "0 when a part is down.", value=int(running))
        component = GaugeMetricFamily(
            "aesp_component_ready", "1 when it does what it is for.", labels=["component"]
        )
        for name, is_ready in said.get("components", {}).items():
            component.add_metric([name], int(is_ready))
        yield component
        if said["files"] is not None:
            yield from file_families(said["files"])
        yield from _workers(said["workers"])
        yield from self._record(said["record"])
        yield from _log(said["forwarder"].get("log"))

    def _record(self, record: Mapping[str, Any]) -> Iterator[Any]:
        for field, name, text in (
            ("batches", "aesp_record_batches", "Number of the newest sealed batch."),
            ("spool_bytes", "aesp_record_spool_bytes", "Sealed bytes kept until receipted."),
            ("journal_bytes", "aesp_record_journal_bytes", "Journal not sealed whole yet."),
        ):
            yield GaugeMetricFamily(name, text, value=record[field])
        yield GaugeMetricFamily(
            "aesp_sealer_failing",
            "1 when the sealer says an error.",
            value=int(bool(record["error"])),
        )
        yield CounterMetricFamily(
            "aesp_sealer_restarts", "Times it was started again.", value=record["sealer_restarts"]
        )
        if record["said_at_s"]:
            yield GaugeMetricFamily(
                "aesp_sealer_silence_seconds",
                "Since the sealer has said how it is.",
                value=max(0.0, self._now_s - record["said_at_s"]),
            )


def _log(log: Mapping[str, Any] | None) -> Iterator[Any]:
    """Yield how the aggregator's log stands; nothing where it was never looked at."""
    if log is None:
        return
    for name, text, value in (
        ("aesp_log_alarm", "1 when the aggregator's log is not to be trusted.", bool(log["alarm"])),
        ("aesp_log_size", "Entries of the log when it was last seen.", log["size"]),
        ("aesp_log_batch", "Newest batch of ours that is proved to be in it.", log["batch"]),
        ("aesp_log_seen_timestamp_seconds", "When it was last looked at, UTC.", log["at_s"]),
    ):
        yield GaugeMetricFamily(name, text, value=float(value))


def _workers(workers: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    for field, family_of, name, text in _WORKER:
        family = family_of(name, text, labels=["worker"])
        for worker in workers:
            if worker[field] is not None:
                family.add_metric([str(worker["number"])], int(worker[field]))
        yield family
    figures = [(str(worker["number"]), worker["figures"]) for worker in workers]
    for field, label, name, text in (
        ("decisions", "verdict", "aesp_decisions", "Decisions recorded."),
        ("refusals", "reason", "aesp_refusals", "Records of a refusal."),
        ("lost", "class", "aesp_records_lost", "Let pass and counted, not recorded."),
    ):
        family = CounterMetricFamily(name, text, labels=["worker", label])
        for number, found in figures:
            for word, count in sorted(found.get(field, {}).items()):
                family.add_metric([number, word], count)
        yield family
    for field, name, text in (
        ("unrecorded", "aesp_records_unwritten", "Records that could not be written."),
        ("untold", "aesp_pieces_untold", "Pieces that another worker, stuck, did not take."),
    ):
        counted = CounterMetricFamily(name, text, labels=["worker"])
        for number, found in figures:
            counted.add_metric([number], found.get(field, 0))
        yield counted
    for field, bounds, name, text in (
        ("appends", APPEND_BOUNDS_US, "aesp_record_append_seconds", "To write one record."),
        ("exchanges", BOUNDS_US, "aesp_exchange_seconds", "From a decision to its outcome."),
    ):
        histogram = HistogramMetricFamily(name, text, labels=["worker"])
        for number, found in figures:
            _add_buckets(histogram, number, bounds, found.get(field))
        yield histogram


def _add_buckets(
    family: HistogramMetricFamily, number: str, bounds: Sequence[int], counted: object
) -> None:
    """Add the buckets of one worker: counts by bound, then the sum in microseconds."""
    if not isinstance(counted, list) or len(counted) != len(bounds) + 2:
        return
    total, shown = 0, []
    for bound, count in zip((*(str(us / 1e6) for us in bounds), "+Inf"), counted, strict=False):
        total += count
        shown.append((bound, total))
    family.add_metric([number], buckets=shown, sum_value=counted[-1] / 1e6)


def metrics_text(said: Mapping[str, Any], *, now_s: float) -> str:
    """Return the figures of a status (``ask_status``) at ``now_s``, UTC seconds."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusFigures(said, now_s=now_s))
    return generate_latest(registry).decode("utf-8")

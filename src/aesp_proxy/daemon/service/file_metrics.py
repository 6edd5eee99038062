"""The figures of the watch of files, in Prometheus' text form: a part of ``metrics``.

What the listener said comes from another process: only words of our closed sets and whole
numbers become figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily

from aesp_proxy.daemon.tally import (
    LOSABLE_WORDS,
    OPERATION_WORDS,
    OTHER,
    REASON_WORDS,
    VERDICT_WORDS,
)

_OPENS: Final = ("asked", "watched", "refused")


def file_families(files: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the families of what the status says of ``files``."""
    yield CounterMetricFamily(
        "aesp_files_restarts", "Times the watch was started again.", value=files["restarts"]
    )
    opens = CounterMetricFamily(
        "aesp_files_opens", "Opens the kernel asked for, were of the watched, were refused.",
        labels=["what"],
    )  # fmt: skip
    for word, count in _known(files["counts"], frozenset(_OPENS)):
        opens.add_metric([word], count)
    yield opens
    figures = files["figures"]
    yield _decisions(figures.get("decisions"))
    for field, label, known, name, text in (
        ("refusals", "reason", REASON_WORDS, "aesp_files_refusals", "Records of a refusal."),
        ("lost", "class", LOSABLE_WORDS, "aesp_files_records_lost", "Let pass and counted."),
    ):
        family = CounterMetricFamily(name, text, labels=[label])
        for word, count in _known(figures.get(field), known):
            family.add_metric([word], count)
        yield family
    unwritten = figures.get("unrecorded")
    if _is_count(unwritten):
        yield CounterMetricFamily(
            "aesp_files_records_unwritten", "Records that could not be written.", value=unwritten
        )


def _decisions(found: object) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "aesp_files_decisions", "Decisions on files recorded.", labels=["operation", "verdict"]
    )
    if isinstance(found, dict):
        for operation in sorted(OPERATION_WORDS | {OTHER}):
            for verdict, count in _known(found.get(operation), VERDICT_WORDS):
                family.add_metric([operation, verdict], count)
    return family


def _known(found: object, known: frozenset[str]) -> Iterator[tuple[str, int]]:
    if not isinstance(found, dict):
        return
    for word in sorted(known | {OTHER}):
        if _is_count(found.get(word)):
            yield word, int(found[word])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

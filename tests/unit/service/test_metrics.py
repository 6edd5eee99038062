"""The service's figures: counted where records are written, read by Prometheus' own parser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aesp_proxy.daemon.control import Counts, counts_frame, from_worker
from aesp_proxy.daemon.service.metrics import metrics_text
from aesp_proxy.daemon.tally import APPEND_BOUNDS_US, BOUNDS_US, FileTally, Tally
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.state import audit_paths, journal_bytes

DENIED = Record(
    kind=RecordKind.DECISION,
    time_ns=1,
    event_type="policy_violation",
    action="http.get",
    outcome=Outcome.DENIED,
    verdict="deny",
    reason="host_blocked",
    guard="egress_allowlist",
    severity="warning",
    message="",
    resource="",
)


def tallied() -> Tally:
    tally = Tally()
    for _ in range(3):
        tally.recorded(DENIED, append_us=7)
    tally.recorded(replace(DENIED, verdict="allow", outcome=Outcome.SUCCESS), append_us=10**9)
    ended = replace(DENIED, kind=RecordKind.OUTCOME, outcome=Outcome.SUCCESS, duration_us=3_000)
    tally.recorded(ended, append_us=1)
    tally.recorded(replace(DENIED, verdict="evil\n", reason='x"} 1'), append_us=1)
    tally.unrecorded()
    tally.untold()
    tally.lost(replace(DENIED, verdict="allow", outcome=Outcome.SUCCESS))
    tally.lost(DENIED)
    return tally


def file_figures() -> dict[str, object]:
    tally = FileTally()
    for verdict, outcome in (("allow", Outcome.SUCCESS), ("deny", Outcome.DENIED)):
        opened = replace(DENIED, action="file.open", verdict=verdict, outcome=outcome)
        tally.decided(opened, is_kept=True)
    tally.decided(replace(DENIED, action='file.x"} 1', verdict="evil\n"), is_kept=True)
    tally.decided(
        replace(DENIED, action="file.open", verdict="allow", outcome=Outcome.SUCCESS),
        is_kept=False,
    )
    tally.unrecorded()
    return tally.figures()


def status(**worker: Any) -> dict[str, Any]:
    plain = {
        "number": 1, "ready": True, "restarts": 2, "serial": 5, "connections": 9,
        "figures": tallied().figures(),
    }  # fmt: skip
    return {
        "version": "0.1.0",
        "state": "running",
        "workers": [plain | worker],
        "components": {"workers": True, "files": False, "record": True},
        "files": {
            "restarts": 3,
            "counts": {"asked": 50, "watched": 7, "refused": 2, "overflows": 1, "evil": 9},
            "figures": file_figures(),
        },
        "record": {
            "batches": 4, "spool_bytes": 100, "journal_bytes": 50, "error": "",
            "sealer_restarts": 0, "said_at_s": 990.0,
        },
        "forwarder": {"log": {"alarm": "it forked", "size": 7, "batch": 3, "at_s": 980.0}},
    }  # fmt: skip


def figures(said: dict[str, Any]) -> dict[str, float]:
    return {
        sample.name
        + "".join(f"{{{value}}}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics_text(said, now_s=1000.0))
        for sample in family.samples
    }


def test_figures_are_read_by_prometheus_own_parser():
    found = figures(status())
    assert found["aesp_decisions_total{deny}{1}"] == 3
    assert found["aesp_decisions_total{allow}{1}"] == 1
    assert found["aesp_refusals_total{host_blocked}{1}"] == 3
    assert found["aesp_records_unwritten_total{1}"] == 1
    assert found["aesp_pieces_untold_total{1}"] == 1
    assert found["aesp_records_lost_total{requests}{1}"] == 1
    assert found["aesp_policy_serial{1}"] == 5
    assert found["aesp_connections{1}"] == 9
    assert found["aesp_sealer_silence_seconds"] == 10.0
    assert found["aesp_record_journal_bytes"] == 50
    assert found["aesp_service_whole"] == 1
    assert found["aesp_log_alarm"] == 1
    assert found["aesp_log_batch"] == 3


def test_a_log_that_was_never_looked_at_has_no_figures():
    found = figures(status() | {"forwarder": {"log": None}})
    assert not any(name.startswith("aesp_log") for name in found)


def test_decisions_on_files_are_counted_by_operation_and_verdict():
    found = figures(status())
    assert found["aesp_files_decisions_total{file.open}{allow}"] == 1
    assert found["aesp_files_decisions_total{file.open}{deny}"] == 1
    assert found["aesp_files_decisions_total{other}{other}"] == 1
    assert found["aesp_files_refusals_total{host_blocked}"] == 2
    assert found["aesp_files_records_lost_total{file_reads}"] == 1
    assert found["aesp_files_records_unwritten_total"] == 1
    assert found["aesp_files_opens_total{watched}"] == 7
    assert found["aesp_files_restarts_total"] == 3
    assert found["aesp_component_ready{files}"] == 0
    assert found["aesp_component_ready{workers}"] == 1


@pytest.mark.parametrize(
    "said",
    [
        {}, {"decisions": 3, "refusals": [1], "unrecorded": "x", "lost": None},
        {"decisions": {"file.open": 4}}, {"decisions": {"file.open": {"allow": True, "deny": -1}}},
        {"decisions": {'x"} 1': {"allow": 3}}, "refusals": {"evil\n": 3}},
    ],
    ids=["nothing", "of-other-types", "not-a-map", "not-a-count", "unknown-words"],
)  # fmt: skip
def test_nonsense_of_the_listener_makes_no_figure(said):
    told = status()
    told["files"]["figures"] = said
    found = figures(told)
    assert not [name for name in found if name.startswith("aesp_files_decisions")]
    assert not [name for name in found if name.startswith("aesp_files_refusals")]


def test_without_a_watch_there_are_no_figures_of_files():
    assert not [name for name in figures(status() | {"files": None}) if "_files_" in name]


def test_a_word_that_nobody_knows_makes_no_label():
    found = figures(status())
    assert found["aesp_decisions_total{other}{1}"] == 1
    assert found["aesp_refusals_total{other}{1}"] == 1


def test_durations_stand_in_their_buckets():
    found = figures(status())
    assert found["aesp_record_append_seconds_bucket{1e-05}{1}"] == 5
    assert found["aesp_record_append_seconds_count{1}"] == 6
    assert found["aesp_exchange_seconds_bucket{0.001}{1}"] == 0
    assert found["aesp_exchange_seconds_bucket{0.005}{1}"] == 1
    assert found["aesp_exchange_seconds_sum{1}"] == 0.003


def test_a_worker_that_has_said_nothing_yet_has_no_figures():
    found = figures(status(connections=None, figures={}, ready=False))
    assert found["aesp_worker_ready{1}"] == 0
    assert "aesp_connections{1}" not in found
    assert "aesp_exchange_seconds_count{1}" not in found


def test_figures_come_whole_over_the_control_socket():
    import ormsgpack

    counts = Counts(connections=1, allowed=2, refused=3, figures=tallied().figures())
    assert from_worker(ormsgpack.unpackb(counts_frame(counts)[4:])) == counts
    assert len(tallied().figures()["appends"]) == len(APPEND_BOUNDS_US) + 2  # type: ignore[arg-type]
    assert len(tallied().figures()["exchanges"]) == len(BOUNDS_US) + 2  # type: ignore[arg-type]


def test_every_figure_stands_in_the_documentation():
    page = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
    text = metrics_text(status(), now_s=1000.0)
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {name for name in names if f"`{name}" not in page} == set()


def test_the_journal_is_as_large_as_its_segments(tmp_path: Path):
    paths = audit_paths(tmp_path)
    assert journal_bytes(paths) == 0
    paths.journal.mkdir(parents=True)
    (paths.journal / "1-1.wal").write_bytes(b"x" * 30)
    (paths.journal / "1.live").write_bytes(b"y" * 7)
    assert journal_bytes(paths) == 30

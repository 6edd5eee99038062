"""Counts, paths and rules, files and proofs, over a real data directory."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from siem_lab import SealingHost, storing

from aesp_proxy.aggregator.metrics import BOUNDS_S, Meter, metrics_text
from aesp_proxy.aggregator.object_meter import MeteredObjects
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.proof import event_proof
from aesp_proxy.aggregator.proof_check import check_proof
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.aggregator.store.exports import Cursor, SqliteExports
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.cli.aggregator import aggregator
from aesp_proxy.errors import ConfigError, InputError, RecordError, TrustError
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordKind

HOUR_NS = 3_600 * 10**9
START_NS = 500_000 * HOUR_NS  # 2027-01-15T08:00:00Z
PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=START_NS,
    event_type="policy_violation",
    action="file.open",
    outcome=Outcome.DENIED,
    verdict="deny",
    reason="path_forbidden",
    guard="forbidden_path",
    severity="warning",
    message="=1+1",
    resource="/etc/shadow",
    target_type="file",
    target_path="/etc/shadow",
    agent_id="@SUM(A1)",
    applied_policies=("baseline", "no-shadow"),
    metadata=(("k", "'; DROP TABLE events; --"),),
)
FOUND = Finding(
    rule="aws-access-key",
    severity=Severity.CRITICAL,
    location="body",
    offset=1,
    masked="AKIA****",
    fingerprint="00",
)
# hours after START_NS, what differs, how many
STORY: list[tuple[int, dict[str, Any], int]] = [
    (0, {}, 3),
    (0, {"reason": "host_blocked", "guard": "egress_allowlist", "target_path": "/v1"}, 2),
    (1, {"target_path": "/etc/passwd", "applied_policies": ()}, 4),
    (2, {"reason": "secret_found", "guard": "secret_leak", "findings": (FOUND,)}, 1),
    (2, {"verdict": "allow", "reason": "allowed", "outcome": Outcome.SUCCESS}, 5),
]


@pytest.fixture(scope="module")
def host() -> SealingHost:
    return SealingHost(PLAIN)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, host: SealingHost) -> Any:
    root = tmp_path_factory.mktemp("agg") / "data"
    with storing(root) as (data, store):
        for hours, changes, count in STORY:
            host.plain = replace(PLAIN, time_ns=START_NS + hours * HOUR_NS, **changes)
            store(host, count)
        control = SqliteControl(data.control)
        control.enrol(
            host.origin,
            public_key=host.key[0],
            tenants=frozenset(),
            certificate=Certificate(
                fingerprint=b"f",
                identity=Identity(role=Role.HOST, name=host.origin),
                issued_ns=1,
                not_after_ns=2,
            ),
        )
        control.close()
        yield root


@pytest.fixture
def ask(root: Path) -> Any:
    def run(command: str, *arguments: str) -> Any:
        result = CliRunner().invoke(aggregator, [command, "--data", str(root), *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return run


def counts(text: str) -> dict[tuple[str, ...], int]:
    return {
        tuple(value for name, value in line.items() if name != "count"): line["count"]
        for line in json.loads(text)
    }


def test_top_denials_are_counted_by_reason_and_guard(ask: Any):
    assert counts(ask("stats", "--verdict", "deny", "--format", "json")) == {
        ("path_forbidden", "forbidden_path"): 7,
        ("host_blocked", "egress_allowlist"): 2,
        ("secret_found", "secret_leak"): 1,
    }
    assert ask("stats", "--verdict", "deny", "--top", "1").split() == [
        "7", "path_forbidden", "forbidden_path",
    ]  # fmt: skip


def test_events_are_counted_by_hour(ask: Any):
    found = counts(ask("stats", "--by", "hour,guard", "--format", "json"))
    assert found["2027-01-15T09:00:00.000000000Z", "forbidden_path"] == 4
    assert sum(found.values()) == 15
    since = ("--since", "2027-01-15T09:00:00Z", "--until", "2027-01-15T10:00:00Z")
    assert counts(ask("stats", "--by", "verdict", *since, "--format", "json")) == {("deny",): 4}
    assert counts(ask("stats", "--by", "", "--format", "json")) == {(): 15}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "path"),
        ("--by", "hour,day,guard,reason,host"),
        ("--by", "1; DROP TABLE events"),
        ("--top", "0"),
        ("--verdict", "maybe"),
    ],
)
def test_a_count_that_cannot_be_is_refused(ask: Any, arguments: tuple[str, ...]):
    with pytest.raises(InputError):
        ask("stats", *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--path", "/etc/shadow"), 9),
        (("--path", "/etc/passwd"), 4),
        (("--path", "/etc/*"), 13),
        (("--path", "/etc/pass*", "--verdict", "deny"), 4),
        (("--path", "/etc"), 0),
        (("--path", "/nothing"), 0),
        (("--rule", "no-shadow"), 11),
        (("--rule", "aws-access-key"), 1),
        (("--rule", "aws-access-key", "--path", "/etc/passwd"), 0),
        (("--rule", "no-shadow", "--verdict", "deny", "--path", "/etc/shadow"), 4),
        (("--rule", "nobody's"), 0),
        (("--path", "' OR 1=1 --"), 0),
    ],
)
def test_events_are_found_by_path_and_rule(ask: Any, arguments: tuple[str, ...], expected: int):
    found = json.loads(ask("query", "--format", "json", *arguments))["events"]
    assert len(found) == expected


def test_pages_by_path_are_whole_and_do_not_overlap(ask: Any):
    seen: list[str] = []
    cursor: list[str] = []
    for _ in range(9):
        page = json.loads(
            ask("query", "--format", "json", "--path", "/etc/*", "--limit", "4", *cursor)
        )
        seen += [event["id"] for event in page["events"]]
        if page["cursor"] is None:
            break
        cursor = ["--cursor", page["cursor"]]
    assert len(seen) == len(set(seen)) == 13


def test_a_csv_has_every_event_and_no_formula(ask: Any, tmp_path: Path):
    out = tmp_path / "events.csv"
    ask("extract", "--out", str(out))
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 15
    assert Counter(row["message"] for row in rows) == {"'=1+1": 15}
    assert {row["agent_id"] for row in rows} == {"'@SUM(A1)"}
    assert not any(cell[:1] in "=+-@\t\r\n" for row in rows for cell in row.values() if cell)
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_parquet_file_holds_the_records_own_values(ask: Any, tmp_path: Path):
    out = tmp_path / "events.parquet"
    ask("extract", "--format", "parquet", "--rule", "aws-access-key", "--out", str(out))
    [row] = pq.read_table(out).to_pylist()
    assert row["message"] == "=1+1"
    assert row["time_ns"] == START_NS + 2 * HOUR_NS
    assert row["metadata"] == [("k", "'; DROP TABLE events; --")]
    assert row["findings"][0]["rule"] == "aws-access-key"
    assert row["applied_policies"] == ["baseline", "no-shadow"]


def test_a_file_that_is_there_is_not_written_over(ask: Any, tmp_path: Path):
    out = tmp_path / "there"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="name a new file"):
        ask("extract", "--out", str(out))
    assert out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_proof_holds_and_a_changed_one_does_not(ask: Any, host: SealingHost, root: Path):
    from aesp_proxy.aggregator.export.event import Sealing

    shown = json.loads(ask("proof", "h-one/1/9"))
    assert (shown["batch"], shown["leaf_index"], shown["tree_size"]) == (3, 3, 4)
    names = ("record", "header", "signature")
    row, header, signature = (bytes.fromhex(shown[name]) for name in names)
    right = Sealing(
        header=header,
        signature=signature,
        leaf_index=3,
        tree_size=4,
        path=tuple(bytes.fromhex(node) for node in shown["path"]),
        row=row,
    )
    check_proof(right, public_key=host.key[0])
    for wrong in (
        replace(right, row=row + b"\0"),
        replace(right, leaf_index=2),
        replace(right, tree_size=5),
        replace(right, path=right.path[1:]),
        replace(right, signature=bytes(64)),
        replace(right, header=header.replace(b"h-one", b"h-two")),
    ):
        with pytest.raises(TrustError):
            check_proof(wrong, public_key=host.key[0])


@pytest.mark.parametrize(
    "event_id",
    ["", "h-one", "h-one/1/16", "h-one/2/1", "h-two/1/1", "h-one/1/-1", "../1/1", "a/b/c/d"],
)
def test_an_id_that_names_nothing_is_refused(ask: Any, event_id: str):
    with pytest.raises(InputError):
        ask("proof", event_id)


def figures(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_figures_are_read_by_prometheus_own_parser(root: Path):
    from aesp_proxy.aggregator.identity import DataDir

    data = DataDir(root)
    meter = Meter()
    meter.accepted(batches=2, records=30, size_bytes=900)
    meter.count("receipts", 3)
    meter.refused("gap")
    meter.served(0.003)
    meter.served(99.0)
    objects = MeteredObjects(DirectoryObjects(root / "more"), meter)
    objects.check()
    for key in ("..", ""):
        with pytest.raises(RecordError):
            objects.put_all([(key, b"")])
    with pytest.raises(RecordError):
        objects.get("absent")
    objects.put_all([("one", b"1")])
    objects.close()
    exports = SqliteExports(data.exports)
    exports.begin("soc", Cursor(position=2))
    exports.note_failure("soc", 'a "text" \n of a peer', now_ns=1, next_try_ns=2)
    exports.close()
    found = figures(metrics_text(data, meter))
    assert found["aesp_aggregator_records_accepted_total"] == 30
    assert found["aesp_aggregator_receipts_total"] == 3
    assert found["aesp_aggregator_batches_refused_total{gap}"] == 1
    assert found["aesp_aggregator_group_seconds_bucket{0.005}"] == 1
    assert found["aesp_aggregator_group_seconds_bucket{5.0}"] == 1
    assert found["aesp_aggregator_group_seconds_bucket{+Inf}"] == 2
    assert found["aesp_aggregator_group_seconds_count"] == 2
    assert len(BOUNDS_S) + 1 == sum("group_seconds_bucket" in name for name in found)
    assert found["aesp_aggregator_object_failures_total{put}"] == 2
    assert found["aesp_aggregator_object_failures_total{get}"] == 1
    assert found["aesp_aggregator_object_failures_total{remove}"] == 0
    assert found["aesp_aggregator_object_put_seconds_count"] == 1
    assert found["aesp_aggregator_log_batches"] == 5
    assert found["aesp_aggregator_origins{open}"] == 1
    assert found["aesp_aggregator_stores_readable"] == 1
    assert found["aesp_export_behind_batches{soc}"] == 3
    assert found["aesp_export_failing{soc}"] == 1


def test_a_store_that_cannot_be_read_is_a_figure_and_no_error(tmp_path: Path):
    with storing(tmp_path / "agg") as (data, _):
        data.index.write_bytes(b"no database")
        found = figures(metrics_text(data, Meter()))
    assert found["aesp_aggregator_stores_readable"] == 0
    assert found["aesp_aggregator_records_accepted_total"] == 0


def test_every_figure_stands_in_the_documentation(root: Path):
    from aesp_proxy.aggregator.identity import DataDir

    page = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
    text = metrics_text(DataDir(root), Meter()).decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {name for name in names if f"`{name}" not in page} == set()


def test_a_proof_of_what_was_changed_on_disk_is_not_given(tmp_path: Path):
    host = SealingHost(PLAIN)
    with storing(tmp_path / "agg") as (data, store):
        store(host, 3)
        [path] = (data.root / "batches/h-one").iterdir()
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        control = SqliteControl(data.control)
        control.enrol(
            "h-one",
            public_key=host.key[0],
            tenants=frozenset(),
            certificate=Certificate(
                fingerprint=b"f", identity=Identity(role=Role.HOST, name="h-one"),
                issued_ns=1, not_after_ns=2,
            ),
        )  # fmt: skip
        control.close()
        with pytest.raises(TrustError):
            event_proof(data, "h-one/1/1")

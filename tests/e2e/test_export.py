"""Exporting as a user runs it: processes, sockets on loopback, kills; nothing is lost."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families
from siem_lab import Bulk, Collector, Got, Said, SealingHost, receiving, storing

from aesp_proxy.aggregator import enrolment
from aesp_proxy.aggregator.client import client_context
from aesp_proxy.aggregator.identity import DataDir, FileLock
from aesp_proxy.cli.aggregator import aggregator
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.forward.transport import HttpsTransport, load_destination
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.batch import encode_batch

WAIT_S = 30.0
COMMAND = [sys.executable, "-c", "from aesp_proxy.cli import main; main()", "aggregator"]
PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=1_790_000_000_000_000_000,
    event_type="policy_violation",
    action="http.get",
    outcome=Outcome.DENIED,
    verdict="deny",
    reason="host_blocked",
    guard="egress_allowlist",
    severity="warning",
    message="m",
    resource="https://evil.example.test:443/",
    target_host="evil.example.test",
    target_type="network",
    agent_id="agent",
)


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, "it did not come to pass"
        select.select([], [], [], 0.02)


def done(*arguments: str) -> Result:
    return CliRunner().invoke(aggregator, ["export", *arguments])


def write_settings(data: DataDir, text: str) -> None:
    token = data.root / "token"
    token.write_text("t0ken")
    token.chmod(0o600)
    data.export_settings.write_text(f"sinks:\n{text}\n")


@contextmanager
def exporting(data: DataDir, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The exporter as a process of its own; ended, whatever happens."""
    with errors.open("ab") as error_file:
        process = subprocess.Popen(
            [*COMMAND, "export", "run", "--data", str(data.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=error_file,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def host() -> SealingHost:
    return SealingHost(PLAIN)


def test_an_operator_delivers_looks_and_sends_again(tmp_path: Path, host: SealingHost):
    collector = Collector()
    with storing(tmp_path / "agg") as (data, store), receiving(collector) as receiver:
        for count in (3, 0, 4):
            store(host, count)
        write_settings(data, f"  soc: {{type: splunk, url: {receiver.url}, secret_file: token}}")
        at = ("--data", str(data.root))
        assert done("list", *at).stdout == f"soc  splunk  cim  {receiver.url}\n"
        collector.poison = "h-one/1/2"
        assert done("run", "--once", *at).exit_code == 0
        assert sorted(event["fields"]["aesp_seq"] for event in collector.events) == [
            1,
            3,
            4,
            5,
            6,
            7,
        ]
        [standing] = json.loads(done("status", "--format", "json", *at).stdout)
        assert (standing["delivered"], standing["dead_letters"]) == (6, 1)
        assert (standing["batches_behind"], standing["failing"]) == (0, 0)
        shown = done("dead-letters", "--sink", "soc", *at).stdout
        assert "h-one/1/2" in shown
        assert "Invalid data format (code 6)" in shown
        collector.poison = ""
        collector.events.clear()
        assert done("replay", "--sink", "soc", *at).exit_code == 0
        assert done("backfill", "--sink", "soc", "--from-position", "2", *at).exit_code == 0
        assert done("run", "--once", *at).exit_code == 0
        assert sorted(event["fields"]["aesp_seq"] for event in collector.events) == [2, 4, 5, 6, 7]
        assert "up to date, 11 delivered, 0 dead letters" in done("status", *at).stdout


def test_a_sink_at_the_bound_of_its_dead_letters_says_so_until_they_are_dropped(
    tmp_path: Path, host: SealingHost
):
    refusal = Said(400, {"text": "no", "code": 6})
    with storing(tmp_path / "agg") as (data, store), receiving(lambda _: refusal) as receiver:
        store(host, 4)
        sink = f'  soc: {{type: splunk, url: "{receiver.url}", secret_file: token'
        write_settings(data, sink + ", dead_letters_max: 2}")
        at = ("--data", str(data.root))
        assert done("run", "--once", *at).exit_code == 1
        said = done("status", *at)
        assert (said.exit_code, "STOPPED since" in said.stdout) == (1, True)
        assert "2 dead letters" in said.stdout
        assert done("drop", "--sink", "soc", *at).exit_code != 0
        [first] = json.loads(
            done("dead-letters", "--sink", "soc", "--limit", "1", "--format", "json", *at).stdout
        )
        after = ("--after", str(first["id"]))
        assert "h-one/1/2" in done("dead-letters", "--sink", "soc", *after, *at).stdout
        dropped = done("drop", "--sink", "soc", "--all", *at)
        assert "2 dead letters of soc are dropped" in dropped.stderr
        receiver.answer = lambda _: Said(200, {"text": "Success", "code": 0})
        assert done("run", "--once", *at).exit_code == 0
        assert "up to date, 2 delivered, 0 dead letters" in done("status", *at).stdout


def test_a_sink_that_is_down_is_said_and_ends_with_1(tmp_path: Path, host: SealingHost):
    with storing(tmp_path / "agg") as (data, store):
        store(host, 1)
        write_settings(data, '  soc: {type: splunk, url: "http://127.0.0.1:1", secret_file: token}')
        at = ("--data", str(data.root))
        assert done("run", "--once", *at).exit_code == 1
        result = done("status", *at)
        assert result.exit_code == 1
        assert "1 batches behind" in result.stdout
        assert "FAILING, 1 times" in result.stdout
        assert "t0ken" not in result.output


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("status",), ConfigError, "does not exist"),
        (("replay", "--sink", "none"), ConfigError, "there is soc"),
        (("backfill", "--sink", "soc"), None, "give one of"),
        (("backfill", "--sink", "soc", "--from-position", "-1"), None, "-1"),
        (("run",), UnavailableError, "is being exported"),
    ],
)
def test_wrong_use_is_said(tmp_path: Path, arguments: Any, error: Any, says: str):
    with storing(tmp_path / "agg") as (data, _):
        if arguments != ("status",):
            write_settings(data, '  soc: {type: syslog, address: "siem.example"}')
        with FileLock(data.export_lock):
            result = done(*arguments, "--data", str(data.root))
    assert result.exit_code != 0
    shown = result.output if error is None else str(result.exception)
    assert error is None or isinstance(result.exception, error)
    assert says in shown


def test_a_killed_exporter_loses_nothing(tmp_path: Path, host: SealingHost):
    chance = random.Random(7)
    bulk = Bulk()
    slow = threading.Event()

    def answer(got: Got) -> Said:
        slow.wait(0.01)
        return bulk(got)

    with storing(tmp_path / "agg") as (data, store), receiving(answer) as receiver:
        for _ in range(6):
            store(host, 25)
        write_settings(
            data,
            f"  es: {{type: elastic, url: {receiver.url}, index: audit, events_max: 7}}",
        )
        for _ in range(2):
            before = len(receiver.requests)
            upto = before + chance.randrange(1, 12)
            with exporting(data, tmp_path / "errors") as process:
                until(lambda upto=upto: len(receiver.requests) >= upto)
                process.send_signal(signal.SIGKILL)
        with exporting(data, tmp_path / "errors") as process:
            until(lambda: len(bulk.documents) == 150)
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
    assert sorted(bulk.documents) == sorted(host.ids)


@contextmanager
def serving(data: DataDir) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    reader, writer = os.pipe()
    errors = (data.root.parent / "serve.err").open("ab")
    process = subprocess.Popen(
        [
            *COMMAND, "serve", "--data", str(data.root), "--listen", "127.0.0.1:0",
            "--ready-fd", str(writer),
        ],
        pass_fds=[writer], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
    )  # fmt: skip
    os.close(writer)
    try:
        readable, _, _ = select.select([reader], [], [], WAIT_S)
        assert readable
        yield json.loads(os.read(reader, 4096))["url"], process
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        os.close(reader)
        errors.close()
        process.kill()
        process.wait()


def test_the_aggregator_exports_and_a_sink_that_hangs_holds_up_nothing(
    tmp_path: Path, host: SealingHost
):
    hanging = threading.Event()
    bulk = Bulk()

    def hang(_: Got) -> Said:
        hanging.wait(WAIT_S)
        return Said(503)

    with (
        storing(tmp_path / "agg") as (data, _),
        receiving(bulk) as good,
        receiving(hang) as bad,
    ):
        write_settings(
            data,
            f"  es: {{type: elastic, url: {good.url}, index: audit}}\n"
            f"  hook: {{type: webhook, url: {bad.url}, secret_file: token, timeout_s: 1}}",
        )
        with serving(data) as (url, _):
            enrolment.enrol_host(
                data,
                enrolment.HostKey(origin=host.origin, public_key=host.key[0]),
                out=tmp_path / "out",
                url=url,
                tenants=(),
                now=datetime.now(UTC),
            )
            transport = HttpsTransport(load_destination(tmp_path / "out"), timeout_s=WAIT_S)
            for count in (5, 6):
                batch, _ = host.seal(count)
                assert transport.post(encode_batch(batch)).status == 200
            until(lambda: len(bulk.documents) == 11)
            until(lambda: len(bad.requests) >= 1)
            transport.close()
            hanging.set()
            assert_readers_see_it(data, url, tmp_path)
    assert sorted(bulk.documents) == sorted(host.ids)


def assert_readers_see_it(data: DataDir, url: str, tmp_path: Path) -> None:
    """Figures, counts, proofs and health: for a reader; a host sees its own only."""
    reader = tmp_path / "reader"
    enrolment.admit_reader(data, "soc", out=reader, url=url, now=datetime.now(UTC))
    with httpx.Client(base_url=url, verify=client_context(reader), trust_env=False) as client:
        until(lambda: "aesp_export_delivered_total" in client.get("/metrics").text)
        figures = {
            sample.name: sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
            if sample.labels.get("sink") != "hook"
        }
        assert figures["aesp_aggregator_records_accepted_total"] == 11
        assert figures["aesp_aggregator_log_batches"] == 2
        until(lambda: client.get("/readyz").json()["batches_not_indexed"] == 0)
        counted = client.get("/v1/stats", params={"by": "verdict"}).json()
        assert counted == {"counts": [{"verdict": "deny", "count": 11}]}
        proof = client.get("/v1/proof", params={"id": "h-one/1/7"}).json()
        assert (proof["batch"], proof["leaf_index"], proof["tree_size"]) == (2, 1, 6)
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/stats", params={"by": "; DROP"}).status_code == 400
        assert client.get("/v1/proof", params={"id": "h-one/1/99"}).status_code == 400
    words = ["stats", "--client", str(reader), "--by", "verdict", "--verdict", "deny"]
    assert CliRunner().invoke(aggregator, words).output.split() == ["11", "deny"]
    shut = CliRunner().invoke(aggregator, ["revoke", "--data", str(data.root), "soc", "--reader"])
    assert shut.exit_code == 0
    with pytest.raises(InputError, match="enroll --reader` lets it in again"):
        aggregator.main(words, standalone_mode=False)
    host = client_context(tmp_path / "out")
    with httpx.Client(base_url=url, verify=host, trust_env=False) as client:
        assert client.get("/metrics").status_code == 403
        assert client.get("/v1/stats", params={"origin": "h-two"}).status_code == 403
        assert client.get("/v1/stats").json()["counts"][0]["count"] == 11
        assert client.get("/v1/proof", params={"id": "h-two/1/1"}).status_code == 403
        assert client.get("/v1/proof", params={"id": "h-one/1/1"}).status_code == 200


def test_a_server_with_wrong_sinks_does_not_start(tmp_path: Path):
    with storing(tmp_path / "agg") as (data, _):
        write_settings(data, "  soc: {type: soup}")
        result = CliRunner().invoke(
            aggregator, ["serve", "--data", str(data.root), "--listen", "127.0.0.1:0"]
        )
    assert isinstance(result.exception, ConfigError)
    assert "export.yaml:2:8: type must be one of" in str(result.exception)

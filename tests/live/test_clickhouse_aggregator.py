"""An aggregator whose events are in ClickHouse is asked as any other, with and without a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clickhouse_emulator import PASSWORD, USER, emulated
from siem_lab import SealingHost, storing

from aesp_proxy.model.record import Outcome, Record, RecordKind

pytest.importorskip("chdb", reason="ClickHouse (chdb) is not installed: .ci/live.sh installs it")

COMMAND = [sys.executable, "-c", "from aesp_proxy.cli import main; main()", "aggregator"]
WAIT_S = 60.0
PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=1_800_000_000_000_000_000,
    event_type="http",
    action="http.get",
    outcome=Outcome.DENIED,
    verdict="deny",
    reason="host_blocked",
    guard="egress_allowlist",
    severity="warning",
    message="m",
    resource="r",
)


def run(*arguments: str, code: int = 0) -> str:
    """Return what a command says, to standard output where it has succeeded."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env=os.environ | {"CLICKHOUSE_PASSWORD": PASSWORD},
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def events(data: Path, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(run("query", "--data", str(data), "--format", "json", *arguments))["events"]


@contextmanager
def serving(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *f"serve --listen 127.0.0.1:0 --ready-fd {writer} --data".split(), str(data)],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"CLICKHOUSE_PASSWORD": PASSWORD},
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as stream:
            assert stream.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_embedded_it_answers_through_whoever_has_it(tmp_path: Path) -> None:
    with storing(tmp_path / "data") as (data, store):
        data.store_settings.write_text("events: {clickhouse: {embedded: true}}\n")
        host = SealingHost(PLAIN)
        store(host, 5)
        store(host, 4)
    root = data.root
    alone = events(root, "--limit", "100")
    assert [event["seq"] for event in alone] == list(range(9, 0, -1))
    assert not data.index.exists()
    assert not data.index_socket.exists()
    with serving(root):
        assert events(root, "--limit", "100") == alone
        assert "9" in run("stats", "--data", str(root), "--by", "kind")
        assert data.index_socket.stat().st_mode & 0o777 == 0o600
        assert "is being indexed" in run("reindex", "--data", str(root), code=4)
    run("reindex", "--data", str(root))
    assert events(root, "--limit", "100", "--full")[0]["record"] is not None


def test_a_server_is_asked_by_two_aggregators_and_each_event_is_there_once(tmp_path: Path) -> None:
    from chdb.session import Session

    with emulated(lambda: Session(str(tmp_path / "clickhouse"))) as emulator:
        settings = (
            f"events: {{clickhouse: {{url: '{emulator.url}', user: {USER},"
            " password_env: CLICKHOUSE_PASSWORD}}\n"
        )
        with storing(tmp_path / "data") as (data, store):
            data.store_settings.write_text(settings)
            host = SealingHost(PLAIN)
            for _ in range(3):
                store(host, 4)
        other = tmp_path / "other"
        subprocess.run(["cp", "-a", str(data.root), str(other)], check=True)
        with serving(data.root), serving(other):
            assert len(events(data.root, "--limit", "100")) == 12
            assert len(events(other, "--limit", "100")) == 12


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "https://127.0.0.1:9/"])
def test_a_server_that_is_not_there_is_said_in_a_line(tmp_path: Path, url: str) -> None:
    with storing(tmp_path / "data") as (data, _):
        data.store_settings.write_text(f"events: {{clickhouse: {{url: '{url}'}}}}\n")
    told = run("query", "--data", str(data.root), code=4)
    assert f"{url}: gives no answer: ConnectError" in told

"""A real rsyslog as Debian installs it, over TLS: what the syslog sink sends is what it keeps."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aesp_proxy import keys
from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.formats.cef import cef_line
from aesp_proxy.aggregator.export.settings import SinkSettings
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError, Outgoing
from aesp_proxy.aggregator.export.sinks.syslog import SyslogSink
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind

RSYSLOG = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
DRIVER = next(iter(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")), None)
pytestmark = pytest.mark.skipif(
    RSYSLOG is None or DRIVER is None, reason="rsyslog with its TLS driver is not installed"
)

WAIT_S = 20.0
CONFIGURATION = """\
global(
  workDirectory="{folder}"
  maxMessageSize="64k"
  defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{folder}/ca.pem"
  defaultNetstreamDriverCertFile="{folder}/server.pem"
  defaultNetstreamDriverKeyFile="{folder}/server.key"
)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="kept" type="string" string="%hostname%|%app-name%|%pri%|%structured-data%|%msg%\\n")
action(type="omfile" file="{folder}/kept" template="kept")
"""


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, "it did not come to pass"
        select.select([], [], [], 0.05)


def wait(seconds: float) -> None:
    select.select([], [], [], seconds)


@dataclass
class Rsyslog:
    folder: Path
    port: int

    def lines(self) -> list[str]:
        kept = self.folder / "kept"
        return kept.read_text("utf-8").splitlines() if kept.exists() else []

    def sink(self, ca_file: str = "ca.pem") -> SyslogSink:
        settings = SinkSettings(
            name="lines",
            type="syslog",
            address=f"127.0.0.1:{self.port}",
            ca_file=self.folder / ca_file,
        )
        return SyslogSink(settings, now_s=time.time, wait=wait)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    now = datetime.now(UTC)
    for name in ("ca", "other"):
        cert, key = keys.make_ca(name, now=now)
        (tmp_path / f"{name}.pem").write_bytes(cert)
        keys.write_atomic(tmp_path / f"{name}.key", key)
    pair = keys.load_pair(tmp_path / "ca.pem", tmp_path / "ca.key", now=now, is_ca=True)
    leaf, leaf_key = keys.issue_leaf(
        pair, ("127.0.0.1",), purpose=keys.Purpose.SERVER, now=now, days=2
    )
    (tmp_path / "server.pem").write_bytes(leaf)
    keys.write_atomic(tmp_path / "server.key", leaf_key)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = tmp_path / "rsyslog.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path, port=port))
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [str(RSYSLOG), "-n", "-f", str(configuration), "-i", str(tmp_path / "pid")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "errors").read_text()
        yield Rsyslog(tmp_path, port)
    finally:
        process.terminate()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def event(seq: int, message: str = "said") -> Outgoing:
    record = Record(
        kind=RecordKind.DECISION,
        time_ns=1_800_000_000_000_000_000,
        event_type="policy_violation",
        action="http.get",
        outcome=Outcome.DENIED,
        verdict="deny",
        reason="host_blocked",
        guard="egress_allowlist",
        severity="warning",
        message=message,
        resource="https://evil.example.test/",
    )
    exported = ExportEvent(
        record=record,
        record_id=RecordId(origin="h-one", epoch=1, seq=seq),
        batch_no=2,
        position=3,
        row=4,
    )
    return Outgoing(event=exported, body=cef_line(exported))


def test_rsyslog_keeps_every_message_whole_and_in_order(rsyslog: Rsyslog):
    sink = rsyslog.sink()
    try:
        for first in (1, 201):
            assert sink.deliver([event(seq) for seq in range(first, first + 200)]) == Delivery()
    finally:
        sink.close()
    until(lambda: len(rsyslog.lines()) == 400)
    lines = rsyslog.lines()
    assert [f'id="h-one/1/{seq}"' in line for seq, line in enumerate(lines, 1)] == [True] * 400
    host, program, priority, place, message = lines[0].split("|", 4)
    assert (host, program, priority) == ("h-one", "aesp-proxy", "108")
    assert place == '[aesp@32473 id="h-one/1/1" origin="h-one" batch="2" seq="1"]'
    assert message.startswith("\ufeffCEF:0|AESP|AESP Proxy|")


def test_no_value_becomes_a_second_message(rsyslog: Rsyslog):
    hostile = (
        "x\n<14>1 2027-01-01T00:00:00Z evil forged - - - forged\r\n47 <14>1 - - - - - - forged"
    )
    sink = rsyslog.sink()
    try:
        sink.deliver([event(1, hostile), event(2)])
    finally:
        sink.close()
    until(lambda: len(rsyslog.lines()) >= 2)
    lines = rsyslog.lines()
    assert len(lines) == 2
    assert all(line.startswith("h-one|aesp-proxy|") for line in lines)


def test_a_receiver_of_another_authority_gets_nothing(rsyslog: Rsyslog):
    sink = rsyslog.sink("other.pem")
    try:
        with pytest.raises(LaterError, match="CERTIFICATE_VERIFY_FAILED"):
            sink.deliver([event(1)])
    finally:
        sink.close()
    assert rsyslog.lines() == []

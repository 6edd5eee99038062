"""The log, its witnesses and a host that watches: real processes, real TLS, loopback only."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aesp_proxy.aggregator import enrolment
from aesp_proxy.aggregator.identity import DataDir, prepare
from aesp_proxy.aggregator.log.check import check_log
from aesp_proxy.aggregator.log.keys import ensure_log_key, load_log_keys
from aesp_proxy.aggregator.log.status import LogStatus, read_log_status
from aesp_proxy.aggregator.witness.state import WitnessDir, make_witness, trust_log
from aesp_proxy.cli import main
from aesp_proxy.forward.log_look import ALARM_EVENT, LogLook
from aesp_proxy.forward.log_watch import LogSeen
from aesp_proxy.forward.ship_process import make_shipper
from aesp_proxy.forward.transport import HttpsTransport, load_destination
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.reader import StateReader
from aesp_proxy.record.sealer import SealerOptions
from aesp_proxy.record.sealer_process import open_sealer
from aesp_proxy.record.signature import new_private_pem, public_to_pem, signer_from_pem
from aesp_proxy.record.state import audit_paths, load_origin

WAIT_S = 30.0
LOGGING = b"aesp_proxy.aggregator.log.process"
COMMAND = "import sys; from aesp_proxy.cli import main; main(sys.argv[1:])"


def until(holds: Callable[[], object]) -> None:
    """Wait for other processes, a little at a time."""
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, "it did not come to pass"
        select.select([], [], [], 0.05)


@contextlib.contextmanager
def running(*arguments: str, errors: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a serving command until the block ends; gives its URL."""
    ready, told = os.pipe()
    with errors.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments, "--ready-fd", str(told)],
            pass_fds=[told],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    os.close(told)
    try:
        with os.fdopen(ready, "rb") as stream:
            line = stream.readline()
        assert line, errors.read_text()
        yield json.loads(line)["url"], process
    finally:
        process.terminate()
        process.wait(WAIT_S)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Witness:
    """A witness with an address that it keeps."""

    root: Path
    port: int = field(default_factory=free_port)

    def running(self) -> contextlib.AbstractContextManager[tuple[str, subprocess.Popen[bytes]]]:
        address = f"127.0.0.1:{self.port}"
        serve = ("witness", "serve", "--dir", str(self.root), "--listen", address)
        return running(*serve, errors=self.root.parent / f"{self.root.name}.err")


@dataclass
class Region:
    """A data directory, served where asked, and two of its three witnesses, which are needed."""

    data: DataDir
    witnesses: list[Witness]

    @classmethod
    def make(cls, root: Path) -> Region:
        data = prepare(root / "data", now=datetime.now(UTC))
        ensure_log_key(data)
        lines = []
        witnesses = [Witness(root / f"w{number}") for number in range(3)]
        for witness in witnesses:
            name = witness.root.name
            key = make_witness(witness.root, f"{name}.example")
            trust_log(WitnessDir(witness.root), str(load_log_keys(data).public[0]))
            lines.append(f"witness {name} {key} http://127.0.0.1:{witness.port}\n")
        text = "".join(lines) + "group two 2 w0 w1 w2\nquorum two\n"
        data.log_policy.write_text(text)
        (root / "auditors.policy").write_text(f"log {load_log_keys(data).public[0]}\n{text}")
        return cls(data=data, witnesses=witnesses)

    def running(self) -> contextlib.AbstractContextManager[tuple[str, subprocess.Popen[bytes]]]:
        serve = ("aggregator", "serve", "--data", str(self.data.root), "--listen", "127.0.0.1:0")
        return running(*serve, errors=self.data.root.parent / "aggregator.err")

    @property
    def status(self) -> LogStatus:
        return read_log_status(self.data)


@dataclass
class Host:
    """A host with a state of its own, enrolled where the aggregator runs now."""

    state: Path
    look: LogLook = field(init=False)

    def __post_init__(self) -> None:
        self.look = LogLook(audit_paths(self.state), self.forward)

    @property
    def forward(self) -> Path:
        return self.state / "forward"

    def enrol(self, region: Region, url: str) -> None:
        Journal.open(self.state, "h-one", background=False).close()
        self.tick()
        who = enrolment.host_of_state(self.state)
        now = datetime.now(UTC)
        enrolment.enrol_host(region.data, who, out=self.forward, url=url, tenants=(), now=now)

    def tick(self) -> None:
        paths = audit_paths(self.state)
        open_sealer(paths, load_origin(paths), SealerOptions(heartbeat_s=0)).tick(drain=True)

    def ship(self) -> int:
        """Seal a batch and ship it; the newest that a receipt covers."""
        with Journal.open(self.state, background=False) as journal:
            journal.append(
                Record(
                    kind=RecordKind.DECISION, time_ns=1, event_type="t", action="a",
                    outcome=Outcome.SUCCESS, verdict="allow", reason="allowed", guard="g",
                    severity="info", message="", resource="r",
                )
            )  # fmt: skip
        self.tick()
        shipper, transport = make_shipper(audit_paths(self.state), self.forward)
        with contextlib.closing(transport):
            return shipper.ship_once().covered

    def seen(self) -> LogSeen:
        """Look at the log now."""
        self.look._next_s = float("-inf")
        transport = HttpsTransport(load_destination(self.forward))
        with contextlib.closing(transport):
            self.look.look(transport, now_s=time.time())
        return self.look.seen

    def alarms(self) -> list[str]:
        """What was recorded of the log."""
        entries = StateReader(audit_paths(self.state)).new_entries()
        return [r.message for _, r in entries if r.event_type == ALARM_EVENT]


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0), capsys.readouterr().out


def log_process(process: subprocess.Popen[bytes]) -> int:
    """Find the process that keeps the log."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if LOGGING in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
    return 0


def test_a_batch_is_logged_cosigned_and_proved_to_an_auditor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    region, host = Region.make(tmp_path), Host(tmp_path / "host")
    with contextlib.ExitStack() as stack:
        for witness in region.witnesses[:2]:  # the third is down, and nobody waits for it
            stack.enter_context(witness.running())
        url, _ = stack.enter_context(region.running())
        host.enrol(region, url)
        shutil.copy(region.data.log_policy, host.forward / "log.policy")
        newest = host.ship()
        until(lambda: host.seen().batch == newest)
        assert host.look.seen.cosigned == ("w0", "w1")
        assert host.look.seen.alarm == ""

        code, out = run("aggregator", "proof", "--data", region.data.root, "h-one/2/1",
                        capsys=capsys)  # fmt: skip
        assert code == 0
        (tmp_path / "event.json").write_text(out)
        verify = ("audit", "verify", "--proof", tmp_path / "event.json",
                  "--log-policy", tmp_path / "auditors.policy")  # fmt: skip
        code, out = run(*verify, capsys=capsys)
        assert (code, "cosigned by w0, w1" in out) == (0, True)

        until(lambda: region.status.published == newest)
        code, out = run("aggregator", "log", "show", "--data", region.data.root, capsys=capsys)
        assert (code, "witness w2: 0 cosigned, no answer" in out) == (0, True)
        assert_static_files(region, host, url)
        assert_proved_from_a_siem(region, tmp_path, capsys)
    assert check_log(region.data).published.size == newest


def assert_proved_from_a_siem(region: Region, tmp_path: Path, capsys) -> None:
    """One command, with a reader's certificate, from an event as a SIEM has it to its proof."""
    reader, event = region.data.root.parent / "reader", tmp_path / "siem.json"
    ask = ("aggregator", "proof", "--client", reader, "--event", event)
    event.write_text('{"metadata": {"uid": "h-one/2/1"}, "class_uid": 4002}')
    code, out = run(*ask, capsys=capsys)
    assert code == 0
    (tmp_path / "again.json").write_text(out)
    again = ("audit", "verify", "--proof", tmp_path / "again.json")
    assert run(*again, "--log-policy", tmp_path / "auditors.policy", capsys=capsys)[0] == 0
    event.write_text('{"raw_event": {"id": "h-one/2/1", "batch": 77}}')
    assert run(*ask, capsys=capsys) == (4, "")
    event.write_text("CEF:0|AESP|AESP Proxy|1|a|b|5|externalId=h-one/2/999 cn2=1")
    assert run(*ask, capsys=capsys) == (5, "")
    pinned = reader / "aggregator.pub"
    pinned.write_bytes(public_to_pem(signer_from_pem(new_private_pem())[0]))
    event.write_text('{"event": {"id": "h-one/2/1"}}')
    assert run(*ask, capsys=capsys) == (4, "")


def assert_static_files(region: Region, host: Host, url: str) -> None:
    """The resources of tlog-tiles, for whom they are, as what and for how long."""
    reader = region.data.root.parent / "reader"
    now = datetime.now(UTC)
    enrolment.admit_reader(region.data, "auditor", out=reader, url=url, now=now)
    size = region.status.published
    table = [
        (host.forward, "/log/checkpoint", 200, "text/plain; charset=utf-8", "no-cache"),
        (host.forward, f"/log/tile/0/000.p/{size}", 200, "application/octet-stream", "immutable"),
        (host.forward, f"/log/tile/entries/000.p/{size}", 403, "problem+json", ""),
        (reader, f"/log/tile/entries/000.p/{size}", 200, "application/octet-stream", "immutable"),
        (reader, "/log/tile/0/001", 404, "problem+json", ""),
        (reader, "/log/tile/0/../../ledger.sqlite", 404, "problem+json", ""),
        (reader, "/log/tile/0/%2e%2e/%2e%2e/ledger.sqlite", 404, "problem+json", ""),
        (reader, "/v1/log/proof?batch=x", 400, "problem+json", ""),
        (host.forward, "/v1/log/proof?batch=1&origin=other", 403, "problem+json", ""),
    ]
    for directory, path, status, media_type, caching in table:
        destination = load_destination(directory)
        (address,) = destination.addresses
        peer = http.client.HTTPSConnection(
            address.host, address.port, context=destination.tls, timeout=WAIT_S
        )
        with contextlib.closing(peer):
            peer.request("GET", path)
            answer = peer.getresponse()
            body = answer.read()
        assert answer.status == status, (path, body)
        assert media_type in (answer.headers["content-type"] or "")
        assert caching in (answer.headers["cache-control"] or "")
        if status == 200:
            assert body == (region.data.root / path[1:]).read_bytes()


def test_without_its_quorum_the_last_checkpoint_stays_and_batches_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    region, host = Region.make(tmp_path), Host(tmp_path / "host")
    with region.witnesses[0].running(), region.running() as (url, _):
        with region.witnesses[2].running() as (_, second):
            host.enrol(region, url)
            first = host.ship()
            until(lambda: region.status.published == first)
            second.kill()
            second.wait(WAIT_S)
        newest = host.ship()
        until(lambda: region.status.size == newest and region.status.alarm)
        assert region.status.published == first
        code, out = run("aggregator", "log", "show", "--data", region.data.root, capsys=capsys)
        assert (code, "ALARM: too few witnesses cosign" in out) == (1, True)
        with region.witnesses[2].running():
            until(lambda: region.status.published == newest)
    assert check_log(region.data).signed.size == newest


@pytest.mark.long
def test_a_log_that_is_killed_again_and_again_holds_every_receipted_batch_once(
    tmp_path: Path,
) -> None:
    region, host = Region.make(tmp_path), Host(tmp_path / "host")
    region.data.log_policy.unlink()
    with region.running() as (url, process):
        host.enrol(region, url)
        newest = 0
        for _ in range(4):
            until(lambda: log_process(process))
            newest = host.ship()
            pid = log_process(process)
            os.kill(pid, signal.SIGKILL)
            until(lambda killed=pid: log_process(process) != killed)
        until(lambda: region.status.published == newest)
        assert host.seen().batch == newest
    report = check_log(region.data)
    assert (report.signed.size, report.published.size, report.not_logged) == (newest, newest, 0)


@pytest.mark.long
def test_an_aggregator_put_back_to_yesterday_is_found_out_by_host_and_witness(
    tmp_path: Path,
) -> None:
    region, host = Region.make(tmp_path), Host(tmp_path / "host")
    with region.witnesses[0].running(), region.witnesses[1].running():
        with region.running() as (url, _):
            host.enrol(region, url)
            newest = host.ship()
            until(lambda: host.seen().batch == newest)
        yesterday = tmp_path / "yesterday"
        shutil.copytree(region.data.root, yesterday)
        with region.running() as (url, _):
            (host.forward / "url").write_text(url)
            newest = host.ship()
            until(lambda: host.seen().batch == newest)
        shutil.rmtree(region.data.root)
        yesterday.rename(region.data.root)
        with region.running() as (url, _):
            (host.forward / "url").write_text(url)
            assert "shrunk" in host.seen().alarm
            until(lambda: "has cosigned" in region.status.alarm)
            assert host.alarms() == [f"the log has shrunk from {newest} to {newest - 1} entries"]
            # What it lacks is still in the host's spool: shipped again, all is as it was.
            paths = audit_paths(host.state)
            paths.receipt.unlink()
            host.ship()
            until(lambda: host.seen().batch == newest + 2 or host.seen().alarm == "")
            assert host.alarms()[-1] == "the log holds again"

"""Several aggregators on one PostgreSQL and one bucket, and hosts that ship to them under load.

Everything is real: the servers as Debian installs them, the aggregators as the command line
starts them, the process that ships as a service starts it.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ceph_lab import ENVIRONMENT, Ceph, absent, free_ports
from postgresql_lab import BIN, Cluster, running_cluster

from aesp_proxy.aggregator.admission import Wanted, make_token
from aesp_proxy.aggregator.enrolment import admit_reader
from aesp_proxy.aggregator.identity import DataDir, existing
from aesp_proxy.aggregator.joining import join
from aesp_proxy.forward.enrol import enrol
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import load_destination
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import Sealer, SealerOptions
from aesp_proxy.record.sealer_process import read_clocks
from aesp_proxy.record.state import ensure_origin, prepare

WAIT_S = 90.0
COMMAND = [sys.executable, "-c", "from aesp_proxy.cli import main; main()"]


def until(
    holds: Callable[[], Any],
    *,
    seconds: float = WAIT_S,
    what: Callable[[], str] = str,
    every_s: float = 0.03,
) -> float:
    """Wait until something holds; return how long that took."""
    begun_s = time.monotonic()
    while not holds():
        assert time.monotonic() - begun_s < seconds, f"not within {seconds:.0f} s: {what()}"
        select.select([], [], [], every_s)
    return time.monotonic() - begun_s


class Aggregator:
    """One of them: a data directory, an address, and a process that may be killed."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        self.url = f"https://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> DataDir:
        return existing(self.root)

    def start(self, urls: list[str]) -> None:
        """Start it; :meth:`wait` says when it accepts."""
        self.ready.unlink(missing_ok=True)
        others = [word for url in urls for word in ("--url", url)]
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *(*COMMAND, "aggregator", "serve", "--data", str(self.root)),
                    *("--listen", f"127.0.0.1:{self.port}", "--name", "127.0.0.1"),
                    *("--ready-file", str(self.ready), *others),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | ENVIRONMENT,
            )

    @property
    def ready(self) -> Path:
        return self.root.with_suffix(".ready")

    @property
    def errors(self) -> Path:
        return self.root.with_suffix(".err")

    def wait(self) -> None:
        def accepts() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.said()
            return self.ready.exists()

        until(accepts, what=self.said)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def said(self) -> str:
        return self.errors.read_text("utf-8", "replace")[-3000:]


class Region:
    """The servers, and the aggregators on them."""

    def __init__(self, folder: Path, cluster: Cluster, ceph: Ceph, count: int) -> None:
        self.folder, self.cluster, self.ceph = folder, cluster, ceph
        ports = free_ports(count)
        self.aggregators = [
            Aggregator(folder / f"agg-{number}", port) for number, port in enumerate(ports)
        ]
        self.urls = [aggregator.url for aggregator in self.aggregators]
        self.reader = folder / "reader"
        self.hosts = 0

    @property
    def data(self) -> DataDir:
        return self.aggregators[0].data

    def start(self) -> None:
        first = self.aggregators[0]
        first.root.mkdir(mode=0o700)
        first.root.joinpath("stores.yaml").write_text(
            f"database: '{self.cluster.new_database()}'\n"
            f"objects: {{s3: {{endpoint: '{self.ceph.endpoint}', bucket: record, lock_days: 1}}}}\n"
        )
        first.start(self.urls)
        first.wait()
        now = datetime.now(UTC)
        for other in self.aggregators[1:]:
            join(other.root, first.root, now=now)
            other.start(self.urls)
        for other in self.aggregators[1:]:
            other.wait()
        admit_reader(self.data, "soc", out=self.reader, url="\n".join(self.urls), now=now)

    def stop(self) -> None:
        for aggregator in self.aggregators:
            aggregator.stop()
        # Those beside a server that was killed end by themselves, after what they have in hand.
        end_s = time.monotonic() + 20
        while left := _processes_of(self.folder):
            if time.monotonic() > end_s:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            select.select([], [], [], 0.05)

    def new_host(self) -> Host:
        """Enrol a host with a token, as its operator would, at any of the aggregators."""
        self.hosts += 1
        now = datetime.now(UTC)
        folder = self.folder / f"host-{self.hosts}"
        token = make_token(self.data, Wanted(), now=now)
        url = self.urls[self.hosts % len(self.urls)]
        enrolled = enrol(folder, folder / "forward", url, token, origin=f"h-{self.hosts}", now=now)
        return Host(folder, enrolled.origin)


class Host:
    """A host that seals batch after batch, and the process that ships them."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.folder, self.origin = folder, origin
        self.paths = prepare(folder)
        self.key = load_signing_key(self.paths)
        ensure_origin(self.paths, wanted=origin)
        public_key = load_destination(folder / "forward").public_key
        self.spool = Spool(self.paths, origin, public_key)
        self.records = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._load)
        self._shipper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._shipper = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m"),
                *("aesp_proxy.forward.ship_process", "--state", str(self.folder)),
                *("--forward", str(self.folder / "forward")),
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._thread.start()

    def end_load(self) -> None:
        self._stopping.set()
        self._thread.join()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.end_load()
        if self._shipper is not None:
            self._shipper.kill()
            self._shipper.communicate()

    def covered(self) -> int:
        receipt = self.spool.covered()
        return receipt.batch_no if receipt else 0

    def wake(self) -> None:
        assert self._shipper is not None
        assert self._shipper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shipper.stdin.write(b".")
            self._shipper.stdin.flush()

    def _load(self) -> None:
        sealer = Sealer.open(
            self.paths,
            self.origin,
            self.key,
            SealerOptions(),
            files=OsFiles(),
            clock=read_clocks,
        )
        while not self._stopping.wait(0.15):
            journal = Journal.open(self.folder, background=False)
            for _ in range(3):
                self.records += 1
                journal.append(_record(self.records))
            journal.close()
            sealer.tick(drain=True)
            self.wake()


def _processes_of(folder: Path) -> list[int]:
    """Return the aggregators' processes that still run, by the data directory they are given."""
    wanted = f"{folder}/agg-".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _record(number: int) -> Record:
    return Record(
        kind=RecordKind.DECISION,
        time_ns=time.time_ns(),
        event_type="authorization",
        action="http.get",
        outcome=Outcome.SUCCESS,
        verdict="allow",
        reason="allowed",
        guard="egress_allowlist",
        severity="info",
        message="",
        resource=f"https://h{number}.test/",
    )


@contextmanager
def region_of(count: int) -> Iterator[Region]:
    """Run ``count`` aggregators; skip the test where Debian's packages are not."""
    if BIN is None:
        pytest.skip("PostgreSQL's server is not installed")
    if missing := absent():
        pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="aesp-region-"))
    try:
        ceph = Ceph(folder / "ceph")
        try:
            with running_cluster() as cluster:
                ceph.start()
                ceph.make_bucket("record", lock=True)
                region = Region(folder, cluster, ceph, count)
                # The stores are opened here too, where hosts are enrolled and all is looked at.
                with pytest.MonkeyPatch.context() as patch:
                    for name, value in ENVIRONMENT.items():
                        patch.setenv(name, value)
                    try:
                        region.start()
                        yield region
                    finally:
                        region.stop()
        finally:
            ceph.stop()
    finally:
        shutil.rmtree(folder)


@contextmanager
def loading(region: Region, count: int) -> Iterator[list[Host]]:
    """Have ``count`` hosts seal and ship until the end."""
    hosts: list[Host] = []
    try:
        for _ in range(count):
            host = region.new_host()
            hosts.append(host)
            host.start()
        yield hosts
    finally:
        for host in hosts:
            host.stop()

"""A spool with sealed batches, and an aggregator reduced to what the contract says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aesp_proxy.errors import UnavailableError
from aesp_proxy.forward.shipper import Shipper
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import Answer
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.batch import decode_batch, verify_batch
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.files import OS_FILES, OsFiles
from aesp_proxy.record.head import Head, genesis
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.signature import key_id_of, new_private_pem, signer_from_pem
from aesp_proxy.record.state import AuditPaths, ensure_origin, prepare


class Host:
    """A host that seals a batch when told."""

    def __init__(self, directory: Path, origin: str = "h-test") -> None:
        self.directory = directory
        self.paths: AuditPaths = prepare(directory)
        self.origin = ensure_origin(self.paths, wanted=origin)
        self.key = load_signing_key(self.paths)
        self.now_ns = 1_792_000_000 * 10**9

    def seal(self, batches: int = 1) -> None:
        for _ in range(batches):
            journal = Journal.open(self.directory, background=False)
            journal.append(
                Record(
                    kind=RecordKind.DECISION, time_ns=1, event_type="t", action="a",
                    outcome=Outcome.SUCCESS, verdict="allow", reason="allowed", guard="g",
                    severity="info", message="", resource="r",
                )
            )  # fmt: skip
            journal.close()
            Sealer.open(
                self.paths, self.origin, self.key, SealerOptions(heartbeat_s=0),
                files=OS_FILES, clock=self._clock,
            ).tick(drain=True)  # fmt: skip

    def _clock(self) -> Stamp:
        self.now_ns += 10**6
        return Stamp(wall_ns=self.now_ns, mono_ns=self.now_ns, boot_id="b")


class Region:
    """Answers batches as the contract of ``POST /v1/batches`` says; may lose or break answers."""

    def __init__(self, host_key: bytes, origin: str = "h-test") -> None:
        self.public_key, self.sign = signer_from_pem(new_private_pem())
        self.host_key = host_key
        self.head: Head = genesis(origin)
        self.batches: list[bytes] = []
        self.posted: list[int] = []
        self.trouble: list[Callable[[], Answer | None]] = []

    def post(self, body: bytes) -> Answer:
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is not None:
            answer = trouble()
            if answer is not None:
                return answer
        answer = self.take(body)
        if trouble is not None:
            raise UnavailableError("the answer was lost")
        return answer

    def take(self, body: bytes) -> Answer:
        batch = decode_batch(body)
        header = decode_header(batch.header_bytes)
        self.posted.append(header.batch_no)
        if header.batch_no <= self.head.batch_no:
            same = self.batches[header.batch_no - 1] == body
            return self.receipt() if same else problem(409, code="fork")
        if header.batch_no > self.head.batch_no + 1:
            return problem(409, code="gap", resume_from=self.head.batch_no + 1)
        try:
            verified = verify_batch(batch, public_key=self.host_key, previous=self.head)
        except ChainError as error:
            return problem(422, code=error.kind.value)
        self.head = verified.head
        self.batches.append(body)
        return self.receipt()

    def receipt(self, **changes: object) -> Answer:
        values = {
            "origin": self.head.origin,
            "batch_no": self.head.batch_no,
            "header_hash": self.head.header_hash,
            "time_ns": 1,
            "key_id": key_id_of(self.public_key),
            **changes,
        }
        return Answer(status=200, body=encode_receipt(Receipt(**values), self.sign))  # type: ignore[arg-type]

    def hash_of(self, number: int) -> bytes:
        return header_hash(decode_batch(self.batches[number - 1]).header_bytes)


def problem(status: int, **values: object) -> Answer:
    return Answer(status=status, body=json.dumps(values).encode())


@pytest.fixture(autouse=True)
def _disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power of the machine; what is synced is tested by order."""
    monkeypatch.setattr(OsFiles, "fdatasync", staticmethod(os.fstat))
    monkeypatch.setattr(OsFiles, "sync_dir", lambda _, path: path.stat())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "state")


@pytest.fixture
def region(host: Host) -> Region:
    return Region(host.key.public_key)


class Line:
    """Host, spool, shipper and region, wired; the clock is ours."""

    def __init__(self, host: Host, region: Region) -> None:
        self.host, self.region = host, region
        self.now_s = 0.0
        self.spool = Spool(host.paths, host.origin, region.public_key)
        self.shipper = Shipper(self.spool, region, wall=lambda: self.now_s)


@pytest.fixture
def line(host: Host, region: Region) -> Line:
    return Line(host, region)


@pytest.fixture
def make_problem() -> Callable[..., Answer]:
    return problem


@pytest.fixture
def new_host(tmp_path: Path) -> Callable[[str], Host]:
    return lambda name: Host(tmp_path / name)

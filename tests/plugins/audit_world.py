"""A simulated world: hosts with clocks that jump, a network that lies, one real aggregator.

Everything is drawn from one seed, keys too, and nothing waits for a disk: the same seed gives
the same history. The hosts' journal, sealer, spool and shipper are the real ones, and so are
the aggregator's judging, ledger and stores; only time, chance and the wire are made up.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aesp_proxy.aggregator import writer as writer_module
from aesp_proxy.aggregator.identity import ReceiptKey
from aesp_proxy.aggregator.ingest import IngestLimits
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.store import objects as objects_module
from aesp_proxy.aggregator.store import sqlite as sqlite_module
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.aggregator.store.ledger import SqliteLedger
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.aggregator.writer import Answer as Judged
from aesp_proxy.aggregator.writer import Stores, Submission, Writer
from aesp_proxy.errors import AespError, RecordError, UnavailableError
from aesp_proxy.forward.shipper import Shipper
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import Answer
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record import keys as keys_module
from aesp_proxy.record import rotation
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.head import Head
from aesp_proxy.record.journal import Journal, JournalOptions
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.signature import key_id_of, signer_from_pem
from aesp_proxy.record.state import ensure_origin, prepare, read_head
from aesp_proxy.record.verify import Pins, Report, verify_place

MEMORY = Path("/dev/shm")
START_NS = 1_792_000_000 * 10**9
SECOND_NS = 10**9


def memory_dir() -> Path | None:
    """Name the directory in memory, where thousands of small files cost least; None without."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None


@contextlib.contextmanager
def made_up(chance: random.Random) -> Iterator[None]:
    """Draw keys from the seed and wait for no disk."""

    def private_pem() -> bytes:
        key = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def unsynced(*arguments: object, **more: object):
        return open_database(*arguments, **{**more, "durability": "OFF"})  # type: ignore[arg-type]

    open_database = sqlite_module.open_database
    with contextlib.ExitStack() as stack:
        for module in (keys_module, rotation):
            stack.enter_context(mock.patch.object(module, "new_private_pem", private_pem))
        for name in ("control", "ledger"):
            place = f"aesp_proxy.aggregator.store.{name}.open_database"
            stack.enter_context(mock.patch(place, unsynced))
        stack.enter_context(mock.patch.object(OsFiles, "fdatasync", staticmethod(os.fstat)))
        stack.enter_context(mock.patch.object(OsFiles, "sync_dir", lambda _, path: path.stat()))
        stack.enter_context(mock.patch.object(objects_module.os, "fdatasync", os.fstat))
        stack.enter_context(mock.patch.object(objects_module.os, "fsync", os.fstat))
        stack.enter_context(mock.patch.object(writer_module, "log", mock.Mock()))
        yield


class Region:
    """The aggregator without HTTP and without a thread."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root, self.chance = root, chance
        self.now_ns = START_NS
        public_key, sign = signer_from_pem(keys_module.new_private_pem())
        self.key = ReceiptKey(key_id=key_id_of(public_key), public_key=public_key, sign=sign)
        root.mkdir(parents=True)
        self.fails_to_store = False
        self.open()

    def open(self) -> None:
        self.objects = DirectoryObjects(self.root)
        self.ledger = SqliteLedger(self.root / "ledger.sqlite", self.objects)
        self.control = SqliteControl(self.root / "control.sqlite")
        self.ledger.remove_unpromised([origin.name for origin in self.control.origins()])
        self.writer = Writer(
            Stores(ledger=self.ledger, control=self.control, objects=self.objects),
            receipt_key=self.key,
            limits=IngestLimits(),
            now_ns=lambda: self.now_ns,
            on_stored=lambda: None,
        )

    def close(self) -> None:
        self.ledger.close()
        self.control.close()
        self.objects.close()

    def enrol(self, origin: str, public_key: bytes) -> None:
        certificate = Certificate(
            fingerprint=sha256(origin.encode()).digest(),
            identity=Identity(role=Role.HOST, name=origin),
            issued_ns=START_NS,
            not_after_ns=START_NS * 2,
        )
        self.control.enrol(
            origin, public_key=public_key, tenants=frozenset(), certificate=certificate
        )

    def take(self, bodies: list[bytes], origin: str) -> list[Answer]:
        """Judge, store and answer what came together; UnavailableError where it says later."""
        found: list[Judged | AespError] = []
        identity = Identity(role=Role.HOST, name=origin)
        with contextlib.ExitStack() as stack:
            if self.fails_to_store:
                failing = mock.Mock(side_effect=RecordError("cannot store"))
                stack.enter_context(mock.patch.object(self.objects, "put_all", failing))
            self.writer._serve(
                [
                    Submission(data=body, identity=identity, answer=found.append, fail=found.append)
                    for body in bodies
                ]
            )
        return [_on_the_wire(judged) for judged in found]

    def verify(self, origin: str, first_key: bytes) -> Report:
        return verify_place(self.root / "batches" / origin, Pins(key=first_key))


def _on_the_wire(judged: Judged | AespError) -> Answer:
    if isinstance(judged, AespError):
        return Answer(status=503, body=b"{}")
    if judged.receipt is not None:
        return Answer(status=200, body=judged.receipt)
    refusal = judged.refusal
    assert refusal is not None
    problem = {"code": refusal.kind.value}
    if refusal.resume_from is not None:
        problem["resume_from"] = refusal.resume_from  # type: ignore[assignment]
    return Answer(status=refusal.status, body=json.dumps(problem).encode())


class Wire:
    """What lies between one host and the region: it loses, doubles, holds back and damages."""

    def __init__(self, region: Region, origin: str, chance: random.Random) -> None:
        self.region, self.origin, self.chance = region, origin, chance
        self.is_bad = True
        self.held: list[bytes] = []

    def post(self, body: bytes) -> Answer:
        trouble = self.chance.choice(TROUBLES) if self.is_bad else "none"
        bodies = [body]
        match trouble:
            case "lost":
                raise UnavailableError("lost on the way")
            case "held":
                self.held.append(body)
                raise UnavailableError("held on the way")
            case "late" if self.held:
                bodies = [self.held.pop(self.chance.randrange(len(self.held))), body]
            case "doubled":
                bodies = [body, body]
            case "damaged":
                bodies = [self._damaged(body)]
            case "cut":
                bodies = [body[: self.chance.randrange(len(body))]]
        answer = self.region.take(bodies, self.origin)[-1]
        match trouble:
            case "answer_lost":
                raise UnavailableError("the answer was lost")
            case "answer_damaged" if answer.body:
                return Answer(status=answer.status, body=self._damaged(answer.body))
        return answer

    def _damaged(self, data: bytes) -> bytes:
        place = self.chance.randrange(len(data))
        return (
            data[:place]
            + bytes([data[place] ^ (1 << self.chance.randrange(8))])
            + data[place + 1 :]
        )


TROUBLES = (
    *("none",) * 6, "lost", "held", "late", "doubled", "damaged", "cut", "answer_lost",
    "answer_damaged",
)  # fmt: skip


class Host:
    """One host: writers, a sealer and a shipper, each of which may die at any moment."""

    def __init__(self, directory: Path, origin: str, region: Region, chance: random.Random) -> None:
        self.directory, self.chance = directory, chance
        self.paths = prepare(directory)
        self.origin = ensure_origin(self.paths, wanted=origin)
        self.first_key = load_signing_key(self.paths).public_key
        self.wire = Wire(region, origin, chance)
        self.region_key = region.key.public_key
        self.wall_ns, self.mono_ns, self.boot = START_NS, 10**9, 1
        self.turned_back = False
        self.journals: list[Journal] = []
        self.sealer: Sealer | None = None
        self.acknowledged: set[tuple[int, int]] = set()
        self.count = 0
        region.enrol(origin, self.first_key)

    def stamp(self) -> Stamp:
        self.wall_ns += 1000
        self.mono_ns += 1000
        return Stamp(wall_ns=self.wall_ns, mono_ns=self.mono_ns, boot_id=f"boot-{self.boot}")

    def write(self) -> None:
        if not self.journals or (len(self.journals) < 3 and self.chance.random() < 0.2):
            self.journals.append(
                Journal.open(
                    self.directory,
                    options=JournalOptions(segment_bytes_max=self.chance.choice((700, 10**6))),
                    background=False,
                    monotonic=lambda: self.mono_ns / 1e9,
                    wall=lambda: self.wall_ns / 1e9,
                )
            )
        journal = self.chance.choice(self.journals)
        for _ in range(self.chance.randrange(1, 5)):
            self.count += 1
            given = journal.append(_record(self.count, self.wall_ns))
            self.acknowledged.add((given.epoch, given.seq))

    def end_writer(self) -> None:
        if self.journals:
            journal = self.journals.pop(self.chance.randrange(len(self.journals)))
            if self.chance.random() < 0.5:
                journal.close()
            else:
                journal._writer.abandon()

    def seal(self, *, drain: bool | None = None) -> None:
        if self.sealer is None:
            self.sealer = Sealer.open(
                self.paths,
                self.origin,
                load_signing_key(self.paths),
                SealerOptions(seal_bytes_max=1500),
                files=OsFiles(),
                clock=self.stamp,
            )
        self.sealer.tick(drain=self.chance.random() < 0.5 if drain is None else drain)

    def rotate(self) -> None:
        rotation.ask(self.paths)

    def die(self) -> None:
        """Power off: writers and sealer are gone, another boot begins."""
        for journal in self.journals:
            journal._writer.abandon()
        self.journals.clear()
        self.sealer = None
        self.boot += 1
        self.mono_ns = 10**9

    def ship(self) -> None:
        spool = Spool(self.paths, self.origin, self.region_key)
        shipper = Shipper(spool, self.wire, wall=lambda: self.wall_ns / 1e9)
        with contextlib.suppress(AespError):
            shipper.ship_once()

    def wait(self) -> None:
        passed = self.chance.choice((1, 61, 2400)) * SECOND_NS
        self.wall_ns += passed
        self.mono_ns += passed

    def jump(self) -> None:
        ahead = self.chance.choice((-7200, -3, 600, 86_400)) * SECOND_NS
        self.turned_back = self.turned_back or ahead < 0
        self.wall_ns += ahead

    def settle(self) -> None:
        """Let everything come to rest: nothing fails any more."""
        self.wire.is_bad = False
        for journal in self.journals:
            journal.close()
        self.journals.clear()
        self.sealer = None
        self.seal(drain=True)
        self.seal(drain=True)
        self.ship()

    def head(self) -> Head:
        head = read_head(self.paths)
        assert head is not None
        return head


def _record(number: int, time_ns: int) -> Record:
    return Record(
        kind=RecordKind.DECISION,
        time_ns=time_ns,
        event_type="authorization",
        action="http.get",
        outcome=Outcome.DENIED if number % 4 == 0 else Outcome.SUCCESS,
        verdict="allow",
        reason="allowed",
        guard="egress_allowlist",
        severity="info",
        message="",
        resource=f"https://h{number}.test/",
    )


@dataclass
class World:
    """Some hosts and one region, moved by one seed."""

    root: Path
    seed: int
    hosts_count: int = 3
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def run(self, steps: int) -> None:
        """Let so many things happen, then come to rest. Within :func:`made_up`."""
        self.region = Region(self.root / "region", self.chance)
        self.hosts = [
            Host(self.root / f"host-{number}", f"h-{number}", self.region, self.chance)
            for number in range(self.hosts_count)
        ]
        try:
            for _ in range(steps):
                self._step()
            self.region.fails_to_store = False
            for host in self.hosts:
                host.settle()
        finally:
            for host in self.hosts:
                host.die()

    def close(self) -> None:
        self.region.close()

    def _step(self) -> None:
        action, host = self.chance.choice(ACTIONS), self.chance.choice(self.hosts)
        self.trace.append(f"{action} {host.origin}")
        self.region.fails_to_store = self.chance.random() < 0.1
        if action == "region_restarts":
            self.region.close()
            self.region.open()
        else:
            getattr(host, action)()
        self.region.now_ns = max(host.wall_ns for host in self.hosts)
        head = read_head(host.paths)
        self.trace.append(head.header_hash.hex() if head else "-")


ACTIONS = (
    *("write",) * 8, *("seal",) * 6, *("ship",) * 6, "end_writer", "end_writer", "wait", "wait",
    "jump", "die", "rotate", "region_restarts",
)  # fmt: skip

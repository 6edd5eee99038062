"""The database's disk is really full: hosts are told to come again, nothing receipted is lost."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from contract_tests import unit_module
from postgresql_lab import Cluster, needs_postgresql, running_cluster

from aesp_proxy.aggregator.databases import close_databases
from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.aggregator.writer import Answer
from aesp_proxy.errors import AespError, RecordError, UnavailableError
from aesp_proxy.record.receipt import verify_receipt

pytestmark = needs_postgresql

Chain = vars(unit_module("aggregator/conftest"))["Chain"]
Aggregator = vars(unit_module("aggregator/test_writer"))["Aggregator"]
BATCHES_MAX = 600
SMALL_MB = {"data": 96, "wal": 8}


@pytest.fixture(params=SMALL_MB)
def cluster(request: Any) -> Iterator[Cluster]:
    """Give a server whose disk can be filled: all of it, or where its write-ahead log is."""
    small = request.param
    with running_cluster("--wal-segsize=1", small=small, small_mb=SMALL_MB[small]) as made:
        yield made
        close_databases()


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            block = b"x" * size
            try:
                while True:
                    file.write(block)
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
    return filler


def send(aggregator: Any, data: bytes, identity: Identity) -> Answer | AespError:
    """Send a batch once; each answer but a receipt is one that the API gives as 503."""
    answer = aggregator.send(data, identity)
    if isinstance(answer, Answer):
        assert answer.receipt, answer
    else:
        assert isinstance(answer, RecordError | UnavailableError)
    return answer


def insist(aggregator: Any, data: bytes, identity: Identity) -> None:
    """Send until it is taken, as a host does."""
    pause = threading.Event()
    for _ in range(2_000):
        if isinstance(send(aggregator, data, identity), Answer):
            return
        pause.wait(0.01)  # a server that could not be reached is not asked again for a second
    raise AssertionError("it is never taken")


def test_while_the_disk_is_full_hosts_are_told_to_come_again_and_go_on_when_there_is_room(
    cluster: Cluster, tmp_path: Path
):
    data = DataDir(tmp_path)
    data.store_settings.write_text(f"database: {cluster.new_database()}\n")
    control = open_control(data)
    chain = Chain()
    identity = Identity(role=Role.HOST, name=chain.origin)
    control.enrol(
        chain.origin,
        public_key=chain.public_key,
        tenants=frozenset(),
        certificate=Certificate(
            fingerprint=b"one", identity=identity, issued_ns=1, not_after_ns=2**62
        ),
    )
    aggregator = Aggregator(data, control)
    sent = [chain.take(1) for _ in range(3)]
    for batch in sent:
        insist(aggregator, batch, identity)
    filler = fill(cluster.folder / "disk")
    if (cluster.folder / "wal").exists():  # it may have room ahead, for hundreds of batches
        with contextlib.suppress(psycopg.Error):
            for _ in range(2):
                cluster.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 250000))")
    for _ in range(BATCHES_MAX):
        sent.append(chain.take(1))
        answer = send(aggregator, sent[-1], identity)
        if not isinstance(answer, Answer):
            break
    else:
        raise AssertionError("the disk never was full")
    for _ in range(3):  # and it stays so, for whatever comes
        assert not isinstance(send(aggregator, sent[-1], identity), Answer)
    if not (cluster.folder / "wal").exists():  # then the server lives, and says what it is
        assert str(answer) == "the database's disk is full (make room)"
        assert [origin.name for origin in control.origins()] == [chain.origin]
    filler.unlink()
    cluster.revive()
    insist(aggregator, sent[-1], identity)
    sent.append(chain.take(1))
    insist(aggregator, sent[-1], identity)
    places = aggregator.ledger.after(0, limit=2 * BATCHES_MAX)
    assert [place.batch_no for place in places] == list(range(1, len(sent) + 1))
    assert [place.position for place in places] == list(range(1, len(sent) + 1))
    assert [aggregator.ledger.read(place) for place in places] == sent
    answer = send(aggregator, sent[0], identity)  # a duplicate: the receipt covers all of them
    assert isinstance(answer, Answer)
    assert answer.receipt
    receipt = verify_receipt(answer.receipt, public_key=aggregator.public_key)
    assert receipt.batch_no == len(sent)
    aggregator.close()
    control.close()

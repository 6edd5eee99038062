"""The transparency log: leaves, checkpoints, proofs, bytes, beside a chain of hashes in SQLite.

``uv run python -m benchmarks.log --json`` prints one JSON object. Times are CPU time of this
process. ``integrate`` is what the log's process does with a backlog: read headers, hash, grow
the tree, write tiles and entries durably, sign. ``checkpoint`` is the same for one new batch
at a time: the cost of one second in which something came. ``sqlite_chain`` is what a log without
a tree does: a row a batch that holds the hash of the one before, durable per 4,096; it proves
an entry only to whoever reads all of them.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from aesp_proxy.aggregator.log.integrate import STEP_LEAVES_MAX, Integrator, leaf_of
from aesp_proxy.aggregator.log.keys import LogKeys
from aesp_proxy.aggregator.log.prove import LogProver
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.ports import BatchPlace, BatchSource, SignedHeader
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.record.header import BatchHeader, encode_header, header_hash, signed_message
from aesp_proxy.record.merkle import leaf_hashes
from aesp_proxy.record.signature import key_id_of, signer_from_seed
from aesp_proxy.record.tlog.note import KeyType, signing_key
from aesp_proxy.record.tlog.policy import policy_of
from aesp_proxy.record.tlog.proof import parse_proof, verify_proof
from aesp_proxy.record.tlog.tree import Edge, grow
from benchmarks.harness import Budget, Figures, Options, Result, options, ratio, rounds_of, show

LEAVES = 40_000
STEPS = 40
PROOFS = 200
_PUBLIC_KEY, _SIGN = signer_from_seed(b"\x07" * 32)
_KEYS = LogKeys(signing=(signing_key("bench.example/log", KeyType.ED25519, b"\x01" * 32),))
_POLICY = policy_of(_KEYS.public, [])


@cache
def batches() -> list[SignedHeader]:
    """Make the signed headers of as many heartbeats."""
    return [_signed(number) for number in range(1, LEAVES + 1)]


def _signed(number: int) -> SignedHeader:
    chance = random.Random(number)
    header = encode_header(
        BatchHeader(
            origin="h-5e7c0a1b2c3d4e5f",
            epoch=3,
            key_id=key_id_of(_PUBLIC_KEY),
            batch_no=number,
            prev_hash=chance.randbytes(32),
            first_seq=number * 600,
            count=600,
            first_time_ns=1_800_000_000_000_000_000 + number,
            last_time_ns=1_800_000_060_000_000_000 + number,
            sealed_wall_ns=1_800_000_061_000_000_000 + number,
            sealed_mono_ns=61_000_000_000 + number,
            boot_id="3f2b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d",
            root=chance.randbytes(32),
            body_bytes=60_000,
            inflated_bytes=240_000,
            body_hash=chance.randbytes(32),
        )
    )
    place = BatchPlace(
        position=number,
        origin="h-5e7c0a1b2c3d4e5f",
        batch_no=number,
        epoch=3,
        first_seq=number * 600,
        count=600,
        header_hash=header_hash(header),
        received_ns=1,
    )
    return SignedHeader(place=place, header=header, signature=_SIGN(signed_message(header)))


class Ledger:
    """The first so many batches, as a ledger gives them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def last_position(self) -> int:
        return self.count

    def after(self, position: int, *, limit: int) -> list[BatchPlace]:
        return [signed.place for signed in self.headers_after(position, limit=limit)]

    def holding(self, *_: object) -> BatchPlace | None:
        return None

    def read(self, _: BatchPlace) -> bytes:
        return b""

    def headers_after(self, position: int, *, limit: int) -> list[SignedHeader]:
        return batches()[position : min(position + limit, self.count)]

    def find(self, _: str, batch_no: int) -> BatchPlace | None:
        return batches()[batch_no - 1].place


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory on the disk that temporary files are on; removed after."""
    directory = Path(tempfile.mkdtemp(prefix="aesp-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def logged(ledger: BatchSource) -> Iterator[tuple[Path, DirectoryObjects, Integrator]]:
    """Give a log that is empty yet."""
    with scratch() as root:
        objects = DirectoryObjects(root)
        made = Integrator(ledger=ledger, store=LogStore(objects), keys=_KEYS)
        made.start()
        yield root, objects, made
        objects.close()


def _cpu_s() -> float:
    return time.process_time()


def tree_alone() -> Figures:
    leaves = list(map(leaf_of, batches()))
    begun_s = _cpu_s()
    edge, _ = grow(Edge(), leaf_hashes(leaves))
    spent_s = _cpu_s() - begun_s
    assert edge.size == LEAVES
    return {"leaves_per_s_core": LEAVES / spent_s}


def integrate() -> Figures:
    with logged(Ledger(LEAVES)) as (root, _, made):
        begun_s, wall_s = _cpu_s(), time.perf_counter()
        while made.step():
            pass
        spent_s, wall_s = _cpu_s() - begun_s, time.perf_counter() - wall_s
        size_bytes = _bytes(root / "log" / "tile")
        entries_bytes = _bytes(root / "log" / "tile" / "entries")
    return {
        "leaves_per_s_core": LEAVES / spent_s,
        "leaves_per_s_wall": LEAVES / wall_s,
        "tile_bytes_per_leaf": (size_bytes - entries_bytes) / LEAVES,
        "entry_bytes_per_leaf": entries_bytes / LEAVES,
    }


def _bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def checkpoint() -> Figures:
    ledger = Ledger(LEAVES // 2)
    with logged(ledger) as (_, objects, made):
        while made.step():
            pass
        begun_s = _cpu_s()
        for _ in range(STEPS):
            ledger.count += 1
            made.step()
            LogStore(objects).publish(made.note)
        return {"checkpoint_cpu_ms": (_cpu_s() - begun_s) / STEPS * 1e3}


def proofs() -> Figures:
    with logged(Ledger(LEAVES)) as (_, objects, made):
        while made.step():
            pass
        store = LogStore(objects)
        store.publish(made.note)
        chance = random.Random(3)
        chosen = [chance.randrange(LEAVES) for _ in range(PROOFS)]
        begun_s = _cpu_s()
        found = [LogProver(Ledger(LEAVES), store).inclusion(batches()[n].place) for n in chosen]
        made_s = _cpu_s() - begun_s
        texts = [proof.encode() for proof in found if proof is not None]
        begun_s = _cpu_s()
        for number, text in zip(chosen, texts, strict=True):
            verify_proof(parse_proof(text), leaf_of(batches()[number]), _POLICY)
        verified_s = _cpu_s() - begun_s
        begun_s = _cpu_s()
        for number in chosen:
            LogProver(Ledger(LEAVES), store).consistency(number)
        consistent_s = _cpu_s() - begun_s
    return {
        "make_ms": made_s / PROOFS * 1e3,
        "verify_ms": verified_s / PROOFS * 1e3,
        "consistency_make_ms": consistent_s / PROOFS * 1e3,
        "proof_bytes": sum(map(len, texts)) / PROOFS,
    }


def sqlite_chain() -> Figures:
    leaves = list(map(leaf_of, batches()))
    with scratch() as root:
        database = sqlite3.connect(root / "chain.sqlite", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE chain (number INTEGER PRIMARY KEY, entry BLOB, hash BLOB)")
        begun_s, last = _cpu_s(), bytes(32)
        for first in range(0, LEAVES, STEP_LEAVES_MAX):
            rows = []
            for number, leaf in enumerate(leaves[first : first + STEP_LEAVES_MAX], first):
                last = sha256(last + leaf).digest()
                rows.append((number, leaf, last))
            database.execute("BEGIN")
            database.executemany("INSERT INTO chain VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")
        spent_s = _cpu_s() - begun_s
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        size_bytes = (root / "chain.sqlite").stat().st_size
    return {"leaves_per_s_core": LEAVES / spent_s, "bytes_per_leaf": size_bytes / LEAVES}


def measure(asked: Options) -> Result:
    """Run everything and weigh it against the budgets."""
    batches()
    variants: dict[str, Any] = {
        "tree_alone": tree_alone,
        "integrate": integrate,
        "checkpoint": partial(checkpoint),
        "proofs": proofs,
        "sqlite_chain": sqlite_chain,
    }
    result = Result(name="log", run={"rounds": asked.rounds, "seed": asked.seed})
    result.figures = rounds_of(variants, rounds=asked.rounds, order=random.Random(asked.seed))
    figures = result.figures
    result.run |= {"leaves": LEAVES, "leaf_bytes": len(leaf_of(batches()[0]))}
    result.ratios["integrate_to_sqlite_chain_leaves_per_s"] = (
        ratio(figures, "leaves_per_s_core", "integrate", "sqlite_chain") or 0.0
    )
    result.budgets = [
        Budget(
            name="integrate, everything, leaves/s/core (100,000 hosts need 1,667)",
            value=figures["integrate"]["leaves_per_s_core"],
            limit=20_000,
            at_least=True,
        ),
        Budget(
            name="one checkpoint (CPU ms, at most one a second)",
            value=figures["checkpoint"]["checkpoint_cpu_ms"],
            limit=20,
        ),
        Budget(name="proof, make (ms)", value=figures["proofs"]["make_ms"], limit=10),
        Budget(name="proof, verify (ms)", value=figures["proofs"]["verify_ms"], limit=2),
        Budget(
            name="hashes at rest, bytes/leaf",
            value=figures["integrate"]["tile_bytes_per_leaf"],
            limit=33,
        ),
    ]
    published = (
        "published, elsewhere, not measured here: immudb 1.2 to 1.8 million entries a second "
        "embedded, 1,000 a batch, 4 cores; Tessera on POSIX files 10,000 a second on NVMe with up "
        "to 7 cores, 2,900 on a hard disk; for Rekor v2 no figure was found"
    )
    result.notes = [published, "no PostgreSQL and no bucket: tiles are files, headers in memory"]
    return result


def main(arguments: Sequence[str]) -> int:
    """Measure and show; return the exit code."""
    asked = options("log", rounds=3, seconds=1.0, arguments=arguments)
    return show(measure(asked), as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

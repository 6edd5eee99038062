"""What the record costs: append, seal and verify, beside the ways one would write a log by hand.

Append is measured three ways: the CPU of one append in a closed loop; at 10,000 a
second the time of each call; and there, as ``open_loop``, the time from the moment
it was due, so that a stall counts for all that wait behind it (on a machine that
others use this is mostly their doing: see ``nothing``). Only ours and the SQLite row
survive ``kill -9`` and can be read while they are written; only ours is then signed.
The peers get the same 42 values.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.canonical import FIELDS, decode_row, encode
from aesp_proxy.record.files import OS_FILES
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.state import audit_paths, load_origin, numbered_batches
from aesp_proxy.record.verify import Pins, verify_place
from benchmarks.harness import (
    Budget,
    Figures,
    Options,
    Result,
    least_of,
    options,
    quantile,
    ratio,
    rounds_of,
    show,
)

RATE_PER_S: Final = 10_000
CLOSED_COUNT: Final = 20_000
SEAL_COUNT: Final = 60_000
_NAMES: Final = tuple(field.name for field in FIELDS)


def sample_records(count: int, seed: int) -> list[Record]:
    """Make records as an agent's day has them: few hosts and agents often, many seldom."""
    chance = random.Random(seed)
    hosts = [f"api-{number}.example-{number % 37}.test" for number in range(400)]
    records = []
    for number in range(count):
        host = hosts[min(int(chance.paretovariate(0.8)) - 1, len(hosts) - 1)]
        agent = min(int(chance.paretovariate(1.0)), 50)
        is_denied = chance.random() < 0.03
        path = f"/v1/{chance.choice(('messages', 'files', 'repos'))}/{chance.randrange(5000)}"
        records.append(
            Record(
                kind=RecordKind.DECISION,
                time_ns=1_792_000_000_000_000_000 + number * 86_000_000 + chance.randrange(10**7),
                event_type="policy_violation" if is_denied else "authorization",
                action=chance.choice(("http.get", "http.get", "http.post")),
                outcome=Outcome.DENIED if is_denied else Outcome.SUCCESS,
                verdict="deny" if is_denied else "allow",
                reason="host_not_allowed" if is_denied else "allowed",
                guard="egress_allowlist",
                severity="error" if is_denied else "info",
                message="host is not on the list" if is_denied else "",
                resource=f"https://{host}{path}",
                target_type="url",
                target_host=host,
                target_port=443,
                target_path=path,
                principal_id="someone",
                session_id=f"s-{agent}",
                agent_id=f"agent-{agent}",
                agent_type="assistant",
                source_ip="127.0.0.1",
                user_agent="python-httpx/0.28.1",
                policy_name="default",
                policy_hash="9f2c" * 16,
                policy_source=f"policy.yaml:{10 + agent % 9}",
                event_id=f"c{agent}-r{number}",
                bytes_out=chance.randrange(4000),
                bytes_in=chance.randrange(60_000),
            )
        )
    return records


type Append = Callable[[Record], object]
type Peer = Callable[[Path], AbstractContextManager[Append]]


@contextmanager
def ours(directory: Path) -> Iterator[Append]:
    """Append through the journal, with its syncing thread."""
    with Journal.open(directory / "state") as journal:
        yield journal.append


@contextmanager
def sqlite_rows(directory: Path) -> Iterator[Append]:
    """Insert a row and commit, in WAL mode with ``synchronous=NORMAL``."""
    columns = ", ".join(f'"{name}"' for name in _NAMES)
    marks = ", ".join("?" * len(_NAMES))
    connection = sqlite3.connect(directory / "log.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"CREATE TABLE log ({columns})")
    insert = f"INSERT INTO log VALUES ({marks})"

    def append(record: Record) -> None:
        connection.execute(insert, [_flat(record, name) for name in _NAMES])

    try:
        yield append
    finally:
        connection.close()


def _flat(record: Record, name: str) -> object:
    value = getattr(record, name, 0)
    return value if isinstance(value, int | str) else None


@contextmanager
def json_lines(directory: Path) -> Iterator[Append]:
    """Write one JSON line a record with one ``write``."""
    descriptor = os.open(directory / "log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(record: Record) -> None:
        values = {name: getattr(record, name, 0) for name in _NAMES}
        os.write(descriptor, json.dumps(values).encode() + b"\n")

    try:
        yield append
    finally:
        os.close(descriptor)


@contextmanager
def logging_file(directory: Path) -> Iterator[Append]:
    """Log one JSON line through the standard library's ``FileHandler``."""
    logger = logging.Logger("bench")  # noqa: LOG001 - one that no other handler hears
    handler = logging.FileHandler(directory / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)

    def append(record: Record) -> None:
        logger.info("%s", json.dumps({name: getattr(record, name, 0) for name in _NAMES}))

    try:
        yield append
    finally:
        handler.close()


@contextmanager
def nothing(_: Path) -> Iterator[Append]:
    """Do nothing: what the machine and the measuring itself add."""
    yield lambda _: None


PEERS: Final[dict[str, Peer]] = {
    "ours": ours,
    "sqlite row": sqlite_rows,
    "json write": json_lines,
    "logging": logging_file,
    "nothing": nothing,
}


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory on the disk that is measured, and remove it."""
    directory = Path(tempfile.mkdtemp(prefix="aesp-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def measure_append(make: Peer, records: Sequence[Record], seconds: float) -> Figures:
    """Measure one way of appending: CPU in a closed loop, then latency in an open one."""
    with scratch() as directory, make(directory) as append:
        gc.collect()
        began = time.process_time_ns()
        for record in records[:CLOSED_COUNT]:
            append(record)
        cpu_us = (time.process_time_ns() - began) / 1000 / min(CLOSED_COUNT, len(records))
        call_us, late_us = _open_loop(append, records, int(RATE_PER_S * seconds))
    return {
        "cpu_us": cpu_us,
        "p50_us": quantile(call_us, 0.5),
        "p99_us": quantile(call_us, 0.99),
        "p999_us": quantile(call_us, 0.999),
        "open_loop_p50_us": quantile(late_us, 0.5),
        "open_loop_p99_us": quantile(late_us, 0.99),
    }


def _open_loop(
    append: Append, records: Sequence[Record], count: int
) -> tuple[list[float], list[float]]:
    """Append at a fixed rate: microseconds of each call, and from when it was due."""
    now, took, late = time.perf_counter_ns, [], []
    step_ns = 1_000_000_000 // RATE_PER_S
    due = now() + step_ns
    for number in range(count):
        record = records[number % len(records)]
        while (began := now()) < due:
            pass
        append(record)
        ended = now()
        took.append((ended - began) / 1000)
        late.append((ended - due) / 1000)
        due += step_ns
    return took, late


def _clock() -> Stamp:
    return Stamp(wall_ns=time.time_ns(), mono_ns=time.monotonic_ns(), boot_id="bench")


def measure_seal(records: Sequence[Record]) -> Figures:
    """Measure sealing a whole journal and verifying what came out, CPU on one core."""
    with scratch() as directory:
        state = directory / "state"
        with Journal.open(state) as journal:
            for record in records:
                journal.append(record)
        paths = audit_paths(state)
        sealer = Sealer.open(
            paths,
            load_origin(paths),
            load_signing_key(paths),
            SealerOptions(heartbeat_s=0),
            files=OS_FILES,
            clock=_clock,
        )
        gc.collect()
        began = time.process_time()
        sealer.tick(drain=True)
        seal_s = time.process_time() - began
        stored = sum(path.stat().st_size for _, path in numbered_batches(paths.batches))
        began = time.process_time()
        report = verify_place(state, Pins())
        verify_s = time.process_time() - began
        if report.problems or report.records != len(records):
            sys.exit(f"what was sealed does not verify: {report.problems[:3]}")
    return {
        "seal_events_per_s": len(records) / seal_s,
        "verify_events_per_s": len(records) / verify_s,
        "bytes_per_event": stored / len(records),
    }


def measure_rows(records: Sequence[Record]) -> Figures:
    """Measure the canonical row alone, beside the same values as JSON."""
    place = RecordId(origin="h-0123456789abcdef", epoch=1, seq=1)
    rows = [encode(record, place) for record in records]
    as_dict = [asdict(record) for record in records[:2000]]
    return {
        "encode_us": _each_us(partial(encode, record_id=place), records),
        "decode_us": _each_us(decode_row, rows),
        "json_us": _each_us(json.dumps, as_dict),
        "row_bytes": sum(map(len, rows)) / len(rows),
        "json_bytes": sum(len(json.dumps(item)) for item in as_dict) / len(as_dict),
    }


def _each_us[T](work: Callable[[T], object], items: Sequence[T]) -> float:
    began = time.process_time_ns()
    for item in items:
        work(item)
    return (time.process_time_ns() - began) / 1000 / len(items)


def run(given: Options) -> Result:
    """Measure everything, interleaved."""
    order = random.Random(given.seed)
    records = sample_records(CLOSED_COUNT, given.seed)
    to_seal = sample_records(SEAL_COUNT // (3 if given.quick else 1), given.seed + 1)
    result = Result(name="record", run={"rate_per_s": RATE_PER_S, "seed": given.seed})
    result.figures = rounds_of(
        {
            name: partial(measure_append, make, records, given.seconds)
            for name, make in PEERS.items()
        },
        rounds=given.rounds,
        order=order,
        summary=least_of,
    )
    sealing = rounds_of(
        {"seal": partial(measure_seal, to_seal), "row": partial(measure_rows, records[:5000])},
        rounds=given.rounds,
        order=order,
    )
    result.figures |= sealing
    for peer in list(PEERS)[1:-1]:
        told = ratio(result.figures, "cpu_us", "ours", peer)
        if told is not None:
            result.ratios[f"append CPU, ours / {peer}"] = told
    seal, append = sealing["seal"], result.figures["ours"]
    result.budgets = [
        Budget(name="append p50, us", value=append["p50_us"], limit=5.0),
        Budget(name="append p99, us", value=append["p99_us"], limit=50.0),
        Budget(
            name="seal, events/s/core",
            value=seal["seal_events_per_s"],
            limit=300_000,
            at_least=True,
        ),
    ]
    result.notes = [
        "append latencies are the least of the rounds: other load can only add to them",
        "json write and logging are not read back, numbered, framed or bounded",
    ]
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and show it."""
    given = options(
        "record", rounds=3, seconds=1.0, arguments=sys.argv[1:] if arguments is None else arguments
    )
    return show(run(given), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
